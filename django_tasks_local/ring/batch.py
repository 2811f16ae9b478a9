"""What happens inside the mutex to tasks that are enqueued together.

They are WRITING, each in a head slot of its own, and each names the batch: a record without a
payload, which is WRITING too. They belong together by one store: once the batch's record is free,
they are accepted. Their process, or the one that settles it, then makes them READY, some in each
hold of the lock. Before that store a death, or an abandoned attempt, frees them all, the batch's
record last.
"""

from array import array
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from django_tasks_local.ring.format.head import CLAIM_AT, HEAD_BYTES, META_BYTES_AT, words_in_batch
from django_tasks_local.ring.records.holder import Holder
from django_tasks_local.ring.records.table import Room, Table
from django_tasks_local.ring.shm.registry import Registry

from . import recovery
from .format import layout as at

# Each in 0.1 to 0.3 ms.
TAKEN_AT_ONCE: Final = 256
PUBLISHED_AT_ONCE: Final = 256
PUBLISHED_SLOWLY_AT_ONCE: Final = 48  # with keys, or into the heap
FREED_AT_ONCE: Final = 64
# Of either, where free slots have few neighbours.
RUNS_AT_ONCE: Final = 48


class Run(NamedTuple):
    """Neighbouring head slots of a batch; their generations follow each other as they do."""

    start: int
    length: int
    generation: int


@dataclass(slots=True)
class Batch:
    """Tasks that are enqueued together, as their process knows them.

    Attributes:
        count: How many there are to be.
        slots: How many slots they need in all.
        due_ns: When they fall due, 0: now.
        keyed: Whether they have keys.
        handover: How many slots are to be kept for what follows any of them.
        slot: The head slot of the batch's record, 0 before there is one.
        generation: And its generation.
        runs: The head slots of the tasks, in their order.
        done: How many of them are READY, or free again.
        place: That place: the number of a run, and how many of it are done.
        held: Of those the ones that were not made READY, since another task had their key: their
            number, and that task's record.
    """

    count: int
    slots: int
    due_ns: int
    keyed: bool
    handover: int = 0
    slot: int = 0
    generation: int = 0
    runs: list[Run] = field(default_factory=list)
    done: int = 0
    place: tuple[int, int] = (0, 0)
    held: list[tuple[int, Holder]] = field(default_factory=list)

    @property
    def name(self) -> int:
        """What its tasks name it by, as chained slots would name their head."""
        return at.chain_word(self.slot, self.generation)

    @property
    def taken(self) -> int:
        """How many of its tasks have head slots."""
        return sum(run.length for run in self.runs)

    def rest(self, most: int) -> list[Run]:
        """Return the next of its head slots that are not done, in a few runs; [] for none."""
        found: list[Run] = []
        number, skip = self.place
        for start, length, generation in islice(self.runs, number, number + RUNS_AT_ONCE):
            some = min(most, length - skip)
            found.append(Run(start + skip, some, generation + skip))
            most, skip = most - some, 0
            if not most:
                break
        return found

    def move_on(self, length: int) -> None:
        """Note that so many more are done: at most the rest of a run."""
        self.done += length
        number, skip = self.place
        skip += length
        self.place = (number, skip) if skip < self.runs[number].length else (number + 1, 0)


class BatchOperations:
    """The steps of a batch, each to be run inside the mutex."""

    def __init__(self, table: Table, registry: Registry) -> None:
        self._table = table
        self._registry = registry
        self._words = table.words
        self._bytes = table.bytes

    def begin(self, batch: Batch) -> Room:
        """Take the record of a batch."""
        words, table = self._words, self._table
        free = words[at.H_FREE] + words[at.H_FINISHED_SLOTS]
        free += table.slots.total - table.slots.reserved()
        keep = table.kept(batch.handover)
        if self._pending() + batch.count > words[at.H_MAX_PENDING]:
            return Room.NONE
        if free < batch.slots + 1 + keep:  # NONE, unless some of what was given up is to be freed
            return table.make_room(batch.slots + 1, keep)
        room = table.make_room(1, keep)
        if room is not Room.ENOUGH:
            return room
        self._registry.ensure()
        words[at.H_DIRTY] = 1
        batch.slot = table.slots.take_one()
        batch.generation = self._take_generations(1)
        self._own(batch, batch.slot, 1, batch.generation)
        return Room.ENOUGH

    def take(self, batch: Batch) -> Room:
        """Take head slots for some more of its tasks; ENOUGH when all have theirs."""
        words, table = self._words, self._table
        if not self._is_open(batch):
            return Room.NONE
        some = min(batch.count - batch.taken, TAKEN_AT_ONCE)
        # The batch's own record is no task.
        if self._pending() - 1 + some > words[at.H_MAX_PENDING]:
            return Room.NONE
        room = table.make_room(some, table.kept())
        if room is not Room.ENOUGH:
            return room
        words[at.H_DIRTY] = 1
        for _ in range(RUNS_AT_ONCE):
            start, length = table.slots_in_a_row(some)
            generation = self._take_generations(length)
            batch.runs.append(Run(start, length, generation))
            self._own(batch, start, length, generation)
            some -= length
            if not some:
                break
        return Room.ENOUGH if batch.taken == batch.count else Room.MORE

    def commit(self, batch: Batch) -> bool:
        """Accept all of its tasks by one store; False where others took us for dead."""
        words, table = self._words, self._table
        if not self._is_open(batch):
            return False
        words[at.H_DIRTY] = 1
        words[table.commit + batch.slot] = 0
        table.slots.give_back(batch.slot)
        self._disown(1)
        words[at.H_UNFINISHED] -= 1
        return True

    def settle(self, batch: Batch) -> bool:
        """Make some of its tasks READY if they were accepted, else free some; whether all are done.

        What is not ours any more was settled by those who took us for dead.
        """
        if not self._is_open(batch):
            return self._publish(batch)
        self._words[at.H_DIRTY] = 1
        rest = batch.rest(FREED_AT_ONCE)
        for run in rest:
            for slot, generation in members(run):
                if self._is_ours(slot, generation):
                    self._give_up(slot)
            batch.move_on(run.length)
        if not rest:
            self._give_up(batch.slot)
        return not rest

    def _publish(self, batch: Batch) -> bool:
        slowly = batch.due_ns or batch.keyed
        rest = batch.rest(PUBLISHED_SLOWLY_AT_ONCE if slowly else PUBLISHED_AT_ONCE)
        for run in rest:
            if slowly or not self.is_mine(run):
                self._publish_one_by_one(batch, run)
            else:
                self._publish_run(run)
            batch.move_on(run.length)
        return not rest

    def _publish_one_by_one(self, batch: Batch, run: Run) -> None:
        for place, (slot, generation) in enumerate(members(run), batch.done):
            if self._is_ours(slot, generation):
                holder = recovery.publish(self._table, slot)
                if holder is not None:
                    batch.held.append((place, holder))
                self._disown(1)

    def _publish_run(self, run: Run) -> None:
        words, table = self._words, self._table
        start, length, generation = run
        words[at.H_DIRTY] = 1
        first = self._take_generations(length)
        ticks = array("Q", range(first, first + length))
        words[table.sequence + start : table.sequence + start + length] = memoryview(ticks)
        ready = array("Q", at.head_words(at.READY, generation, length))
        # They have one task, and so one tally.
        counted = table.tallies.note_enqueue(start, length)
        words[table.commit + start : table.commit + start + length] = memoryview(ready)
        table.tallies.count(counted)
        table.order.append_run(start, length, *table.order.lane_of(start))
        self._disown(length)

    def is_mine(self, run: Run) -> bool:
        """Return whether all of a run is WRITING by us (also outside the mutex)."""
        start = self._table.commit + run.start
        mine = at.head_words(at.WRITING, run.generation, run.length, self._registry.index)
        return self._words[start : start + run.length].tolist() == mine

    def _own(self, batch: Batch, start: int, length: int, generation: int) -> None:
        """Make free slots WRITING by us, with nothing in them but the name of the batch."""
        words, table, registry = self._words, self._table, self._registry
        registry.set_field(at.E_OTHERS, registry.field(registry.index, at.E_OTHERS) + length)
        words[at.H_UNFINISHED] += length
        nothing = bytes(CLAIM_AT - META_BYTES_AT) + words_in_batch(batch.name, batch.due_ns)
        offset, size = table.offset(start), table.geometry.slot_size
        for place in range(offset, offset + length * size, size):
            self._bytes[place + META_BYTES_AT : place + HEAD_BYTES] = nothing
        due = array("Q", [batch.due_ns]) * length
        words[table.due + start : table.due + start + length] = memoryview(due)
        mine = array("Q", at.head_words(at.WRITING, generation, length, registry.index))
        words[table.commit + start : table.commit + start + length] = memoryview(mine)

    def _disown(self, count: int) -> None:
        registry = self._registry
        registry.set_field(at.E_OTHERS, registry.field(registry.index, at.E_OTHERS) - count)

    def _give_up(self, slot: int) -> None:
        self._table.free(slot)
        self._words[at.H_UNFINISHED] -= 1
        self._disown(1)

    def _is_open(self, batch: Batch) -> bool:
        """Whether a batch is neither accepted nor given up."""
        return batch.slot != 0 and self._is_ours(batch.slot, batch.generation)

    def _is_ours(self, slot: int, generation: int) -> bool:
        mine = at.head_word(at.WRITING, generation, self._registry.index)
        return bool(self._words[self._table.commit + slot] == mine)

    def _take_generations(self, count: int) -> int:
        words = self._words
        first: int = words[at.H_TICK]
        if first >= at.BEYOND_ANY_TICK:
            raise OverflowError(f"TICK is {first}")  # damage: see layout
        words[at.H_TICK] = first + count
        return first

    def _pending(self) -> int:
        words = self._words
        pending: int = words[at.H_UNFINISHED] - words[at.H_RUNNING]
        return pending


def members(run: Run) -> "zip[tuple[int, int]]":
    """Return the slots of a run, each with its generation."""
    return zip(
        range(run.start, run.start + run.length),
        range(run.generation, run.generation + run.length),
        strict=True,
    )
