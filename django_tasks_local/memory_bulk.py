"""`enqueue_many` of a store in memory: some in each hold of its lock, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from django_tasks_local.exceptions import QueueFull
from django_tasks_local.memory_record import Record
from django_tasks_local.ties import NO_TIES

if TYPE_CHECKING:
    from threading import Lock

    from django_tasks_local.store import Arguments
    from django_tasks_local.ties import Ties

# In 0.3 ms.
PUT_AT_ONCE: Final = 100


class Batch:
    """Records that are put together.

    Attributes:
        records: In their order.
        left: How many of the last of them were accepted, and are not among the others yet.
        held: By place the ids of other tasks, for those whose keys were taken meanwhile.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.left = 0
        self.held: dict[int, str] = {}


class BulkEnqueue:
    """A part of `MemoryStore`."""

    record_class: type[Record]
    alias: str
    max_pending: int
    _accepted: Any
    _lock: Lock
    _expires: bool
    _keys: dict[bytes, Record]
    _batches: WeakSet[Batch]
    _put: Callable[[Record, int], None]
    _let_workers_go: Callable[[], None]
    _drop_expired: Callable[[list[Record]], None]

    def enqueue_many(
        self, meta: bytes, arguments: Sequence[Arguments], *, priority: int, due_ns: int,
        time_limit: int = 0, metadata: bytes = b"", keys: Sequence[bytes] = (),
        ties: Ties | None = None,
    ) -> tuple[list[str], dict[int, str], int]:  # fmt: skip
        """Store READY tasks, all of them or none; see ``store.BulkStore``.

        An exception in the middle, such as a signal's handler raises, changes nothing about that:
        it goes on when all are there.
        """
        make = self.record_class
        pairs = zip(arguments, keys or repeat(b""), strict=False)
        records = [make(meta, each, priority, time_limit, metadata, key) for each, key in pairs]
        now_ns = records[0].enqueued_at_ns
        for record in records:
            record.enqueued_at_ns = now_ns
            record.ties = ties or NO_TIES
        batch = Batch(records)
        try:
            self._accept(batch)
            self._put_all(batch, due_ns)
        except BaseException:
            self._put_all(batch, due_ns)  # of those that were accepted
            raise
        return [record.result_id for record in records], batch.held, now_ns

    def held(self, keys: Sequence[bytes]) -> dict[int, str]:
        """Return which of these keys tasks have; see ``store.BulkStore``."""
        self._let_workers_go()
        with self._lock:
            found = [(place, self._keys.get(key)) for place, key in enumerate(keys)]
            return {place: record.result_id for place, record in found if record is not None}

    def _accept(self, batch: Batch) -> None:
        expired: list[Record] = []  # until the lock is free
        self._let_workers_go()
        with self._lock:
            if self._expires:
                self._drop_expired(expired)
            accepted, wanted = self._accepted, len(batch.records)
            if accepted + wanted > self.max_pending:
                raise QueueFull(self.alias, accepted, self.max_pending, wanted=wanted)
            self._batches.add(batch)
            batch.left = wanted

    def _put_all(self, batch: Batch, due_ns: int) -> None:
        while batch.left:
            self._let_workers_go()
            with self._lock:
                self._put_some(batch, due_ns)

    def _put_some(self, batch: Batch, due_ns: int) -> None:
        first = len(batch.records) - batch.left
        some = batch.records[first : first + PUT_AT_ONCE]
        for place, record in enumerate(some, first):
            if record.was_put:  # before an interruption
                continue
            other = self._keys.get(record.key)
            if other is None:
                self._put(record, due_ns)
            else:
                batch.held[place] = other.result_id
        left = batch.left - len(some)
        batch.left = left  # by one store, between which and what is above nothing is interrupted
