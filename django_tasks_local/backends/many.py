"""`enqueue_many` of our backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_enqueued

from django_tasks_local.announce import announce, is_heard
from django_tasks_local.exceptions import AlreadyEnqueued
from django_tasks_local.naming import encode_task
from django_tasks_local.policies import policy_of
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.store import Arguments, BulkStore, PlainSnapshot, Snapshot, StoreClient
from django_tasks_local.ties import NO_TIES, Ties
from django_tasks_local.tracing import encode_traced
from django_tasks_local.unique import RAISE, Key, key_of

from .preparing import encode_arguments, with_due_time

if TYPE_CHECKING:
    from django_tasks_local.naming import AnyTask


class Many:
    """One call of `enqueue_many`."""

    def __init__(
        self, store: BulkStore, alias: str, sender: type, task: AnyTask, time_limit: int,
        calls: Sequence[Arguments], ties: Ties | None,
    ) -> None:  # fmt: skip
        """Prepare them: whatever is wrong with a task or its arguments is raised here.

        Args:
            store: Where they go.
            alias: That of the backend.
            sender: The backend's class, for signals.
            task: As validated by the backend.
            time_limit: The task's `time_limit_word`.
            calls: The arguments of each.
            ties: Those of all of them.

        Raises:
            InvalidTask, ValueError, AlreadyEnqueued: See ``bulk.enqueue_many``.
        """
        self._store = store
        self._alias = alias
        self._sender = sender
        self._task, self.due_ns = task, 0
        if task.run_after is not None:
            self._task, self.due_ns = with_due_time(task)
        self._time_limit = time_limit
        self._ties = ties
        self._calls = calls
        self._meta = encode_task(self._task)
        self._metadata = encode_traced(task)
        self._encoded = _encode_all(store, task, calls)
        self._results: list[LocalTaskResult | None] = [None] * len(calls)
        own = policy_of(task.func)
        self._raises = own.on_conflict == RAISE
        self._keys: list[Key | None] = []
        if own.unique is not None:
            self._keys = [key_of(task, own.unique, *each) for each in calls]

    def enqueue(self) -> list[LocalTaskResult]:
        """Store them, and return their results or those of the same tasks that are there."""
        places: Sequence[int] = range(len(self._calls))
        firsts: dict[bytes, int] = {}  # by digest: the place of the first such call
        if self._keys:
            for place, key in enumerate(self._keys):
                if key is not None and firsts.setdefault(key.digest, place) != place:
                    self._refuse(key, "")
            places = [p for p in places if (k := self._keys[p]) is None or firsts[k.digest] == p]
            places = self._without_those_that_are_there(places)
        while places:
            places = self._put(places)
        for place, key in enumerate(self._keys):
            if key is not None:
                self._results[place] = self._results[firsts[key.digest]]
        return [result for result in self._results if result is not None]

    def _without_those_that_are_there(self, places: Sequence[int]) -> Sequence[int]:
        unique = [(place, key) for place in places if (key := self._keys[place]) is not None]
        there = self._store.held([key.digest for _, key in unique])
        for number, result_id in there.items():
            place, key = unique[number]
            self._refuse(key, result_id)
            self._find(place, result_id)
        return [place for place in places if self._results[place] is None]

    def _refuse(self, key: Key, result_id: str) -> None:
        if self._raises:
            raise AlreadyEnqueued(self._task.module_path, key.value, result_id)

    def _find(self, place: int, result_id: str) -> bool:
        """Take the result of another task for one of ours; False where that is gone."""
        try:
            found = self._store.get(result_id)
        except TaskResultDoesNotExist:
            return False  # it has ended since, and was evicted
        self._results[place] = LocalTaskResult.from_snapshot(found, self._alias)
        return True

    def _put(self, places: Sequence[int]) -> Sequence[int]:
        """Store some; return those that are still to be stored."""
        keys: list[bytes] = []
        if self._keys:
            keys = [key.digest if (key := self._keys[place]) else b"" for place in places]
        ids, held, enqueued_at_ns = self._store.enqueue_many(
            self._meta, [self._encoded[place] for place in places],
            priority=int(self._task.priority), due_ns=self.due_ns, time_limit=self._time_limit,
            metadata=self._metadata, keys=keys, ties=self._ties,
        )  # fmt: skip
        shared = PlainSnapshot(
            "", TaskResultStatus.READY, self._meta, enqueued_at_ns, 0, 0, "", None,
            lambda: ((), {}), lambda: None, metadata=self._metadata, ties=self._ties or NO_TIES,
        )  # fmt: skip
        new = []
        calls, results, alias, task = self._calls, self._results, self._alias, self._task
        make = LocalTaskResult.from_record
        for number, (place, result_id) in enumerate(zip(places, ids, strict=True)):
            if number not in held:
                result = make(Stored(result_id, calls[place], shared), alias, task)
                results[place] = result
                new.append(result)
        if is_heard(task_enqueued):
            for result in new:
                announce(task_enqueued, self._sender, result)
        return [
            places[number]
            for number, result_id in held.items()
            if not self._find(places[number], result_id)
        ]


class Stored:
    """The `Snapshot` of a task that was just stored with others: what they share is stored once."""

    __slots__ = ("_arguments", "_shared", "result_id")

    def __init__(self, result_id: str, arguments: Arguments, shared: Snapshot) -> None:
        self.result_id = result_id
        self._arguments = arguments
        self._shared = shared

    def arguments(self) -> Arguments:
        """Return what was passed."""
        return self._arguments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared, name)


def _encode_all(store: StoreClient, task: AnyTask, calls: Sequence[Arguments]) -> list[Any]:
    try:
        return list(map(store.encode, calls))
    except Exception:
        # Once more, for the error's text.
        return [encode_arguments(store, task, each) for each in calls]
