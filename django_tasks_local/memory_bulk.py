"""`enqueue_many` of a store in memory: some in each hold of its lock, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from django_tasks_local.exceptions import QueueFull
from django_tasks_local.memory_record import Record
from django_tasks_local.ties import NO_TIES

if TYPE_CHECKING:
    from threading import Lock

    from django_tasks_local.store import Arguments
    from django_tasks_local.ties import Ties

# In 0.3 ms.
PUT_AT_ONCE: Final = 100

# Puts some of the records, and returns by place those whose keys others have.
type Put = Callable[[Sequence[Record]], dict[int, Record]]


class BulkEnqueue:
    """A part of `MemoryStore`."""

    record_class: type[Record]
    alias: str
    max_pending: int
    waiting: Any
    _lock: Lock
    _expires: bool
    _keys: dict[bytes, Record]
    _promised: int
    _put: Callable[[Record, int], None]
    _let_workers_go: Callable[[], None]
    _drop_expired: Callable[[list[Record]], None]

    def enqueue_many(
        self, meta: bytes, arguments: Sequence[Arguments], *, priority: int, due_ns: int,
        time_limit: int = 0, metadata: bytes = b"", keys: Sequence[bytes] = (),
        ties: Ties | None = None,
    ) -> tuple[list[str], dict[int, str], int]:  # fmt: skip
        """Store READY tasks, all of them or none; see ``store.BulkStore``."""
        make = self.record_class
        pairs = zip(arguments, keys or repeat(b""), strict=False)
        records = [make(meta, each, priority, time_limit, metadata, key) for each, key in pairs]
        now_ns = records[0].enqueued_at_ns
        for record in records:
            record.enqueued_at_ns = now_ns
            record.ties = ties or NO_TIES
        expired: list[Record] = []  # until the lock is free
        self._let_workers_go()
        with self._lock:
            if self._expires:
                self._drop_expired(expired)
            waiting = self.waiting
            if waiting + len(records) > self.max_pending:
                raise QueueFull(self.alias, waiting, self.max_pending, wanted=len(records))
            self._promised += len(records)
        held = put_all(records, partial(self._put_some, due_ns))
        return [record.result_id for record in records], held, now_ns

    def held(self, keys: Sequence[bytes]) -> dict[int, str]:
        """Return which of these keys tasks have; see ``store.BulkStore``."""
        self._let_workers_go()
        with self._lock:
            found = [(place, self._keys.get(key)) for place, key in enumerate(keys)]
            return {place: record.result_id for place, record in found if record is not None}

    def _put_some(self, due_ns: int, records: Sequence[Record]) -> dict[int, Record]:
        held = {}
        self._let_workers_go()
        with self._lock:
            for place, record in enumerate(records):
                other = self._keys.get(record.key, record)
                if other is not record:
                    held[place] = other
                elif not record.was_put:
                    self._put(record, due_ns)
            self._promised -= len(records)
        return held


def put_all(records: Sequence[Record], put: Put) -> dict[int, str]:
    """Put records that are accepted; return by place the ids of those that have their keys.

    An exception in between, such as a signal's handler raises, changes nothing about that: it goes
    on when all are there.

    Args:
        records: In their order.
        put: Puts some, and passes over those that are there already.
    """
    held: dict[int, str] = {}
    done = 0

    def put_the_rest() -> None:
        nonlocal done
        while done < len(records):
            others = put(records[done : done + PUT_AT_ONCE])
            held.update({done + place: other.result_id for place, other in others.items()})
            done += PUT_AT_ONCE

    try:
        put_the_rest()
    except BaseException:
        put_the_rest()
        raise
    return held
