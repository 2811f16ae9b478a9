"""Which finished result was used last: a doubly linked list through the slots' link columns."""

from . import layout as at
from .segment import Segment


class Recency:
    """The finished records from the least to the most recently used (all in the lock).

    The `sequence` word of a record says the same once more, in a form that a rebuild can sort by.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._words = segment.words
        self._sequence = segment.geometry.column("sequence")
        self._link = segment.geometry.column("link")
        self._back = segment.geometry.column("back")

    def append(self, slot: int) -> None:
        """Links a finished record in as the most recent one."""
        words = self._words
        newest = words[at.H_NEWEST]
        if newest >= self._segment.limit:
            self._segment.must_hold(newest)
        words[self._link + slot] = 0
        words[self._back + slot] = newest
        if newest:
            words[self._link + newest] = slot
        else:
            words[at.H_OLDEST] = slot
        words[at.H_NEWEST] = slot

    def stamp(self, slot: int) -> None:
        """Notes the use of a record where a rebuild finds it."""
        words = self._words
        words[self._sequence + slot] = tick = words[at.H_TICK]
        words[at.H_TICK] = tick + 1

    def remove(self, slot: int) -> None:
        """Links a record out."""
        words = self._words
        newer = words[self._link + slot]
        older = words[self._back + slot]
        limit = self._segment.limit
        if newer >= limit or older >= limit:
            self._segment.must_hold(max(newer, older))
        if newer:
            words[self._back + newer] = older
        else:
            words[at.H_NEWEST] = older
        if older:
            words[self._link + older] = newer
        else:
            words[at.H_OLDEST] = newer
