"""Which finished result was used last: a doubly linked list through the slots' link columns."""

from array import array

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm.segment import Segment


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
        """Link a finished record in as the most recent one."""
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

    def fill(self, slots: list[int], links: "array[int]", backs: "array[int]") -> None:
        """Link these records, for a rebuild: the least recently used first.

        Args:
            slots: The records.
            links: The link column, to be written by the caller.
            backs: The back column, likewise.
        """
        words = self._words
        words[at.H_FINISHED] = len(slots)
        words[at.H_OLDEST] = slots[0] if slots else 0
        words[at.H_NEWEST] = slots[-1] if slots else 0
        words[at.H_HAND] = 0
        older = 0
        for slot in slots:
            links[older] = slot
            backs[slot] = older
            older = slot
        links[older] = links[0] = 0  # the newest one's, and slot 0 is none

    def next_to_look_at(self) -> int:
        """Move the hand to the next finished record, and return which; 0 at the end of the list.

        Raises:
            IndexError: The list is damaged: a walk along it must come to its end.
        """
        words, hand = self._words, self._words[at.H_HAND]
        if hand == words[at.H_NEWEST]:
            return 0
        if hand >= self._segment.limit:
            self._segment.must_hold(hand)
        slot: int = words[self._link + hand] if hand else words[at.H_OLDEST]
        if slot >= self._segment.limit:
            self._segment.must_hold(slot)
        if not slot or words[self._back + slot] != hand:
            raise IndexError(f"slot {slot} does not follow slot {hand}")
        words[at.H_HAND] = slot
        return slot

    def stamp(self, slot: int) -> None:
        """Note the use of a record where a rebuild finds it."""
        words = self._words
        words[self._sequence + slot] = tick = words[at.H_TICK]
        words[at.H_TICK] = tick + 1

    def renew(self, slot: int) -> None:
        """Make a record the most recent one, which it is not yet: `stamp`, `remove`, `append`.

        Raises:
            IndexError: The list is damaged: no record is more recent.
        """
        words, link, back = self._words, self._link, self._back
        newer, older, newest = words[link + slot], words[back + slot], words[at.H_NEWEST]
        limit = self._segment.limit
        if newer >= limit or older >= limit or newest >= limit:
            self._segment.must_hold(max(newer, older, newest))
        if not (newer and newest):
            raise IndexError(f"no record follows slot {slot}")
        words[self._sequence + slot] = tick = words[at.H_TICK]
        words[at.H_TICK] = tick + 1
        if words[at.H_HAND] == slot:
            words[at.H_HAND] = older
        words[back + newer] = older
        if older:
            words[link + older] = newer
        else:
            words[at.H_OLDEST] = newer
        words[link + slot] = 0
        words[back + slot] = newest
        words[link + newest] = slot
        words[at.H_NEWEST] = slot

    def remove(self, slot: int) -> None:
        """Take a record out."""
        words = self._words
        newer = words[self._link + slot]
        older = words[self._back + slot]
        limit = self._segment.limit
        if newer >= limit or older >= limit:
            self._segment.must_hold(max(newer, older))
        if words[at.H_HAND] == slot:
            words[at.H_HAND] = older
        if newer:
            words[self._back + newer] = older
        else:
            words[at.H_NEWEST] = older
        if older:
            words[self._link + older] = newer
        else:
            words[at.H_OLDEST] = newer
