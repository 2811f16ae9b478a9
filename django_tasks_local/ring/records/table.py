"""The records of a ring: what a slot number stands for, and how records come and go.

Everything here runs inside the mutex; `ring` and `recovery` are the callers.
"""

from enum import Enum
from typing import Final

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.blocks import HISTORY, METADATA, TIES
from django_tasks_local.ring.format.head import (
    HEAD_BYTES,
    S_HISTORY_CHAIN,
    S_METADATA_CHAIN,
    S_OUTCOME_CHAIN,
    S_TIES_CHAIN,
    Head,
    has_chains,
    make_head,
)
from django_tasks_local.ring.shm.errors import inconsistent
from django_tasks_local.ring.shm.segment import Segment

from .blocks import Blocks
from .keys import Keys
from .order import Order
from .recency import Recency
from .schedule import ScheduleRows
from .slots import Slots
from .tallies import Tallies

# 50 µs of small records; no other once they had more than twice as many slots.
EVICTED_AT_ONCE: Final = 16
# 0.1 ms: how many finished records one hold searches for arguments to drop.
LOOKED_AT_ONCE: Final = 128


class Room(Enum):
    """What came of a step towards more free slots."""

    ENOUGH = 1
    MORE = 2  # steps are needed, each in a hold of its own
    NONE = 3  # there never will be any, as things are


class Table:
    """All records, with the structures that are derived from their commit words.

    Attributes:
        commit: The word index of slot 0's commit word; likewise `sequence` and `due`.
    """

    def __init__(self, segment: Segment) -> None:
        geometry = segment.geometry
        self.segment = segment
        self.geometry = geometry
        self.words = segment.words
        self.bytes = segment.bytes
        self.slots = Slots(segment)
        self.metadata = Blocks(segment, self.slots, S_METADATA_CHAIN, METADATA)
        self.history = Blocks(segment, self.slots, S_HISTORY_CHAIN, HISTORY)
        self.ties = Blocks(segment, self.slots, S_TIES_CHAIN, TIES)
        self.order = Order(segment)
        self.recency = Recency(segment)
        self.keys = Keys(segment)
        self.schedule = ScheduleRows(segment)
        self.tallies = Tallies(segment)
        self._slots_at = geometry.slots_at
        self._size = geometry.slot_size
        self.commit = geometry.column("commit")
        self.sequence = geometry.column("sequence")
        self.due = geometry.column("due")

    def offset(self, slot: int) -> int:
        """Return the byte offset of a slot."""
        return self._slots_at + slot * self._size

    def state(self, slot: int) -> int:
        """Return the state in a slot's commit word."""
        return int(self.words[self.commit + slot] >> at.STATE_SHIFT)

    def is_run_by(self, slot: int, owner: int) -> bool:
        """Return whether a slot's task is RUNNING by an entry's process; any slot may be asked."""
        if 0 < slot < self.segment.limit:  # once per claim: no further call
            word = self.words[self.commit + slot]
            return bool(
                word >> at.STATE_SHIFT == at.RUNNING
                and word >> at.OWNER_SHIFT & at.OWNER_MASK == owner
            )
        return self.is_owned_by(slot, owner, at.RUNNING)

    def is_owned_by(self, slot: int, owner: int, state: int) -> bool:
        """Return whether a slot is in this state by an entry's process; any slot may be asked."""
        if not slot or (slot >= self.segment.limit and slot >= self.slots.reserved()):
            return False
        word = self.words[self.commit + slot]
        return bool(
            word >> at.STATE_SHIFT == state and word >> at.OWNER_SHIFT & at.OWNER_MASK == owner
        )

    def head(self, slot: int) -> Head:
        """Return the head slot's words as they stand."""
        offset = self.offset(slot)
        return make_head(self.bytes[offset : offset + HEAD_BYTES])

    def chains(self, slot: int) -> list[int]:
        """Return the chain words that a head slot's record holds in its present state."""
        word = self.offset(slot) // 8
        state = self.state(slot)
        chains = [self.slots.request_chain(slot)]
        if state in (at.RUNNING, at.SUCCESSFUL, at.FAILED):
            chains.append(self.words[word + S_OUTCOME_CHAIN])
        if self.words[word + S_METADATA_CHAIN]:
            chains.append(self.metadata.chain(slot, self.owner_word(slot)))
        if self.words[word + S_HISTORY_CHAIN]:
            chains.append(self.history.chain(slot, self.owner_word(slot)))
        if self.words[word + S_TIES_CHAIN]:
            chains.append(self.ties.chain(slot, self.owner_word(slot)))
        return [chain for chain in chains if chain]

    def owner_word(self, slot: int) -> int:
        """Return the commit word that the record's chained slots bear."""
        return at.chain_word(slot, self.words[self.commit + slot] & at.GENERATION_MASK)

    def slots_in_a_row(self, most: int) -> tuple[int, int]:
        """Take up to `most` free slots that are neighbours (dirty, with as many free ones).

        Returns:
            The first of them, and how many they are.
        """
        words, start = self.words, self.slots.take_one()
        place = self.geometry.map_at
        end = min(start + most, self.slots.reserved())
        used = self.segment.find(b"\x01", place + start + 1, place + end)
        end = used - place if used >= 0 else end
        # What a death has left in one of them, `take_one` looks at.
        for word in words[self.commit + start + 1 : self.commit + end].tolist():
            if word:
                end = start + 1
                break
        length = end - start
        self.bytes[place + start : place + end] = b"\x01" * length
        words[at.H_FREE] -= length - 1
        words[at.H_CURSOR] = end
        return start, length

    def free(self, slot: int) -> None:
        """Free a record with its chains, which nothing links any more."""
        if not has_chains(self.bytes, self._slots_at + slot * self._size):
            self.words[self.commit + slot] = 0
            self.slots.give_back(slot)
            return
        chains = self.chains(slot)
        self.words[self.commit + slot] = 0  # FREE; its chained slots with it
        self.slots.discard(*chains)
        self.slots.give_back(slot)

    def evict_oldest(self) -> int:
        """Recycle the least recently used finished record, and return how many slots it had."""
        words = self.words
        slot = words[at.H_OLDEST]
        if slot >= self.segment.limit:
            self.segment.must_hold(slot)
        if not slot or words[self.commit + slot] >> at.STATE_SHIFT not in at.FINISHED:
            words[at.H_DIRTY] = 1
            raise inconsistent(self.segment.path)
        count = self.evict(slot)
        words[at.H_EVICTED] += 1
        return count

    def evict(self, slot: int) -> int:
        """Recycle a finished record and return how many slots it had; the caller counts it."""
        words = self.words
        words[at.H_DIRTY] = 1
        self.recency.remove(slot)
        chained = has_chains(self.bytes, self._slots_at + slot * self._size)
        count = self.slots_of(slot) if chained else 1
        words[at.H_FINISHED_SLOTS] -= count
        words[at.H_FINISHED] -= 1
        if chained:
            self.free(slot)
        else:  # as most are
            words[self.commit + slot] = 0
            self.slots.give_back(slot)
        return count

    def kept(self, handover: int = 0) -> int:
        """Return how many slots are kept for the ends of tasks, and for what follows them.

        Args:
            handover: What is to be kept for what follows a record that comes.
        """
        kept: int = self.words[at.H_MAX_WORKERS] + max(self.words[at.H_HANDOVER], handover)
        return kept

    def kept_beside(self, slot: int) -> int:
        """Return how many slots are kept where a record is to have other metadata.

        Its own are among them if it has ended, but not those of arguments that can be dropped: no
        result is evicted for its own metadata.
        """
        kept = self.kept()
        if self.state(slot) not in at.FINISHED:
            return kept
        droppable = self.slots.meta_chain(slot, self.slots.request_chain(slot)) != 0
        return max(kept, self.slots_of(slot, cut=droppable))

    def make_room(self, count: int, keep: int) -> Room:
        """Take a step towards `count` free slots, and `keep` more that are free or can be made so.

        It grows into reserved memory first, then drops arguments of what has finished, and then
        evicts; nothing is evicted in vain.
        """
        words = self.words
        spare = words[at.H_FREE] + words[at.H_FINISHED_SLOTS]
        if words[at.H_FREE] >= count and spare >= count + keep:
            return Room.ENOUGH
        if words[at.H_DISCARDED]:
            words[at.H_DIRTY] = 1
            self.slots.free_discarded()
            return Room.MORE
        if spare + self.slots.total - self.slots.reserved() < count + keep:
            return Room.NONE
        if self.slots.grow():
            return Room.MORE
        if spare < count + keep:
            return Room.NONE
        if words[at.H_HAND] != words[at.H_NEWEST] and self.drop_arguments():
            return Room.MORE
        evicted = 0
        for _ in range(EVICTED_AT_ONCE):
            if words[at.H_FREE] >= count:
                return Room.ENOUGH
            evicted += self.evict_oldest()
            if evicted > 2 * EVICTED_AT_ONCE:
                break
        return Room.MORE

    def drop_arguments(self) -> bool:
        """Drop the arguments of the next finished record that has chained ones, if it is near.

        Returns:
            Whether there may be more; False where none was found, and all records were looked at.
        """
        words = self.words
        for _ in range(LOOKED_AT_ONCE):
            words[at.H_DIRTY] = 1
            slot = self.recency.next_to_look_at()
            if not slot:
                return False
            if self.state(slot) not in at.FINISHED:
                raise inconsistent(self.segment.path)
            freed = self.slots.cut(slot)
            if freed:
                words[at.H_FINISHED_SLOTS] -= freed
                break
        return True

    def link_finished(self, slot: int, slots: int, keep: int) -> None:
        """Link a record that just became finished, of `slots` slots.

        While more than `keep` are kept, two go for each that comes.
        """
        words = self.words
        if words[at.H_KEYED] and self.keys.has_key(slot):
            self.keys.remove(slot)
        self.recency.append(slot)
        words[at.H_RUNNING] -= 1
        words[at.H_UNFINISHED] -= 1
        words[at.H_FINISHED] = finished = words[at.H_FINISHED] + 1
        words[at.H_FINISHED_SLOTS] += slots
        if finished > keep:
            self.evict_oldest()
            if finished > keep + 1:
                self.evict_oldest()

    def trim(self, keep: int) -> bool:
        """Evict some of what is beyond `keep` finished records, and return whether any are left."""
        words = self.words
        if words[at.H_DISCARDED]:
            words[at.H_DIRTY] = 1
            self.slots.free_discarded()
            return True
        evicted = 0
        for _ in range(EVICTED_AT_ONCE):
            if words[at.H_FINISHED] <= keep:
                return False
            evicted += self.evict_oldest()
            if evicted > 2 * EVICTED_AT_ONCE:
                break
        return True

    def slots_before_end(self, slot: int, head: Head) -> int:
        """How many slots a record occupies that has not ended, without its metadata."""
        count = 1 + self.history.slots_of(slot) + self.ties.slots_of(slot)
        return (
            count + at.slots_for(head.request_bytes, self._size) if head.arguments_chain else count
        )

    def slots_of(self, slot: int, *, cut: bool = False) -> int:
        """Return how many slots a finished record occupies, or would without its arguments."""
        if not has_chains(self.bytes, self._slots_at + slot * self._size):
            return 1
        head, size = self.head(slot), self.geometry.slot_size
        count = 1
        if head.metadata_chain:
            count += self.metadata.slots_of(slot)
        if head.history_chain:
            count += self.history.slots_of(slot)
        if head.ties_chain:
            count += self.ties.slots_of(slot)
        if head.arguments_chain:
            left = 0 if cut or self.slots.is_cut(slot) else head.arguments_bytes
            count += at.slots_for(head.meta_bytes + left, size)
        if head.outcome_chain and self.state(slot) != at.LOST:
            count += at.slots_for(head.outcome_bytes, size)
        return count
