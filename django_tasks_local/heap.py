"""A heap of records by a number and then in order of arrival, out of which any can be taken."""

from __future__ import annotations

import heapq
from itertools import count
from typing import Any, Final

# Below this no entry that was taken out is worth the work of removing it.
_WORTH_IT: Final = 1000


class Heap[T]:
    """A heap whose entries leave a hole where they are taken out, in constant time.

    A hole holds nothing of its record. When most entries are holes all of them go at once.
    """

    def __init__(self) -> None:
        self._turn = count()
        self._entries: list[list[Any]] = []  # [key, turn, item or None]
        self._holes = 0

    def __len__(self) -> int:
        """Return how many items are in it."""
        return len(self._entries) - self._holes

    def push(self, key: int, item: T) -> list[Any]:
        """Put an item in; return what `remove` wants."""
        entry = [key, next(self._turn), item]
        heapq.heappush(self._entries, entry)
        return entry

    def first_key(self) -> int | None:
        """Return the key of the first item, ``None`` if there is none."""
        entries = self._entries
        while entries and entries[0][2] is None:
            heapq.heappop(entries)
            self._holes -= 1
        return entries[0][0] if entries else None

    def first(self) -> T:
        """Return the first item, right after `first_key` has found one."""
        item: T = self._entries[0][2]
        return item

    def pop(self) -> T:
        """Take the first item out. There has to be one."""
        while (entry := heapq.heappop(self._entries))[2] is None:
            self._holes -= 1
        item: T = entry[2]
        entry[2] = None  # for `remove`, which then has nothing to do
        return item

    def remove(self, entry: list[Any]) -> None:
        """Take an item out, wherever it stands."""
        if entry[2] is None:
            return
        entry[2] = None
        self._holes += 1
        if self._holes > _WORTH_IT and self._holes * 2 > len(self._entries):
            self._entries = [each for each in self._entries if each[2] is not None]
            heapq.heapify(self._entries)
            self._holes = 0

    def entries(self) -> list[tuple[int, int, T]]:
        """Return a copy of what is in it: each item's key, its turn and itself, in no order."""
        return [(key, turn, item) for key, turn, item in self._entries if item is not None]

    def items(self) -> list[T]:
        """Return all items in order."""
        return [entry[2] for entry in sorted(self._entries) if entry[2] is not None]
