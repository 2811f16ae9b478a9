"""What both backends have in common: options, validation, enqueue, reading results, signals.

Django makes a backend object per thread and per asyncio context, so each is a throw-away handle:
its constructor looks at nothing, and ``migrate`` or the import of a module with tasks starts
nothing. The subclass keeps what lasts (stores, threads, segments), see `LocalBackend._store`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.checks import CheckMessage
from django.tasks import DEFAULT_TASK_QUEUE_NAME, TaskResultStatus
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued, task_finished

from django_tasks_local import following, policy_checks
from django_tasks_local.announce import announce
from django_tasks_local.exceptions import AlreadyEnqueued, StoreUnavailable
from django_tasks_local.groups import current_group
from django_tasks_local.metadata import decode, encode, encode_of
from django_tasks_local.naming import copy_task, encode_task
from django_tasks_local.options import Options, check, check_app
from django_tasks_local.policies import NO_POLICY, policy_of, time_limit_of
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.store import BulkStore, KeyTaken, Snapshot
from django_tasks_local.ties import NO_TIES, NOTHING, Ties
from django_tasks_local.tracing import encode_traced
from django_tasks_local.unique import RAISE, key_of

from .enqueued import Enqueued
from .many import Many
from .preparing import encode_arguments, moment_after, text_of, with_due_time
from .task_class import TASK_CLASS
from .tied import TiedTasks
from .waits import Waits

if TYPE_CHECKING:
    from django.tasks import TaskResult

    from django_tasks_local.naming import AnyTask

# The flags by which a backend decides whether it takes a task without run_after, and its queues.
type _Allowed = tuple[bool, bool, Set[str]]
_VALID_LIMIT = 1024  # arbitrary; reached by `using` in a loop


class LocalBackend(TiedTasks, Waits, BaseTaskBackend):
    """Base of the package's two backends. Do not name it in ``TASKS``."""

    task_class = TASK_CLASS
    result_class = LocalTaskResult

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True
    supports_metadata = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        # Not Django's constructor: with broken params it raises here, and thus at the import of
        # every module with a task in it, before `manage.py check` could say what is wrong.
        self.alias = alias
        self.options = params.get("OPTIONS", {})
        queues = params.get("QUEUES", [DEFAULT_TASK_QUEUE_NAME])
        broken = isinstance(queues, str | Mapping) or not hasattr(queues, "__iter__")
        self.queues = set() if broken else set(queues)  # an empty set lets any queue pass
        self._params = params
        # id -> a task that has passed, and what this backend allowed then. It passes again, since
        # a task is frozen. Validating it at every enqueue, as Django's backends do, takes 2 µs.
        self._valid: dict[int, tuple[AnyTask, _Allowed]] = {}

    @abstractmethod
    def _store(self) -> BulkStore:
        """Return the store of this process and alias; open it if need be."""

    def _enqueued(self, due_ns: int) -> None:
        """Make sure that the task just stored will run; ``due_ns`` 0 means now."""

    @cached_property
    def checked_options(self) -> Options:
        """The options, complete.

        Raises:
            ImproperlyConfigured: `check` finds errors; the text has all of theirs.
        """
        return Options.from_params(self._params, self.alias, self.kind)

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return what is wrong with this alias's value in ``TASKS``. Starts nothing."""
        errors = check(self._params, self.alias, self.kind)
        return [*errors, *check_app(self.kind), *([] if errors else self._check_tasks())]

    def _check_tasks(self) -> Iterator[CheckMessage]:
        """Yield what is wrong with tasks of this alias, whose options are right."""
        yield from policy_checks.warnings(self.alias, self.checked_options)
        yield from following.problems(self.alias)

    def validate_task(self, task: AnyTask) -> None:
        """Validate as Django does; ``run_after`` may also be a timedelta.

        Raises:
            InvalidTask: This backend cannot run ``task``.
        """
        known = self._valid.get(id(task))
        allowed: _Allowed = self.supports_priority, self.supports_async_task, self.queues
        if known is not None and known[0] is task and known[1] == allowed:
            return
        encode_of(task)
        run_after: object = task.run_after
        if run_after is None:
            super().validate_task(task)
            if len(self._valid) >= _VALID_LIMIT:
                self._valid.clear()
            self._valid[id(task)] = task, (allowed[0], allowed[1], frozenset(self.queues))
        elif isinstance(run_after, timedelta):
            super().validate_task(copy_task(task, run_after=moment_after(run_after)))
        elif isinstance(run_after, datetime):
            super().validate_task(task)
        else:
            raise InvalidTask(
                f"run_after must be a datetime or a timedelta, not {type(run_after).__name__}."
            )

    def enqueue(
        self,
        task: AnyTask,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
        *,
        encoded: Any = None,
        metadata: bytes | None = None,
        ties: Ties | None = None,
    ) -> Any:
        """Store a task that is to run, and return its `LocalTaskResult`, READY.

        Where the same unique task waits or runs already, nothing is stored, and the result is that
        one's.

        Args:
            task: As validated by `validate_task`; a timedelta in ``run_after`` counts from now.
            args: Positional arguments, a list or tuple.
            kwargs: Keyword arguments; ``None``: none.
            encoded: For this package's own calls, as ``metadata`` and ``ties``: leave them out.
                The arguments, as the store has encoded them already; ``None``: it has not.
            metadata: The task's, as JSON; ``None``: as it is now.
            ties: Its ties to other tasks, ``NO_TIES`` for none; ``None``: what its policy and
                `in_group` say.

        Raises:
            InvalidTask: This backend cannot run ``task`` or what follows it, or its path does not
                lead to it.
            ValueError: The arguments cannot be pickled (ProcessPoolBackend), or the task is unique
                and its key cannot be made.
            AlreadyEnqueued: The same unique task waits or runs, and its policy says "raise".
            PayloadTooLarge: The arguments or the metadata do not fit the store.
            QueueFull: MAX_PENDING tasks are waiting, or what waits and runs fills SHM_SIZE.
            StoreUnavailable: The store cannot be used.
            ImproperlyConfigured: The options are wrong.
        """
        store = self._store()
        self.validate_task(task)
        due_ns = 0
        if task.run_after is not None:
            task, due_ns = with_due_time(task)
        meta = encode_task(task)
        if metadata is None:
            metadata = encode_traced(task)
        arguments = (tuple(args), {} if kwargs is None else kwargs)
        if encoded is None:
            encoded = encode_arguments(store, task, arguments)
        own = policy_of(task.func)
        if ties is None and (own is not NO_POLICY or current_group.get()):
            ties = self._ties(task, own)
        key = None if own.unique is None else key_of(task, own.unique, *arguments)
        limit = self._default_time_limit if own is NO_POLICY else self._time_limit(task)
        while True:
            try:
                result_id, enqueued_at_ns = store.enqueue(
                    meta, encoded, priority=int(task.priority), due_ns=due_ns,
                    time_limit=limit, metadata=metadata,
                    key=key.digest if key else b"", ties=None if ties is NO_TIES else ties,
                )  # fmt: skip
                break
            except KeyTaken as taken:
                assert key is not None
                if own.on_conflict == RAISE:
                    raise AlreadyEnqueued(task.module_path, key.value, taken.result_id) from None
                try:
                    found = store.get(taken.result_id)
                except TaskResultDoesNotExist:
                    continue  # it has ended since, and was evicted
                return LocalTaskResult.from_snapshot(found, self.alias)
        self._enqueued(due_ns)
        snapshot = Enqueued(result_id, meta, enqueued_at_ns, arguments, metadata, ties or NO_TIES)
        result = LocalTaskResult.from_record(snapshot, self.alias, task)
        # Robust: the task is on its way, and its caller must get the id whatever a receiver does.
        announce(task_enqueued, type(self), result)
        return result

    def enqueue_many(
        self, task: AnyTask, calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]],
        *, time_limit: int | None = None,
    ) -> list[LocalTaskResult]:  # fmt: skip
        """Store a task once for each pair of arguments, all of them or none.

        See ``bulk.enqueue_many``, which checks the pairs. ``time_limit`` is their
        `time_limit_word`; ``None``: as the task's function and the options say.
        """
        if not calls:
            return []
        store = self._store()
        self.validate_task(task)
        limit = self._time_limit(task) if time_limit is None else time_limit
        ties = self._ties(task, policy_of(task.func))
        many = Many(store, self.alias, type(self), task, limit, calls, ties)
        results = many.enqueue()
        self._enqueued(many.due_ns)
        return results

    def prepare(self, task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """Do what in `enqueue` can fail because of the task or its arguments.

        Args:
            task: As for `enqueue`, and likewise ``args`` and ``kwargs``.

        Returns:
            What `enqueue_prepared` makes use of.

        Raises:
            InvalidTask, ValueError, StoreUnavailable, ImproperlyConfigured: As `enqueue`.
        """
        store = self._store()
        self.validate_task(task)
        encode_task(task)
        encoded = encode_arguments(store, task, (args, kwargs))
        ties = self._ties(task, policy_of(task.func)) or NO_TIES
        return getattr(store, "ring", None), encoded, encode_traced(task), ties

    def enqueue_prepared(
        self, task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any], prepared: Any
    ) -> Any:
        """Do what `enqueue` does, with what `prepare` has returned."""
        ring, encoded, metadata, ties = prepared
        # What was pickled for a ring of other sizes may not fit in as it is.
        same = getattr(self._store(), "ring", None) is ring
        if not same:
            encoded = None
        return self.enqueue(task, args, kwargs, encoded=encoded, metadata=metadata, ties=ties)

    def _time_limit(self, task: AnyTask) -> int:
        return time_limit_of(task.func, self.checked_options)

    @cached_property
    def _default_time_limit(self) -> int:
        return time_limit_of(None, self.checked_options)

    async def aenqueue(
        self, task: AnyTask, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what `enqueue` does, in a thread."""
        # Receivers of task_enqueued may use the database, which an event loop forbids; and waiting
        # for a lock, a first attachment or pickling megabytes would hold up every other request of
        # the loop.
        return await super().aenqueue(task, args, {} if kwargs is None else kwargs)

    def get_result(self, result_id: object) -> LocalTaskResult:
        """Return the result as it is now, a snapshot.

        Args:
            result_id: Any string, such as part of a URL, or a ``uuid.UUID``.

        Raises:
            TaskResultDoesNotExist: The id is not that of a result in this store, the result was
                evicted or has expired, or its task no longer imports.
            StoreUnavailable: The store cannot be used.
            ImproperlyConfigured: The options are wrong.
        """
        text = result_id if type(result_id) is str else text_of(result_id)
        return LocalTaskResult.from_snapshot(self._store().get(text), self.alias)

    async def aget_result(self, result_id: object) -> LocalTaskResult:
        """Do what `get_result` does, in the event loop's own thread."""
        # It reads memory for some microseconds and sends no signal; a thread would cost ten times
        # that, and queue up behind the request's database queries.
        return self.get_result(result_id)

    def cancel(self, result_id: object, *, running: bool = True) -> bool:
        """Take a task out that waits, or ask it to stop if it runs.

        It does not wait for the end of a task that runs.

        Args:
            result_id: As for `get_result`.
            running: ``False`` to leave it alone once it runs.

        Returns:
            Whether it will be FAILED with `TaskCancelled`.

        Raises:
            TaskResultDoesNotExist: As for `get_result`; but a task that no longer imports is
                cancelled.
            StoreUnavailable: The store cannot be used.
            ImproperlyConfigured: The options are wrong.
        """
        cancelled, snapshot = self._store().cancel(text_of(result_id), running=running)
        if snapshot is not None:
            if snapshot.ties.on_failure != NOTHING:
                self._enqueued(0)  # what follows it
            try:
                result = LocalTaskResult.from_snapshot(snapshot, self.alias)
            except (TaskResultDoesNotExist, StoreUnavailable):
                return cancelled  # no signal: it would carry a task, and there is none
            announce(task_finished, type(self), result)
        return cancelled

    async def acancel(self, result_id: object, *, running: bool = True) -> bool:
        """Do what `cancel` does, in a thread: receivers of its signal may use the database."""
        return await sync_to_async(self.cancel)(result_id, running=running)

    def listed(
        self, statuses: Collection[TaskResultStatus], accepts: Callable[[bytes], bool] | None,
        group: str = "",
    ) -> Iterator[Snapshot]:  # fmt: skip
        """Yield records, for `listing.results`. See ``store.StoreClient``."""
        return self._store().listed(statuses, accepts, group)

    def save_metadata(self, task_result: TaskResult[..., Any], metadata: dict[str, Any]) -> None:
        """Replace the metadata of a task, which may be in any state; any process may do so.

        Args:
            task_result: The task's, which then shows it.
            metadata: All of it, reserved keys included.

        Raises:
            TypeError: It is not a dict, or cannot be stored as JSON; likewise ``ValueError``.
            TaskResultDoesNotExist: The result was evicted, or has expired.
            PayloadTooLarge: There is no room for it.
            StoreUnavailable: The store cannot be used.
        """
        data = encode(metadata)
        ours = task_result if isinstance(task_result, LocalTaskResult) else None
        self._store().save_metadata(task_result.id, data, ours.claim if ours else None)
        if ours:
            ours.set_raw_metadata(decode(data))

    async def asave_metadata(
        self, task_result: TaskResult[..., Any], metadata: dict[str, Any]
    ) -> None:
        """Do what `save_metadata` does, in a thread: it may have to wait for a lock."""
        await sync_to_async(self.save_metadata, thread_sensitive=True)(task_result, metadata)
