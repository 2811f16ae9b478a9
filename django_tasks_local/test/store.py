"""The stores of inline backends: those of threads, with values pickled as for processes.

They belong to the process and not to a thread: a test's client may run a view in another one.
"""

from __future__ import annotations

import pickle
from typing import Any, Final

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.memory import MemoryStore
from django_tasks_local.memory_record import Record
from django_tasks_local.options import Options
from django_tasks_local.store import Arguments, Snapshot

# As the ring's records.
PROTOCOL: Final = 5


class PickledRecord(Record):
    """A record whose values are bytes. Each read makes new objects of them."""

    __slots__ = ()

    def arguments(self) -> Arguments:
        """Return equal objects to those that were passed."""
        arguments: Arguments = pickle.loads(self.passed)  # type: ignore[arg-type]
        return arguments

    def outcome(self) -> Any:
        """Return what the task returned, or the error's class path and the traceback."""
        return pickle.loads(self.ending)


class InlineStore(MemoryStore):
    """Tasks and results of one alias, each claimed by name and not in turn."""

    record_class = PickledRecord

    def __init__(self, alias: str, options: Options) -> None:
        super().__init__(
            alias,
            max_workers=options.max_workers,
            max_results=options.max_results,
            max_result_bytes=options.max_result_bytes,
            max_pending=options.max_pending,
            result_ttl_s=options.result_ttl,
            failure_ttl_s=options.failure_ttl,
        )
        self.options = options
        # Tasks run in the main thread, for which a `PoliteLock` is not safe.
        self._lock_of_workers = self._lock

    def encode(self, value: object) -> bytes:
        """Pickle a value; may raise what pickling raises."""
        return pickle.dumps(value, PROTOCOL)

    def claim_this(self, result_id: str, worker_id: str, due_ns: int | None) -> Record | None:
        """Claim one task, whatever waits in front of it.

        Args:
            result_id: The id of its result.
            worker_id: Who runs it.
            due_ns: Not if it is deferred beyond this moment; ``None``: however long it is.

        Returns:
            ``None`` if it does not wait, or is deferred beyond that moment.
        """
        with self._lock:
            self._mend_if_torn()
            record = self._records.get(result_id)
            if record is None or record.heap is None:
                return None
            is_deferred = record.heap is self._order.deferred
            if is_deferred and due_ns is not None and record.entry[0] > due_ns:
                return None
            self._torn = True
            self._order.remove(record)
            return self._begin(record, worker_id)

    def look(self, record: Record) -> Snapshot:
        """Return a record as it is now: that of the next attempt, or one that was dropped."""
        with self._lock:
            return self._records.get(record.result_id, record).snapshot()

    @staticmethod
    def _does_not_exist(result_id: str, alias: str, kept: str) -> TaskResultDoesNotExist:
        return TaskResultDoesNotExist(
            f"No result {result_id[:80]!r}. Task backend {alias!r} is an InlineBackend: what "
            "was enqueued before the last captured_tasks() is gone, and what has come since is "
            "kept as MAX_RESULTS, MAX_RESULT_BYTES, RESULT_TTL and FAILURE_TTL say."
        )


_stores: Final[dict[str, InlineStore]] = {}


def store_of(alias: str, options: Options) -> InlineStore:
    """Return the store of an alias. With other options than before it is a new one."""
    store = _stores.get(alias)
    if store is None or store.options != options:
        store = _stores[alias] = InlineStore(alias, options)
    return store


def drop_stores(alias: str | None = None) -> None:
    """Forget all tasks and results, or those of one alias."""
    if alias is None:
        _stores.clear()
    else:
        _stores.pop(alias, None)
