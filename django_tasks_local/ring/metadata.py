"""What happens inside the mutex to the metadata of a record, and to its ties when it is made.

A block is taken, written and named by its record in one hold of the lock. So a death leaves the old
metadata or the new, and slots that no record reaches: the next process rebuilds.
"""

from django_tasks_local.ring.records.holder import Holder

from .format import layout as at
from .format.blocks import Block
from .operations import Operations, Request, Written
from .records.follow_ups import Tied
from .records.reader import Found
from .records.table import Room
from .settling import AGAIN


class MetadataOperations(Operations):
    """The operations of a ring, with those that concern metadata and ties."""

    def room_for(self, request: Request) -> Room:
        """Do a step towards room for a request that fits its head slot."""
        if self.full():
            return Room.NONE
        keep = self.follow_ups.keep_room(request.ties)
        return self._table.make_room(1 + self.beside(request), keep)

    def enqueue_with_more(self, request: Request) -> int | Holder:
        """Do as `enqueue`, for a request that has metadata, ties or a key.

        Nothing is done where another record has the key: that is returned.
        """
        words, table, block = self._words, self._table, request.metadata
        if request.key and (holder := self.holder(request.key)):
            return holder
        room = self.room_for(request)
        if room is not Room.ENOUGH:
            return AGAIN if room is Room.MORE else 0
        words[at.H_DIRTY] = 1
        slot = table.slots.take_one()
        generation = words[at.H_TICK]
        if generation >= at.BEYOND_ANY_TICK:
            raise OverflowError(f"TICK is {generation}")  # damage: see layout
        words[at.H_TICK] = generation + 1
        words[at.H_UNFINISHED] += 1
        owner_word = at.chain_word(slot, generation)
        chain = table.metadata.put(block, owner_word) if block else 0
        ties = self.follow_ups.put(request.ties, owner_word) if request.ties else 0
        keyed = at.KEYED if request.key else 0
        self._publish(request, slot, generation, 0, generation, chain, ties, keyed)
        return slot

    def attach(self, written: Written, block: Block) -> Room:
        """Give metadata, or ties, to a record that we are WRITING."""
        words, table = self._words, self._table
        ties = block if isinstance(block, Tied) else None
        mine = at.head_word(at.WRITING, written.generation, self._registry.index)
        if words[table.commit + written.slot] != mine:
            return Room.NONE
        room = table.make_room(block.slots(self._size), self.follow_ups.keep_room(ties))
        if room is Room.ENOUGH:
            words[at.H_DIRTY] = 1
            owner_word = written.wanted.owner_word
            if ties is not None:
                words[table.ties.word(written.slot)] = self.follow_ups.put(ties, owner_word)
            else:
                words[table.metadata.word(written.slot)] = table.metadata.put(block, owner_word)
        return room

    def save_metadata(self, found: Found, block: Block, *, as_owner: bool) -> Room | None:
        """Replace the metadata of a record; saving makes a finished one the most recent.

        Args:
            found: The record.
            block: All of its new metadata.
            as_owner: Whether it has to be as it was found: RUNNING by us.

        Returns:
            None where the record has gone, or is not ours any more.
        """
        words, table, slot = self._words, self._table, found.slot
        commit, count = table.commit + slot, block.slots(self._size)
        if not self._is_there(found, as_owner):
            return None
        finished = words[commit] >> at.STATE_SHIFT in at.FINISHED
        if finished and words[at.H_NEWEST] != slot:  # so that all others make room before it
            words[at.H_DIRTY] = 1
            table.recency.renew(slot)
        if count:
            room = table.make_room(count, table.kept_beside(slot))
            if room is not Room.ENOUGH:
                return room
            if not self._is_there(found, as_owner):
                return None  # a damaged length made it look smaller, and it was evicted
        words[at.H_DIRTY] = 1
        word, owner_word = table.metadata.word(slot), table.owner_word(slot)
        old = table.metadata.chain(slot, owner_word)
        before = table.metadata.slots_of(slot) if old else 0
        words[word] = table.metadata.put(block, owner_word) if count else 0  # the commit point
        if finished:
            words[at.H_FINISHED_SLOTS] += count - before
        table.slots.discard(old)
        return Room.ENOUGH

    def _is_there(self, found: Found, as_owner: bool) -> bool:
        word = self._words[self._table.commit + found.slot]
        if as_owner:
            return bool(word == found.word)
        same = not (word ^ found.word) & at.GENERATION_MASK
        return same and at.READY <= word >> at.STATE_SHIFT <= at.LOST
