"""What follows a task: made READY in the hold of the lock in which the task ends.

The commit word of the task that ends decides: it says FINISHED, and DUE where something follows.
The follow-up is then made, and DUE goes away. Where a death comes between the two, the next process
that is inside sees by their ties whether the follow-up is there already; nobody else has been
inside, so it waits still.

Room is certain, though the ring may be full of tasks that wait. A record and its chains take as
many slots as any that may follow it, since its ties are filled up with zeros to that length; and
HANDOVER says how many slots are kept so that the two can be there together.
"""

import pickle
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.blocks import BLOCK_HEAD_BYTES, TIES, Block
from django_tasks_local.ring.format.head import (
    PROGRESS_BYTES,
    S_ARGUMENTS_BYTES,
    S_ARGUMENTS_CHAIN,
    S_ID_HIGH,
    S_ID_LOW,
    S_META_BYTES,
    S_ORIGIN,
    S_TIES_CHAIN,
    inline_bytes,
    seal_request,
)
from django_tasks_local.ring.format.ids import ID_LENGTH, format_id, new_id_words, with_slot
from django_tasks_local.ring.format.ties import (
    AFTER_WORD,
    NO_PLACES,
    PLACES_WORD,
    decode_ties,
    encode_ties,
)
from django_tasks_local.ties import NOTHING, FollowUp, Ties

from .payload import Pickled
from .table import Room, Table
from .tallies import Noted

# Nobody pickles inside the lock: the pickle of an id's arguments in two halves, around the id.
_BEFORE_ID, _, _BEHIND_ID = pickle.dumps((("x" * ID_LENGTH,), {}), 5).partition(b"x" * ID_LENGTH)
# No ties have more, see ``blocks.most_bytes``; and a follow-up has its head slot besides.
MOST_HANDOVER: Final = 65
# Of an ORIGIN: code and site.
_PASSED_ON: Final = (1 << at.TALLY_SHIFT) - 1 & ~at.QUEUE_MASK


class Tied(Block):
    """The ties of a task that is to be enqueued.

    Attributes:
        handover: How many slots each task needs that may follow it, 0 where nothing follows.
    """

    __slots__ = ("handover",)

    def __init__(self, data: bytes, handover: int) -> None:
        super().__init__(data, TIES)
        self.handover = handover


class Next(NamedTuple):
    """A follow-up that is to be made READY, and how many slots it needs."""

    follow_up: FollowUp
    ties: Ties
    slots: int


class FollowUps:
    """The follow-ups of records.

    Args:
        table: The records.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._words = table.words
        self._size = table.geometry.slot_size
        self._inline = inline_bytes(self._size)

    def block(self, ties: Ties) -> Tied:
        """Return the ties of a task that is to be enqueued, as its record has them."""
        plan = tuple(each._replace(arguments=_plain(each.arguments)) for each in ties.plan)
        ties = ties._replace(plan=plan)
        return Tied(self._data(ties, 0), self._needed(ties))

    def keep_room(self, block: Tied | None) -> int:
        """Return what is to be kept where a record with these ties comes; see `Table.kept`."""
        return self._table.kept(block.handover if block else 0)

    def put(self, block: Tied, owner_word: int) -> int:
        """Store the ties of a record to be: `Blocks.put`, and their room is kept from now on."""
        if self._words[at.H_HANDOVER] < block.handover:
            self._words[at.H_HANDOVER] = block.handover
        return self._table.ties.put(block, owner_word)

    def make_room(self, slot: int, *, successful: bool) -> Room:
        """Do a step towards room for what would follow such an end of a record."""
        follows = self._next(slot, successful=successful)
        return Room.ENOUGH if follows is None else self._table.make_room(follows.slots, 0)

    def end(self, slot: int, state: int, generation: int, noted: Noted) -> None:
        """Commit the end of a record, and make READY what follows it (dirty, with `make_room`).

        Args:
            slot: The record's.
            state: To which it comes.
            generation: The record's.
            noted: What counts its end, as `Tallies` has noted it.
        """
        words, commit = self._words, self._table.commit + slot
        follows = None
        if words[self._table.ties.word(slot)]:
            follows = self._next(slot, successful=state == at.SUCCESSFUL)
        # Less room than that is damage, which the audit names; the task must end all the same.
        if follows is not None and words[at.H_FREE] >= follows.slots:
            words[commit] = at.head_word(state, generation, at.DUE)
            self._table.tallies.count(noted)
            self._publish(follows, words[self._table.offset(slot) // 8 + S_ORIGIN])
            noted = None
        words[commit] = at.head_word(state, generation)
        self._table.tallies.count(noted)

    def complete(self, slot: int, ready: list[int]) -> None:
        """Make READY what follows a record whose commit word says DUE, unless it is (rebuilding).

        Args:
            slot: The record's.
            ready: The records that wait.
        """
        words, table = self._words, self._table
        state, word = table.state(slot), words[table.commit + slot]
        generation = word & at.GENERATION_MASK
        follows = self._next(slot, successful=state == at.SUCCESSFUL)
        newest = max(ready, key=self._generation, default=0)  # nobody has made any record since
        if follows and not self._follows(newest, follows.ties.after):
            # The dead process had made room, and has taken some of it perhaps, which is free again.
            while words[at.H_FREE] < follows.slots and words[at.H_OLDEST] not in (0, slot):
                table.evict_oldest()
            if words[at.H_FREE] >= follows.slots:
                self._publish(follows, words[table.offset(slot) // 8 + S_ORIGIN])
        words[table.commit + slot] = at.head_word(state, generation)

    def largest_handover(self, slots: Iterable[int]) -> int:
        """Return the most that any of these records' follow-ups needs (rebuilding)."""
        return max(map(self._handover, slots), default=0)

    def ties_of(self, slot: int) -> Ties | None:
        """Return the ties of a record (in the lock); None where it has none, or damaged ones."""
        chain = self._words[self._table.ties.word(slot)]
        data = self._table.ties.read(chain, self._table.owner_word(slot)) if chain else None
        return decode_ties(data) if data else None

    def _handover(self, slot: int) -> int:
        """Return how many slots each task needs that may follow a record, 0 where nothing does.

        So many does the record take itself; but one that was enqueued has ties that are filled up
        as if its request took no chain.
        """
        words, table = self._words, self._table
        count = table.ties.slots_of(slot)
        start = words[table.ties.word(slot)] & at.EXTENT_SLOT_MASK
        data = (table.offset(start) + BLOCK_HEAD_BYTES) // 8
        if not count or words[data + PLACES_WORD] == NO_PLACES:
            return 0
        head = table.offset(slot) // 8
        if words[data + AFTER_WORD] and words[head + S_ARGUMENTS_CHAIN]:
            size = words[head + S_META_BYTES] + words[head + S_ARGUMENTS_BYTES]
            count += at.slots_for(size, self._size)
        return min(1 + count, MOST_HANDOVER)  # less than damage may say

    def _generation(self, slot: int) -> int:
        generation: int = self._words[self._table.commit + slot] & at.GENERATION_MASK
        return generation

    def _follows(self, slot: int, after: str) -> bool:
        ties = self.ties_of(slot)
        return ties is not None and ties.after == after

    def _next(self, slot: int, *, successful: bool) -> Next | None:
        if not self._words[self._table.ties.word(slot)]:
            return None
        ties = self.ties_of(slot)
        follow_up = ties.next(successful=successful) if ties else None
        if ties is None or follow_up is None:
            return None
        word = self._table.offset(slot) // 8
        after = format_id(self._words[word + S_ID_HIGH], self._words[word + S_ID_LOW])
        return Next(follow_up, ties.passed_on(follow_up, after), self._handover(slot))

    def _publish(self, follows: Next, origin: int) -> None:
        """Make READY what follows a record of this origin (dirty, with room for it).

        Its id bits, payload, CRC and chains; its place; W = READY; its link.
        """
        words, table = self._words, self._table
        follow_up = follows.follow_up
        slot = table.slots.take_one()
        generation = words[at.H_TICK]
        words[at.H_TICK] = generation + 1
        words[at.H_UNFINISHED] += 1
        owner_word = at.chain_word(slot, generation)
        arguments: bytes | Pickled = _arguments(follow_up, follows.ties.after)
        chain = count = 0
        if len(follow_up.meta) + len(arguments) > self._inline:
            arguments = Pickled.of(arguments)
            count = at.slots_for(len(follow_up.meta) + len(arguments), self._size)
            parts = [follow_up.meta, *arguments.parts]
            chain = table.ties.put_parts(parts, count, owner_word)
        high, low = new_id_words()
        sealed = seal_request(
            high, with_slot(low, slot), generation, time.time_ns(),
            origin & _PASSED_ON | follow_up.tally | follow_up.priority - at.LOWEST_PRIORITY,
            follow_up.meta, arguments, chain, follow_up.time_limit,
        )  # fmt: skip
        offset = table.offset(slot)
        table.bytes[offset : offset + len(sealed)] = sealed
        block = Block(self._data(follows.ties, count), TIES)
        words[offset // 8 + S_TIES_CHAIN] = table.ties.put(block, owner_word)
        # Bytes of an earlier record must not pass for this one's progress.
        words[(offset + self._size - PROGRESS_BYTES) // 8] = 0
        words[table.sequence + slot] = generation
        words[table.due + slot] = 0
        noted = table.tallies.note_enqueue(slot)
        words[table.commit + slot] = at.head_word(at.READY, generation)
        table.tallies.count(noted)
        table.order.append(slot, *table.order.lane_of(slot))

    def _needed(self, ties: Ties) -> int:
        """Return how many slots each task needs that may follow one with these ties."""
        if ties.then == ties.on_failure == NOTHING:
            return 0
        return 1 + len_in_slots(encode_ties(ties), self._size) + self._most_chained(ties)

    def _data(self, ties: Ties, chained: int) -> bytes:
        """Return the data of a record's ties, for one whose request takes so many slots of a chain.

        With these they take as much room as those of any other record with this plan.
        """
        data, most = encode_ties(ties), self._most_chained(ties)
        if most <= chained:
            return data
        slots = len_in_slots(data, self._size) + most - chained
        return data.ljust(slots * self._size - BLOCK_HEAD_BYTES, b"\0")

    def _most_chained(self, ties: Ties) -> int:
        return max(map(self._chained, ties.plan), default=0)

    def _chained(self, follow_up: FollowUp) -> int:
        """Return how many slots a follow-up's request needs besides its head slot."""
        arguments: bytes | Pickled = _arguments(follow_up, "x" * ID_LENGTH)
        if len(follow_up.meta) + len(arguments) <= self._inline:
            return 0
        return at.slots_for(len(follow_up.meta) + len(Pickled.of(arguments)), self._size)


def len_in_slots(data: bytes, size: int) -> int:
    """Return how many slots a block with this data takes."""
    return at.slots_for(BLOCK_HEAD_BYTES + len(data), size)


def _arguments(follow_up: FollowUp, after: str) -> bytes:
    if follow_up.arguments is None:
        return _BEFORE_ID + after.encode() + _BEHIND_ID
    arguments: bytes = follow_up.arguments
    return arguments


def _plain(arguments: bytes | Pickled | None) -> bytes | None:
    """Return a pickle in one piece."""
    return b"".join(arguments.parts[1:]) if isinstance(arguments, Pickled) else arguments
