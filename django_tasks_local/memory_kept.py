"""The finished records of a store in memory: which are kept, and which have to go.

Whoever gets a record back that goes keeps it until the store's lock is free: to drop the last
reference to it may run the user's code.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from django_tasks_local.exceptions import counted
from django_tasks_local.lifetimes import Lifetimes

if TYPE_CHECKING:
    from django_tasks_local.memory_record import Record


class Kept:
    """Finished records, the least recently used first (all in the store's lock).

    Invariants, beside those of the store:

    - what is in it and can expire is in ``_lifetimes``;
    - ``_bytes`` is the sum of the weights, and at most ``max_bytes`` unless one record alone is
      heavier.

    Args:
        max_results: How many there may be.
        max_bytes: How much they may weigh.
        result_ttl_s: How long a SUCCESSFUL one can be read; ``None``: no limit.
        failure_ttl_s: The same for a FAILED one.
    """

    def __init__(
        self, max_results: int, max_bytes: int, result_ttl_s: float | None,
        failure_ttl_s: float | None,
    ) -> None:  # fmt: skip
        self._max_results = max_results
        self._max_bytes = max_bytes
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._bytes = 0
        self._lifetimes = Lifetimes["Record"](result_ttl_s, failure_ttl_s)
        self.expires = bool(self._lifetimes)

    def __contains__(self, result_id: str) -> bool:
        """Return whether the record with this id has finished, and is kept."""
        return result_id in self._records

    def add(self, record: Record) -> None:
        """Keep a record that has just ended."""
        self._records[record.result_id] = record
        self._bytes += record.weight
        if self.expires:
            self._lifetimes.add(record)

    def use(self, result_id: str) -> None:
        """Make a record the most recently used."""
        self._records.move_to_end(result_id)

    def reweigh(self, record: Record, more: int) -> None:
        """Note that a record weighs so much more."""
        record.weight += more
        self._bytes += more

    def is_over(self, record: Record) -> bool:
        """Return whether a record has expired; one that has not ended never has."""
        return self._lifetimes.is_over(record)

    def expired(self) -> list[Record]:
        """Give up some of what has expired."""
        return [self._drop(record.result_id) for record in self._lifetimes.expired()]

    def surplus(self) -> list[Record]:
        """Give up what is too much, the least recently used first."""
        dropped = []
        while (kept := len(self._records)) > self._max_results or (
            kept > 1 and self._bytes > self._max_bytes
        ):
            dropped.append(self._drop(next(iter(self._records))))
        return dropped

    def empty(self) -> list[Record]:
        """Give up all."""
        dropped = list(self._records.values())
        self._records = OrderedDict()
        self._lifetimes.forget()
        self._bytes = 0
        return dropped

    def __str__(self) -> str:
        """Return what is kept, as the object of a sentence."""
        return (
            f"{counted(self._max_results, 'finished result')} (MAX_RESULTS) of up to "
            f"{self._max_bytes:,} bytes in all (MAX_RESULT_BYTES){self._lifetimes}"
        )

    def _drop(self, result_id: str) -> Record:
        record = self._records.pop(result_id)
        self._bytes -= record.weight
        if self.expires:
            self._lifetimes.remove(record)
        return record
