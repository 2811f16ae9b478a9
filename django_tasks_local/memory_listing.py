"""The records of a store in memory, in the order in which people want to see them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from django.tasks import TaskResultStatus

if TYPE_CHECKING:
    from threading import Lock

    from django_tasks_local.lifetimes import Lifetimes
    from django_tasks_local.memory_order import Order
    from django_tasks_local.memory_record import Record
    from django_tasks_local.store import Snapshot

    # Two numbers by which a heap is sorted, and the record.
    type Entry = tuple[int, int, Any]


class Lists:
    """A part of `MemoryStore`."""

    _lock: Lock
    _records: dict[str, Record]
    _order: Order
    _lifetimes: Lifetimes[Record]
    _let_workers_go: Callable[[], None]

    def listed(
        self, statuses: Collection[TaskResultStatus], accepts: Callable[[bytes], bool] | None,
        group: str = "",
    ) -> Iterator[Snapshot]:  # fmt: skip
        """Yield the records that are there; see ``store.StoreClient``."""
        self._let_workers_go()
        with self._lock:  # copies of references: some ms for 100,000 records
            records = [*self._records.values()]
            ready, deferred = self._order.ready.entries(), self._order.deferred.entries()
        if group:
            records = [record for record in records if record.ties.group == group]
            ready = [entry for entry in ready if entry[2].ties.group == group]
            deferred = [entry for entry in deferred if entry[2].ties.group == group]
        found = in_order(statuses, records, ready, deferred, time.time_ns())
        for record in wanted(found, accepts):
            with self._lock:
                there = record.result_id in self._records
                current = self._records.get(record.result_id, record)  # its next attempt's, perhaps
                snapshot = current.snapshot()
            if there and snapshot.status in statuses and not self._lifetimes.is_over(current):
                yield snapshot


def in_order(
    statuses: Collection[TaskResultStatus],
    records: Collection[Any],
    ready: Iterable[Entry],
    deferred: Iterable[Entry],
    now_ns: int,
) -> Iterator[Any]:
    """Yield records in the order of ``StoreClient.listed``. All that is given are copies.

    Args:
        statuses: Which of them.
        records: All records of the store.
        ready: What is due, with minus its priority and its turn.
        deferred: What was not when it was looked at last, with the moment and its turn.
        now_ns: The time in Unix ns.
    """
    if TaskResultStatus.RUNNING in statuses:
        running = [each for each in records if each.status is TaskResultStatus.RUNNING]
        yield from sorted(running, key=lambda each: -each.started_at_ns)
    if TaskResultStatus.READY in statuses:
        keyed = [((0, minus_priority, 0, turn), each) for minus_priority, turn, each in ready]
        for due_ns, turn, each in deferred:
            # What has fallen due goes behind those of its priority with the next claim.
            later = (1, due_ns, turn, 0) if due_ns > now_ns else (0, -each.priority, due_ns, turn)
            keyed.append((later, each))
        yield from (each for _, each in sorted(keyed, key=lambda pair: pair[0]))
    ended = [each for each in records if each.finished_at_ns and each.status in statuses]
    yield from sorted(ended, key=lambda each: -each.finished_at_ns)


def wanted(records: Iterable[Any], accepts: Callable[[bytes], bool] | None) -> Iterator[Any]:
    """Yield what ``accepts`` lets pass, each once: what ends meanwhile comes twice `in_order`."""
    seen: set[str] = set()
    for record in records:
        if record.result_id not in seen and (accepts is None or accepts(record.meta)):
            seen.add(record.result_id)
            yield record
