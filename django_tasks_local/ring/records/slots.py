"""Free slots, chains of them, and payloads going in and out."""

import os
import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import (
    BLOCK_WORDS,
    S_ARGUMENTS_BYTES,
    S_ARGUMENTS_CHAIN,
    S_META_BYTES,
    S_OUTCOME_CHAIN,
)
from django_tasks_local.ring.shm.errors import NO_ROOM, inconsistent, lost_hold
from django_tasks_local.ring.shm.segment import Segment

from .source import Source

# How much of the map one hold of the lock searches for a chain: 0.3 ms at most, where free slots
# lie in runs that are a little too short. (1 MiB in search of two neighbours takes 1.1 ms.)
SEARCHED_AT_ONCE: Final = 2**17
# The longest run that is taken at once: looking at its words and writing them takes up to 0.4 ms.
LONGEST_RUN: Final = 2**11
# How many runs of a chain one hold of the lock takes or frees, at 1 to 2 µs each.
RUNS_AT_ONCE: Final = 64
# How many slots are freed at once, but for the last run: 0.1 ms, at 3 ns each.
FREED_AT_ONCE: Final = 2**15
# How much of a record's chain is compared with the free map, which may be damaged.
_COMPARED: Final = 64
# By how much the wanted length of runs falls where no run is left that is as long.
_SHORTER: Final = 4
# Rounds over the map for single slots. Others may give some back behind the search; they do not
# always do so before it.
_ROUNDS: Final = 100


@dataclass(slots=True)
class Wanted:
    """A chain that is being taken, in as many holds of the lock as it needs.

    Attributes:
        count: Slots that are still missing.
        owner_word: The commit word that its slots get.
        chain: Its first extent, 0 before there is one.
        last: The first slot of its last extent.
        run: How long the runs are that are searched for now.
        place: Where in the map the search goes on.
        rounds: How often the map was searched for single slots to its end.
    """

    count: int
    owner_word: int
    chain: int = 0
    last: int = 0
    run: int = LONGEST_RUN
    place: int = 1
    rounds: int = 0

    def next_round(self, run: int) -> None:
        """Go on from the beginning of the map, with shorter runs."""
        self.rounds += run == 1
        self.run = max(1, run // _SHORTER)
        self.place = 1


class Slots:
    """The slots' memory. The free map (a byte per slot) is derived from the commit words."""

    def __init__(self, segment: Segment) -> None:
        geometry = segment.geometry
        self._segment = segment
        self._words = segment.words
        self._bytes = segment.bytes
        self._commit = geometry.column("commit")
        self._link = geometry.column("link")
        self._back = geometry.column("back")
        self._due = geometry.column("due")
        self._map = geometry.map_at
        self._slots_at = geometry.slots_at
        # How many slots have memory; no slot at or above it may be touched (rule 5).
        self.reserved = segment.reserved
        self.size = geometry.slot_size
        self.total = geometry.slots
        self.step = geometry.step

    def grow(self) -> bool:
        """Reserve one more step of slots (in the lock); return False where there is no room."""
        first = self.reserved()
        end = min(first + self.step, self.total)
        if end <= first:
            return False
        try:
            self._segment.reserve(first, end)
            self._segment.clear(first, end)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            return False
        words = self._words
        words[at.H_DIRTY] = 1
        words[at.H_RESERVED] = at.checked(end)
        words[at.H_FREE] += end - first
        return True

    def restore_reserved(self) -> None:
        """Find out how many slots have memory, where the header is damaged or old (in the lock)."""
        # pread, not the mapping: reading a hole through a mapping makes a page, or is a SIGBUS.
        column = os.pread(self._segment.fd, self.total * 8, self._commit * 8)
        ever_used = len(column.rstrip(b"\0")) // 8 + 1
        end = min(max(2, -(-ever_used // self.step) * self.step, self.reserved()), self.total)
        self._segment.reserve(0, end)
        self._words[at.H_RESERVED] = at.checked(end)

    def take_one(self) -> int:
        """Return a free slot, marked as used (in the lock, dirty, with H_FREE > 0)."""
        words, view, base = self._words, self._bytes, self._map
        slot: int = words[at.H_CURSOR] or 1
        reserved = self.reserved()
        # The cursor goes round, and records are evicted in about the order in which it passed: it
        # mostly stands before a free slot.
        if slot >= reserved or view[base + slot]:
            cursor = min(slot, reserved)
            slot = self._find(1, cursor, reserved) or self._find(1, 1, cursor)
            if not slot:
                raise inconsistent(self._segment.path)
        if words[self._commit + slot]:
            self._must_be_free(slot, [words[self._commit + slot]], slot + 1)
        view[base + slot] = 1
        words[at.H_FREE] -= 1
        words[at.H_CURSOR] = slot + 1
        return slot

    def take_runs(self, wanted: Wanted) -> bool:
        """Take some runs of free slots for a chain, and return whether it is whole now.

        In the lock, dirty, with at least `wanted.count` free slots. Long runs come first: 16 MiB in
        one run are copied in 0.8 ms, in 16,384 pieces in 16 ms. Where no run is left that is as
        long, the next round over the map looks for shorter ones.
        """
        reserved, left, before = self.reserved(), SEARCHED_AT_ONCE, wanted.count
        for _ in range(RUNS_AT_ONCE):
            run = min(wanted.run, wanted.count)
            end = min(wanted.place + left, reserved)
            start = self._find(run, wanted.place, end)
            left -= (start or end) - wanted.place
            if start:
                self._take_run(wanted, start, run)
                wanted.place = start + run
                if not wanted.count:
                    return True
            elif end < reserved:
                wanted.place = end - run + 1  # a run may begin just before the end
            else:
                wanted.next_round(run)
            if left <= LONGEST_RUN or before - wanted.count >= LONGEST_RUN:
                break
        if wanted.rounds > _ROUNDS:
            raise inconsistent(self._segment.path)  # the map has fewer free slots than H_FREE says
        return False

    def _take_run(self, wanted: Wanted, start: int, length: int) -> None:
        words = self._words
        column = words[self._commit + start : self._commit + start + length]
        self._must_be_free(start, set(column.tolist()), start + length)
        self._bytes[self._map + start : self._map + start + length] = b"\x01" * length
        words[at.H_FREE] -= length
        words[at.H_CURSOR] = start + length
        words[self._commit + start : self._commit + start + length] = memoryview(
            array("Q", [wanted.owner_word]) * length
        )
        words[self._link + start] = 0
        extent = length << at.EXTENT_SHIFT | start
        if wanted.last:
            words[self._link + wanted.last] = extent
        else:
            wanted.chain = extent
        wanted.last = start
        wanted.count -= length

    def _must_be_free(self, start: int, words: Iterable[int], end: int) -> None:
        """Raise where the free map offers slots that a record occupies, by their commit words.

        The map is derived, and one damaged byte of it must not cost a task.
        """
        column, commit, reserved = self._words, self._commit, self.reserved()
        for word in words:
            if not word:
                continue
            if word >> at.STATE_SHIFT != at.CHAIN:
                raise inconsistent(self._segment.path)
            head = word >> at.CHAIN_SLOT_SHIFT & at.MAX_SLOTS - 1
            # As most are: the record that it names was recycled long since.
            if head >= reserved or (column[commit + head] ^ word) & at.CHAIN_GENERATION_MASK:
                continue
            if self._reaches(word, head, start, end):
                raise inconsistent(self._segment.path)

    def _reaches(self, chain_word: int, head: int, start: int, end: int) -> bool:
        """Return whether the record that a CHAIN word names lives, with a slot in this range."""
        words = self._words
        word = words[self._commit + head]
        state = word >> at.STATE_SHIFT
        if not word or at.chain_word(head, word & at.GENERATION_MASK) != chain_word:
            return False
        fields = (self._slots_at + head * self.size) // 8
        chains = [self.request_chain(head), *(words[fields + each] for each in BLOCK_WORDS)]
        if state in (at.RUNNING, at.SUCCESSFUL, at.FAILED):
            chains.append(words[fields + S_OUTCOME_CHAIN])
        return any(
            first < end and start < first + length
            for chain in chains
            for first, length in islice(self.extents(chain, chain_word), _COMPARED)
        )

    def request_chain(self, head: int) -> int:
        """Return the chain of a record's request, without what was dropped of it; 0 is none."""
        chain: int = self._words[(self._slots_at + head * self.size) // 8 + S_ARGUMENTS_CHAIN]
        return self.meta_chain(head, chain) if chain and self.is_cut(head) else chain

    def is_cut(self, head: int) -> bool:
        """Return whether a finished record's arguments were dropped: its `due` word says so."""
        due, word = self._words[self._due + head], self._words[self._commit + head]
        return due == word & at.GENERATION_MASK and word >> at.STATE_SHIFT in at.FINISHED

    def meta_chain(self, head: int, chain: int) -> int:
        """Return the part of a request's chain that holds its meta, 0 if it is in several runs."""
        fields = (self._slots_at + head * self.size) // 8
        count = at.slots_for(self._words[fields + S_META_BYTES], self.size)
        if not 0 < count <= chain >> at.EXTENT_SHIFT:
            return 0
        return count << at.EXTENT_SHIFT | chain & at.EXTENT_SLOT_MASK

    def cut(self, head: int) -> int:
        """Drop the chained arguments of a finished record, and return their slots (in the lock).

        What names the task stays, in the first slots of the chain. The store to `due` decides: a
        rebuild goes by it, and readers that find less than they look for.
        """
        words = self._words
        fields = (self._slots_at + head * self.size) // 8
        chain = words[fields + S_ARGUMENTS_CHAIN]
        if not chain or self.is_cut(head):
            return 0
        kept = self.meta_chain(head, chain)
        size = words[fields + S_META_BYTES] + words[fields + S_ARGUMENTS_BYTES]
        count, length = kept >> at.EXTENT_SHIFT, chain >> at.EXTENT_SHIFT
        start, freed = chain & at.EXTENT_SLOT_MASK, at.slots_for(size, self.size) - count
        if not kept or freed < 1 or not 0 < start <= self.reserved() - length:
            return 0
        generation = words[self._commit + head] & at.GENERATION_MASK
        if words[self._commit + start] != at.chain_word(head, generation):
            return 0
        words[at.H_DIRTY] = 1
        words[self._due + head] = generation
        rest = words[self._link + start]
        if length > count:
            words[self._link + start + count] = rest
            rest = length - count << at.EXTENT_SHIFT | start + count
        words[self._link + start] = 0
        self.discard(rest)
        return freed

    def give_back(self, slot: int) -> None:
        """Mark one slot as free (in the lock; its commit word says so already)."""
        self._bytes[self._map + slot] = 0
        self._words[at.H_FREE] += 1

    def discard(self, *chains: int) -> None:
        """Give up chains that no record names any more, 0 for none (in the lock, dirty).

        Their slots become free in pieces: one at once, of however many chains, the rest with
        whatever needs room next. What is not free yet is in a list: its top in the header, the next
        one below a chain in the `back` word of that chain's first slot.
        """
        words, reserved = self._words, self.reserved()
        for chain in chains:
            start = chain & at.EXTENT_SLOT_MASK
            if 0 < start < reserved:
                words[self._back + start] = words[at.H_DISCARDED]
                words[at.H_DISCARDED] = chain
        self.free_discarded()

    def free_discarded(self) -> None:
        """Free some of the slots that were given up (in the lock, dirty): 0.2 ms at most.

        A chain ends where a link is damaged: what is behind it is free after the next rebuild.
        """
        words, reserved, left = self._words, self.reserved(), FREED_AT_ONCE
        for _ in range(RUNS_AT_ONCE):
            chain = words[at.H_DISCARDED]
            start, length = chain & at.EXTENT_SLOT_MASK, chain >> at.EXTENT_SHIFT
            if not (0 < start < reserved and 0 < length <= reserved - start):
                words[at.H_DISCARDED] = 0
                return
            below, rest = words[self._back + start], words[self._link + start]
            owner_word = words[self._commit + start]
            second = rest & at.EXTENT_SLOT_MASK
            if rest and 0 < second < reserved and words[self._commit + second] == owner_word:
                words[self._back + second] = below
                words[at.H_DISCARDED] = rest
            else:
                words[at.H_DISCARDED] = below
            # No run is longer, unless a link is damaged.
            if length <= LONGEST_RUN and self._belongs(start, length, owner_word):
                # Or else the next one that takes them would have to look at each of these words.
                column = slice(self._commit + start, self._commit + start + length)
                words[column] = memoryview(bytes(8 * length)).cast("Q")
                self._bytes[self._map + start : self._map + start + length] = bytes(length)
                words[at.H_FREE] += length
                left -= length
            if left <= 0:
                break

    def _belongs(self, start: int, length: int, owner_word: int) -> bool:
        """Return whether the slots of a run all bear the same commit word."""
        # As bytes: 1 ns a word. Python's numbers would take 20.
        column = self._bytes[8 * (self._commit + start) : 8 * (self._commit + start + length)]
        return column.tobytes() == owner_word.to_bytes(8, sys.byteorder) * length

    def discarded(self) -> list[int]:
        """Return the slots that were given up and are not free yet."""
        words, reserved = self._words, self.reserved()
        found: list[int] = []
        top = words[at.H_DISCARDED]
        while top:
            start = top & at.EXTENT_SLOT_MASK
            if not 0 < start < reserved or len(found) > reserved:
                break
            # A chain of theirs still names the head that it had.
            for first, length in self.extents(top, words[self._commit + start]):
                found += range(first, first + length)
            top = words[self._back + start]
        return found

    def extents(self, chain: int, owner_word: int) -> Iterator[tuple[int, int]]:
        """Yield the runs of a chain as (first slot, length).

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
        """Copy the parts of a payload, one after the other, into a chain (outside the lock).

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

    def source(self, chain: int, owner_word: int, offset: int) -> Source:
        """Return the bytes of a chain from `offset` on, to be read once (outside the lock)."""
        source = Source(self._bytes, self._places(chain, owner_word))
        source.take(offset)
        return source

    def _places(self, chain: int, owner_word: int) -> Iterator[tuple[int, int]]:
        """Yield the runs of a chain as bytes of the segment: (start, end)."""
        for start, length in self.extents(chain, owner_word):
            place = self._slots_at + start * self.size
            yield place, place + length * self.size

    def _find(self, count: int, start: int, end: int) -> int:
        """Return the first of `count` free neighbours in a part of the map, 0 for none."""
        base = self._map
        found = self._segment.find(bytes(count), base + start, base + end)
        return found - base if found >= 0 else 0
