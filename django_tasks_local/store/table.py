"""The records of a ring: what a slot number stands for, and how records come and go.

Everything here runs inside the mutex; `ring` and `recovery` are the callers.
"""

from typing import NamedTuple

from . import layout as at
from .order import Order
from .recency import Recency
from .segment import Segment
from .slots import Slots
from .trouble import inconsistent


class Head(NamedTuple):
    """The sixteen words of a head slot."""

    id_high: int
    id_low: int
    generation: int
    enqueued_at_ns: int
    origin: int
    meta_bytes: int
    arguments_bytes: int
    arguments_chain: int
    request_crc: int
    started_at_ns: int
    worker: int
    claim_crc: int
    finished_at_ns: int
    outcome_bytes: int
    outcome_chain: int
    outcome_crc: int


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
        self.order = Order(segment)
        self.recency = Recency(segment)
        self._slots_at = geometry.slots_at
        self._size = geometry.slot_size
        self.commit = geometry.column("commit")
        self.sequence = geometry.column("sequence")
        self.due = geometry.column("due")

    def offset(self, slot: int) -> int:
        """The byte offset of a slot."""
        return self._slots_at + slot * self._size

    def state(self, slot: int) -> int:
        """The state in a slot's commit word."""
        return int(self.words[self.commit + slot] >> at.STATE_SHIFT)

    def is_run_by(self, slot: int, owner: int) -> bool:
        """Whether a slot's task is RUNNING by the process of an entry; any slot may be asked."""
        if not 0 < slot < self.slots.reserved():
            return False
        word = self.words[self.commit + slot]
        return bool(
            word >> at.STATE_SHIFT == at.RUNNING and word >> at.OWNER_SHIFT & at.OWNER_MASK == owner
        )

    def head(self, slot: int) -> Head:
        """The head slot's words as they stand."""
        offset = self.offset(slot)
        return Head._make(at.HEAD.unpack(self.bytes[offset : offset + at.HEAD_BYTES]))

    def chains(self, slot: int) -> list[int]:
        """The chain words that a head slot's record holds in its present state."""
        word = self.offset(slot) // 8
        state = self.state(slot)
        chains = [self.words[word + at.S_ARGUMENTS_CHAIN]]
        if state in (at.RUNNING, at.SUCCESSFUL, at.FAILED):
            chains.append(self.words[word + at.S_OUTCOME_CHAIN])
        return [chain for chain in chains if chain]

    def owner_word(self, slot: int) -> int:
        """The commit word that the record's chained slots bear."""
        return at.chain_word(slot, self.words[self.commit + slot] & at.GENERATION_MASK)

    def free(self, slot: int) -> int:
        """Frees a record with its chains, which nothing links any more; says how many slots."""
        word = self.offset(slot) // 8
        if not (self.words[word + at.S_ARGUMENTS_CHAIN] or self.words[word + at.S_OUTCOME_CHAIN]):
            self.words[self.commit + slot] = 0
            self.slots.give_back(slot)
            return 1
        chains, owner_word = self.chains(slot), self.owner_word(slot)
        self.words[self.commit + slot] = 0  # FREE; its chained slots with it
        freed = sum(self.slots.give_back_chain(chain, owner_word) for chain in chains)
        self.slots.give_back(slot)
        return freed + 1

    def evict_oldest(self) -> None:
        """Recycles the least recently used finished record."""
        words = self.words
        words[at.H_DIRTY] = 1
        slot = words[at.H_OLDEST]
        if not 0 < slot < self.slots.reserved() or self.state(slot) not in at.FINISHED:
            raise inconsistent(self.segment.path)
        self.recency.remove(slot)
        words[at.H_FINISHED_SLOTS] -= self.free(slot)
        words[at.H_FINISHED] -= 1
        words[at.H_EVICTED] += 1

    def make_room(self, count: int, keep: int) -> bool:
        """Sees to it that `count` slots are free, and `keep` more are free or can be made so.

        It grows into reserved memory first and then evicts; nothing is evicted in vain.
        """
        words = self.words
        spare = words[at.H_FREE] + words[at.H_FINISHED_SLOTS]
        unreserved = self.slots.total - self.slots.reserved()
        if spare + unreserved < count + keep:
            return False
        while words[at.H_FREE] < count or (
            words[at.H_FREE] + words[at.H_FINISHED_SLOTS] < count + keep
        ):
            if self.slots.grow():
                continue
            if words[at.H_FREE] + words[at.H_FINISHED_SLOTS] < count + keep:
                return False
            self.evict_oldest()
        return True

    def link_finished(self, slot: int, slots: int, keep: int) -> None:
        """Links a record that just became finished, of `slots` slots; keeps at most `keep`."""
        words = self.words
        self.recency.append(slot)
        words[at.H_RUNNING] -= 1
        words[at.H_UNFINISHED] -= 1
        words[at.H_FINISHED] += 1
        words[at.H_FINISHED_SLOTS] += slots
        while words[at.H_FINISHED] > keep:
            self.evict_oldest()

    def slots_of(self, slot: int) -> int:
        """How many slots a record occupies."""
        owner_word = self.owner_word(slot)
        return 1 + sum(
            length
            for chain in self.chains(slot)
            for _, length in self.slots.extents(chain, owner_word)
        )
