"""Which unfinished record has a key: a hash table with as many buckets as there are such records.

It grows and shrinks by one bucket at a time (linear hashing), so no hold of the lock moves more
than a few records, however many there are. All of it can be rebuilt from the records, which hold
their keys themselves: a key is found by some of its bits, and compared in full.
"""

from collections.abc import Iterator
from typing import Final

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import (
    HEAD_BYTES,
    KEY_BYTES,
    S_ARGUMENTS_CHAIN,
    S_ORIGIN,
)
from django_tasks_local.ring.shm.errors import inconsistent
from django_tasks_local.ring.shm.segment import Segment

# A word of the column: the first slot in a bucket, and the one behind a slot in its bucket.
_FIRST_SHIFT: Final = 32
_NEXT_MASK: Final = 2**_FIRST_SHIFT - 1


class Keys:
    """The READY and RUNNING records that have keys, found by them (all in the lock)."""

    def __init__(self, segment: Segment) -> None:
        geometry = segment.geometry
        self._segment = segment
        self._words = segment.words
        self._bytes = segment.bytes
        self._column = geometry.column("keys")
        self._slots_at = geometry.slots_at
        self._size = geometry.slot_size

    def has_key(self, slot: int) -> bool:
        """Return whether a record has a key."""
        word = (self._slots_at + slot * self._size) // 8 + S_ORIGIN
        return bool(self._words[word] & at.KEYED)

    def key(self, slot: int) -> bytes:
        """Return the key of a record that has one: its request begins with it."""
        place = self._slots_at + slot * self._size
        chain = self._words[place // 8 + S_ARGUMENTS_CHAIN] & at.EXTENT_SLOT_MASK
        if chain:
            place = self._slots_at + self._checked(chain) * self._size
        else:
            place += HEAD_BYTES
        return bytes(self._bytes[place : place + KEY_BYTES])

    def find(self, key: bytes) -> int:
        """Return the slot of the record that has a key; 0 for none."""
        count = self._words[at.H_KEYED]
        if not count:
            return 0
        for slot in self.bucket(_bucket_of(key, count)):
            if self.key(slot) == key:
                return slot
        return 0

    def add(self, slot: int) -> None:
        """Add a record (dirty)."""
        words = self._words
        key, count = self.key(slot), words[at.H_KEYED]
        words[at.H_KEYED] = count + 1
        # The new bucket gets what belongs there of the one that was in its place until now.
        before = _parent(count) if count else 0
        stay: list[int] = []
        move: list[int] = []
        for other in self.bucket(before) if count else ():
            (move if _bucket_of(self.key(other), count + 1) == count else stay).append(other)
        into = _bucket_of(key, count + 1)
        if count:
            self._fill(before, [slot, *stay] if into == before else stay)
        self._fill(count, [slot, *move] if into == count else move)
        if into not in (before, count):
            self._fill(into, [slot, *self.bucket(into)])

    def remove(self, slot: int) -> None:
        """Take out a record that has a key (dirty).

        Raises:
            StoreUnavailable: It is not there: the ring is damaged.
        """
        words = self._words
        count = words[at.H_KEYED]
        place = self._bucket_with(slot, count)
        self._fill(place, [other for other in self.bucket(place) if other != slot])
        last = count - 1
        if last:
            before = _parent(last)
            self._fill(before, [*self.bucket(before), *self.bucket(last)])
        words[at.H_KEYED] = last

    def fill(self, slots: list[int]) -> None:
        """Have these records and no others, for a rebuild."""
        self._words[at.H_KEYED] = 0
        for slot in slots:
            self.add(slot)

    def bucket_of(self, key: bytes) -> int:
        """Return the bucket in which a key belongs; there must be any."""
        return _bucket_of(key, self._words[at.H_KEYED])

    def bucket(self, number: int) -> Iterator[int]:
        """Yield the slots in a bucket.

        Raises:
            StoreUnavailable: It never ends: the ring is damaged.
        """
        words, column = self._words, self._column
        slot = words[column + self._checked(number)] >> _FIRST_SHIFT
        for _ in range(words[at.H_KEYED] + 1):
            if not slot:
                return
            yield self._checked(slot)
            slot = words[column + slot] & _NEXT_MASK
        raise inconsistent(self._segment.path)

    def _bucket_with(self, slot: int, count: int) -> int:
        """Return the bucket with a record. Where its key is damaged, that may be any of them."""
        right = _bucket_of(self.key(slot), count)
        place: int
        for place in (right, *range(count)):
            if slot in self.bucket(place):
                return place
        raise inconsistent(self._segment.path)

    def _fill(self, number: int, slots: list[int]) -> None:
        words, column = self._words, self._column
        after = 0
        for slot in reversed(slots):
            words[column + slot] = words[column + slot] & ~_NEXT_MASK | after
            after = slot
        words[column + number] = after << _FIRST_SHIFT | words[column + number] & _NEXT_MASK

    def _checked(self, slot: int) -> int:
        if slot >= self._segment.limit:
            self._segment.must_hold(slot)
        return slot


def _bucket_of(key: bytes, count: int) -> int:
    """Return the bucket of a key where there are `count` of them."""
    mask: int = (1 << (count - 1).bit_length()) - 1
    bucket = int.from_bytes(key[:8], "little") & mask
    return bucket if bucket < count else bucket & mask >> 1


def _parent(number: int) -> int:
    """Return the bucket of which a bucket is split off."""
    highest: int = 1 << number.bit_length() - 1
    return number - highest
