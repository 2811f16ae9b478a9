"""Metadata, histories and ties of records: blocks taken, read, measured and given up."""

from collections.abc import Iterator

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.blocks import (
    BLOCK_HEAD_BYTES,
    Block,
    is_whole,
    length_and_crc,
    most_bytes,
)
from django_tasks_local.ring.shm.segment import Segment

from .slots import Slots


class Blocks:
    """The blocks of one kind, each named by one word of a head slot.

    That word is swapped by one store: a reader sees the old block or the new one.

    Args:
        segment: Where they lie.
        slots: The slots there.
        word: Which word of a head slot names them.
        kind: What they are.
    """

    def __init__(self, segment: Segment, slots: Slots, word: int, kind: int) -> None:
        geometry = segment.geometry
        self._word = word
        self._kind = kind
        self._words = segment.words
        self._slots = slots
        self._commit = geometry.column("commit")
        self._link = geometry.column("link")
        self._slots_at = geometry.slots_at
        self._size = geometry.slot_size
        self._most = most_bytes(self._size)

    def word(self, head: int) -> int:
        """Return the index of the word that names the block of a head slot's record."""
        return (self._slots_at + head * self._size) // 8 + self._word

    def put(self, block: Block, owner_word: int) -> int:
        """Take the slots of a block and write it (in the lock, dirty, with room for it).

        Nobody names the chain yet: a death here leaves slots that no record reaches.

        Returns:
            Its first extent.
        """
        return self.put_parts([block.sealed(owner_word)], block.slots(self._size), owner_word)

    def put_parts(self, parts: list[bytes], count: int, owner_word: int) -> int:
        """Do as `put`, for whatever takes so many slots."""
        words = self._words
        chain = last = 0
        for start, length in _runs(self._slots.take_one() for _ in range(count)):
            words[self._commit + start : self._commit + start + length] = memoryview(
                owner_word.to_bytes(8, "little") * length
            ).cast("Q")
            words[self._link + start] = 0
            extent = length << at.EXTENT_SHIFT | start
            if last:
                words[self._link + last] = extent
            else:
                chain = extent
            last = start
        self._slots.write(chain, owner_word, parts)
        return chain

    def read(self, chain: int, owner_word: int) -> bytes | None:
        """Return the data of a block (no lock needed); None where it is not whole.

        It is not where the chain was given up meanwhile, or is damaged.
        """
        source = self._slots.source(chain, owner_word, 0)
        length, crc = length_and_crc(source.copy(BLOCK_HEAD_BYTES))
        if not 0 < length <= self._most:
            return None
        data = source.copy(length)
        whole = len(data) == length and is_whole(owner_word, crc, data, self._kind)
        return data if whole else None

    def current(self, head: int, generation: int) -> bytes | None:
        """Return the data of a record's block as it is now (no lock needed).

        Returns:
            b"" where there is none; None where the block is damaged, or the record is another.
        """
        word, owner_word = self.word(head), at.chain_word(head, generation)
        for _ in range(100):  # arbitrary: each time another process has just replaced the block
            chain = self._words[word]
            data = self.read(chain, owner_word) if chain else b""
            if data is not None:
                return data
            if (self._words[self._commit + head] ^ generation) & at.GENERATION_MASK:
                break
        return None

    def block_bytes(self, chain: int) -> int:
        """Return how many bytes a block has, by its first word; 0 where that cannot be."""
        start = chain & at.EXTENT_SLOT_MASK
        if not 0 < start < self._slots.reserved():
            return 0
        length = self._words[(self._slots_at + start * self._size) // 8]
        return BLOCK_HEAD_BYTES + length if 0 < length <= self._most else 0

    def slots_of(self, head: int) -> int:
        """Return how many slots the block of a record occupies."""
        return at.slots_for(self.block_bytes(self._words[self.word(head)]), self._size)

    def chain(self, head: int, owner_word: int) -> int:
        """Return the chain of a record's block, in order to give it up; 0 for none.

        No CRC of the record covers the word that names it, so the slot has to say whose it is.
        """
        chain: int = self._words[self.word(head)]
        start = chain & at.EXTENT_SLOT_MASK
        if not 0 < start < self._slots.reserved():
            return 0
        return chain if self._words[self._commit + start] == owner_word else 0


def _runs(slots: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Return neighbouring slots as (first, how many), in the order in which they come."""
    start = length = 0
    for slot in slots:
        if length and slot == start + length:
            length += 1
            continue
        if length:
            yield start, length
        start, length = slot, 1
    if length:
        yield start, length
