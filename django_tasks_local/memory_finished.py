"""The finished records of a store in memory: least recently used first, and within its limits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from django_tasks_local.exceptions import counted
from django_tasks_local.lifetimes import Lifetimes
from django_tasks_local.memory_record import Record


class Finished:
    """The SUCCESSFUL and FAILED records of a store, whose lock must be held for everything here.

    Args:
        max_results: How many there may be.
        max_bytes: How much they may weigh, unless it is one alone.
        lifetimes: For how long they can be read.

    Attributes:
        kept_bytes: The sum of their weights.
    """

    def __init__(self, max_results: int, max_bytes: int, lifetimes: Lifetimes[Record]) -> None:
        self._max_results = max_results
        self._max_bytes = max_bytes
        self._lifetimes = lifetimes
        self._records: OrderedDict[str, Record] = OrderedDict()
        self.kept_bytes = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._records)

    def __contains__(self, result_id: str) -> bool:
        """Return whether a record is among them."""
        return result_id in self._records

    def __str__(self) -> str:
        """Return how many are kept and for how long, as a part of a sentence."""
        kept = counted(self._max_results, "finished result")
        size = f"{self._max_bytes:,} bytes in all (MAX_RESULT_BYTES)"
        return f"{kept} (MAX_RESULTS) of up to {size}{self._lifetimes}"

    def touch(self, result_id: str) -> None:
        """Make a record the most recently used."""
        self._records.move_to_end(result_id)

    def add(self, record: Record) -> None:
        """Take a record in, as the most recently used."""
        self._records[record.result_id] = record
        self.kept_bytes += record.weight
        self._lifetimes.add(record)

    def weigh(self, record: Record, more_bytes: int) -> None:
        """Note that a record has become heavier."""
        record.weight += more_bytes
        self.kept_bytes += more_bytes

    def remove(self, record: Record) -> None:
        """Forget a record."""
        del self._records[record.result_id]
        self.kept_bytes -= record.weight
        self._lifetimes.remove(record)

    def surplus(self) -> Record | None:
        """Return the record that has to go, ``None`` as long as they are within the limits."""
        kept = len(self._records)
        if kept > self._max_results or (self.kept_bytes > self._max_bytes and kept > 1):
            return next(iter(self._records.values()))
        return None

    def refill(self, records: Iterable[Record]) -> None:
        """Hold these records and no others; those that it had keep their order."""
        left = {record.result_id: record for record in records}
        kept = OrderedDict((key, left.pop(key)) for key in self._records if key in left)
        kept.update(left)
        self._records = kept
        self.kept_bytes = sum(record.weight for record in kept.values())
        self._lifetimes.forget()
        for record in sorted(kept.values(), key=lambda record: record.finished_at_ns):
            self._lifetimes.add(record)

    def empty(self) -> object:
        """Forget all records, and return what held them: to be kept until the lock is free."""
        held = self._records
        self._records = OrderedDict()
        self._lifetimes.forget()
        self.kept_bytes = 0
        return held
