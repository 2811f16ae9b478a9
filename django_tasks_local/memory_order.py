"""The order in which the waiting records of a store in memory run."""

from __future__ import annotations

import math
import time
from typing import Final

from django_tasks_local.heap import Heap
from django_tasks_local.memory_record import Record

# A deferred task falls due by the wall clock, but a wait ends by the monotonic one: a waiting
# thread notices a changed clock after this time at most.
LONGEST_WAIT_S = 10.0
# How many deferred tasks one call moves while other threads wait for the lock: 0.3 ms.
PROMOTED_AT_ONCE: Final = 100


class Order:
    """The READY records of a store, whose lock must be held for everything here.

    Attributes:
        ready: Those that are due, by -priority.
        deferred: Those that are not, by the moment at which they fall due.
    """

    def __init__(self) -> None:
        self.ready: Heap[Record] = Heap()
        self.deferred: Heap[Record] = Heap()

    def __len__(self) -> int:
        """Return how many records wait."""
        return len(self.ready) + len(self.deferred)

    def add(self, record: Record, due_ns: int) -> None:
        """Put a record behind those of its priority; before ``due_ns`` it waits elsewhere."""
        if due_ns:
            self._wait_in(self.deferred, due_ns, record)
        else:
            self._wait_in(self.ready, -record.priority, record)

    def pop(self) -> Record:
        """Take out the record whose turn it is. There has to be one in ``ready``."""
        record = self.ready.pop()
        record.heap = None
        return record

    def remove(self, record: Record) -> None:
        """Take a waiting record out, wherever it stands."""
        assert record.heap is not None
        record.heap.remove(record.entry)
        record.heap = None

    def refill(self, records: list[Record]) -> None:
        """Hold these records and no others, in the order in which they were added."""
        turns = {record.result_id: turn for _, turn, record in self.ready.entries()}

        def turn_of(record: Record) -> float:
            return turns.get(record.result_id, record.entry[1] if record.entry else math.inf)

        ready, deferred = Heap[Record](), Heap[Record]()
        for record in sorted(records, key=turn_of):
            if record.due_ns and record.result_id not in turns:
                self._wait_in(deferred, record.due_ns, record)
            else:
                self._wait_in(ready, -record.priority, record)
        self.ready, self.deferred = ready, deferred

    def promote(self) -> int:
        """Give records that have fallen due their places among those of their priorities.

        Where many fall due together, the next call continues.

        Returns:
            How many these were.
        """
        now = time.time_ns()
        for moved in range(PROMOTED_AT_ONCE):
            due_ns = self.deferred.first_key()
            if due_ns is None or due_ns > now:
                return moved
            record = self.deferred.first()
            self._wait_in(self.ready, -record.priority, record)
            record.due_ns = 0  # from here on its entry is that in `ready`: `refill` relies on it
            self.deferred.pop()
        return PROMOTED_AT_ONCE

    def seconds_to_next(self) -> float | None:
        """Return when to look for records that have fallen due; ``None``: there are none."""
        due_ns = self.deferred.first_key()
        if due_ns is None:
            return None
        left_s = (due_ns - time.time_ns()) / 1e9
        return min(max(left_s, 0.0), LONGEST_WAIT_S)

    def empty(self) -> list[Record]:
        """Take all records out, and return them in their order."""
        records = self.ready.items() + self.deferred.items()
        for record in records:
            record.heap, record.entry = None, []  # which hold the record
        self.ready, self.deferred = Heap(), Heap()
        return records

    @staticmethod
    def _wait_in(heap: Heap[Record], key: int, record: Record) -> None:
        record.heap, record.entry = heap, heap.push(key, record)
