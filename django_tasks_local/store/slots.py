"""Free slots, chains of them, and payloads going in and out."""

import errno
import os
from array import array
from collections.abc import Iterable, Iterator

from . import layout as at
from .segment import Segment
from .trouble import inconsistent, lost_hold

# How far a search for a few free slots looks before it reads the whole map.
_WINDOW = 4096
_NO_ROOM = (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT)
_FREE = bytes(at.STEP)
_USED = b"\x01" * at.STEP


class Slots:
    """The slots' memory. The free map (a byte per slot) is derived from the commit words."""

    def __init__(self, segment: Segment) -> None:
        geometry = segment.geometry
        self._segment = segment
        self._words = segment.words
        self._bytes = segment.bytes
        self._commit = geometry.column("commit")
        self._link = geometry.column("link")
        self._map = geometry.map_at
        self._slots_at = geometry.slots_at
        self.size = geometry.slot_size
        self.total = geometry.slots

    def reserved(self) -> int:
        """How many slots have memory; no slot at or above it may be touched (rule 5)."""
        return self._segment.reserved()

    def grow(self) -> bool:
        """Reserves one more step of slots (in the lock); False at the ceiling or without room."""
        first = self.reserved()
        end = min(first + at.STEP, self.total)
        if end <= first:
            return False
        try:
            self._segment.reserve(first, end)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return False
        words = self._words
        words[at.H_DIRTY] = 1
        words[at.H_RESERVED] = at.checked(end)
        words[at.H_FREE] += end - first
        return True

    def restore_reserved(self) -> None:
        """Finds out how many slots have memory, where the header is damaged (in the lock)."""
        # pread, not the mapping: reading a hole through a mapping makes a page, or is a SIGBUS.
        column = os.pread(self._segment.fd, self.total * 8, self._commit * 8)
        ever_used = len(column.rstrip(b"\0")) // 8 + 1
        end = min(-(-ever_used // at.STEP) * at.STEP, self.total)
        self._segment.reserve(0, end)
        self._words[at.H_RESERVED] = at.checked(end)

    def take_one(self) -> int:
        """A free slot, marked as used (in the lock, dirty, with H_FREE > 0)."""
        words, view, base = self._words, self._bytes, self._map
        slot: int = max(1, words[at.H_CURSOR])
        # The cursor goes round, and records are evicted in about the order in which it passed: it
        # mostly stands before a free slot.
        if slot >= self.reserved() or view[base + slot]:
            slot = self._find_run(1)
            if not slot:
                raise inconsistent(self._segment.path)
        if words[self._commit + slot]:
            self._must_be_free(slot, [words[self._commit + slot]], slot + 1)
        view[base + slot] = 1
        words[at.H_FREE] -= 1
        words[at.H_CURSOR] = slot + 1
        return slot

    def take_chain(self, count: int, owner_word: int) -> int:
        """Chains `count` free slots and says where it starts (in the lock, dirty, H_FREE >= count).

        Neighbouring slots where there are enough: 16 MiB in one run are copied in 0.8 ms, in 16,384
        pieces in 16 ms. Else the largest runs that halving finds.

        Returns:
            The chain word: the first extent's length and slot.
        """
        words = self._words
        first = last = 0
        run = count
        while count:
            length = min(run, count)
            start = self._find_run(length)
            if not start:
                if length == 1:
                    raise inconsistent(self._segment.path)
                run = length // 2
                continue
            column = words[self._commit + start : self._commit + start + length]
            self._must_be_free(start, set(column.tolist()), start + length)
            self._mark(start, length, _USED)
            words[self._commit + start : self._commit + start + length] = memoryview(
                array("Q", [owner_word]) * length
            )
            words[self._link + start] = 0
            extent = length << at.EXTENT_SHIFT | start
            if last:
                words[self._link + last] = extent
            else:
                first = extent
            last = start
            count -= length
        return first

    def _must_be_free(self, start: int, words: Iterable[int], end: int) -> None:
        """Raises where the free map offers slots that a record occupies, by their commit words.

        The map is derived, and one damaged byte of it must not cost somebody's task.
        """
        for word in words:
            if word and (word >> at.STATE_SHIFT != at.CHAIN or self._reaches(word, start, end)):
                raise inconsistent(self._segment.path)

    def _reaches(self, chain_word: int, start: int, end: int) -> bool:
        """Whether the record that a CHAIN word names lives, and has a slot of `start` to `end`."""
        words = self._words
        head = chain_word >> at.CHAIN_SLOT_SHIFT & at.MAX_SLOTS - 1
        if head >= self.reserved():
            return False
        word = words[self._commit + head]
        state = word >> at.STATE_SHIFT
        if not word or at.chain_word(head, word & at.GENERATION_MASK) != chain_word:
            return False
        fields = (self._slots_at + head * self.size) // 8
        chains = [words[fields + at.S_ARGUMENTS_CHAIN]]
        if state in (at.RUNNING, at.SUCCESSFUL, at.FAILED):
            chains.append(words[fields + at.S_OUTCOME_CHAIN])
        return any(
            first < end and start < first + length
            for chain in chains
            for first, length in self.extents(chain, chain_word)
        )

    def give_back(self, slot: int) -> None:
        """Marks one slot as free (in the lock; its commit word says so already)."""
        self._bytes[self._map + slot] = 0
        self._words[at.H_FREE] += 1

    def give_back_chain(self, chain: int, owner_word: int) -> int:
        """Marks a chain's slots as free (in the lock); says how many they were."""
        count = 0
        for start, length in list(self.extents(chain, owner_word)):
            self._mark(start, length, _FREE)
            count += length
        return count

    def extents(self, chain: int, owner_word: int) -> Iterator[tuple[int, int]]:
        """The runs of a chain as (first slot, length).

        It ends early where a link leaves the ring or a slot names another owner: a record that was
        recycled under the reader, or damage. The caller's CRC tells.
        """
        words, commit = self._words, self._commit
        reserved = self.reserved()
        budget = reserved
        while chain:
            start, length = chain & at.EXTENT_SLOT_MASK, chain >> at.EXTENT_SHIFT
            budget -= length
            if not (0 < start < reserved and 0 < length <= reserved - start) or budget < 0:
                return
            ends = words[commit + start], words[commit + start + length - 1]
            if ends != (owner_word, owner_word):
                return
            yield start, length
            chain = words[self._link + start]

    def write(self, chain: int, owner_word: int, parts: list[bytes]) -> None:
        """Copies the parts of a payload, one after the other, into a chain (outside the lock).

        Raises:
            StoreUnavailable: The chain is not ours any more: we were taken for dead.
        """
        view = self._bytes
        places = self._places(chain, owner_word)
        place = end = 0
        for data in parts:
            piece, offset = memoryview(data), 0
            while offset < len(piece):
                if place == end:
                    place, end = next(places, (0, 0))
                    if not end:
                        raise lost_hold(self._segment.path)
                part = min(end - place, len(piece) - offset)
                view[place : place + part] = piece[offset : offset + part]
                place += part
                offset += part

    def source(self, chain: int, owner_word: int, offset: int) -> "Source":
        """The bytes of a chain from `offset` on, to be read once (outside the lock)."""
        source = Source(self._bytes, self._places(chain, owner_word))
        source.take(offset)
        return source

    def _places(self, chain: int, owner_word: int) -> Iterator[tuple[int, int]]:
        """The runs of a chain as bytes of the segment: (start, end)."""
        for start, length in self.extents(chain, owner_word):
            place = self._slots_at + start * self.size
            yield place, place + length * self.size

    def _find_run(self, count: int) -> int:
        """The first slot of `count` free neighbours, 0 where there are none."""
        base = self._map
        needle = _FREE[:count] if count <= at.STEP else bytes(count)
        cursor = max(1, self._words[at.H_CURSOR])
        reserved = self.reserved()
        for start, end in ((cursor, min(cursor + _WINDOW, reserved)), (1, reserved)):
            found = bytes(self._bytes[base + start : base + max(start, end)]).find(needle)
            if found >= 0:
                return start + found
        return 0

    def _mark(self, start: int, length: int, mark: bytes) -> None:
        place = self._map + start
        self._bytes[place : place + length] = (
            mark[:length] if length <= at.STEP else mark[:1] * length
        )
        if mark is _USED:
            self._words[at.H_FREE] -= length
            self._words[at.H_CURSOR] = start + length
        else:
            self._words[at.H_FREE] += length


class Source:
    """What is left to read of a chain."""

    def __init__(self, view: memoryview, places: Iterator[tuple[int, int]]) -> None:
        self._view = view
        self._places = places
        self._place = self._end = 0

    def take(self, size: int) -> list[memoryview]:
        """Views of the next `size` bytes, which others may write to; fewer where the chain ends."""
        views = []
        while size > 0:
            if self._place == self._end:
                self._place, self._end = next(self._places, (0, 0))
                if not self._end:
                    break
            part = min(size, self._end - self._place)
            views.append(self._view[self._place : self._place + part])
            self._place += part
            size -= part
        return views

    def copy(self, size: int) -> bytes:
        """A private copy of the next `size` bytes; fewer where the chain ends."""
        return b"".join(self.take(size))  # the one copy, also where there is but one view
