"""What happens inside the mutex: each operation of the ring as its numbered writes.

Rule 3 of the package's docstring holds for all: the dirty word first, then one store of W, then the
links. Its table says what a death at each step leaves behind.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from django_tasks_local.ring.format.blocks import Block
from django_tasks_local.ring.format.head import (
    BATCH_WORD,
    CLAIM_AT,
    CLAIM_END,
    PROGRESS_BYTES,
    S_ARGUMENTS_BYTES,
    S_ARGUMENTS_CHAIN,
    S_FINISHED_AT,
    S_HISTORY_CHAIN,
    S_META_BYTES,
    S_METADATA_CHAIN,
    S_OUTCOME_CHAIN,
    S_REQUEST_CRC,
    S_STOP,
    S_TIES_CHAIN,
    seal_claim,
    seal_request,
)
from django_tasks_local.ring.format.ids import with_slot
from django_tasks_local.ring.records.follow_ups import Tied
from django_tasks_local.ring.records.holder import Holder, holder_of
from django_tasks_local.ring.records.loss import noted_loss
from django_tasks_local.ring.records.reader import Found
from django_tasks_local.ring.records.slots import Wanted
from django_tasks_local.ring.records.table import Room, Table
from django_tasks_local.ring.shm.errors import inconsistent
from django_tasks_local.ring.shm.registry import Registry
from django_tasks_local.store import task_path

from .format import layout as at
from .settling import AGAIN, Settling

# A task that falls due so soon wakes a worker, which then waits for its moment. For others the
# pool's own look, once a second, is in time.
SOON_NS: Final = 1_000_000_000
# What an end of a task says where that was told to stop.
TOLD_TO_STOP: Final = -3


class Request(NamedTuple):
    """One task to enqueue, with all that can be computed outside the lock."""

    meta: bytes
    arguments: Any  # bytes; `Pickled` where they are chained
    queue: int  # the number of its tally << 48 | priority + 100
    due_ns: int  # 0: now
    now_ns: int
    id_high: int
    id_low: int  # without its slot
    time_limit: int = 0
    metadata: Block | None = None
    key: bytes = b""  # with which the meta begins
    ties: Tied | None = None

    @property
    def path(self) -> str:
        """The task's import path."""
        return task_path(self.meta[len(self.key) :])


@dataclass(slots=True)
class Written:
    """A slot that is, or soon will be, WRITING by us; slot 0 before there is one."""

    slot: int = 0
    generation: int = 0
    wanted: Wanted = field(default_factory=lambda: Wanted(0, 0))


class Operations(Settling):
    """The operations, each to be run inside the mutex.

    An operation that must refuse says so by its return value before it has written anything (rule
    8): an exception would leave the ring dirty for the next one to rebuild.
    """

    def __init__(self, table: Table, registry: Registry) -> None:
        super().__init__(table, registry)
        self._bytes = table.bytes
        self._slots_at = table.geometry.slots_at
        self._size = table.geometry.slot_size

    def enqueue(self, request: Request) -> int:
        """Store a request that fits its head slot: return its slot, 0 if refused, or AGAIN."""
        words = self._words
        if self.full():
            return 0
        if words[at.H_FREE] <= (keep := words[at.H_MAX_WORKERS] + words[at.H_HANDOVER]):
            room = self._table.make_room(1, keep)
            if room is not Room.ENOUGH:
                return AGAIN if room is Room.MORE else 0
        words[at.H_DIRTY] = 1
        slot = self._table.slots.take_one()
        generation = words[at.H_TICK]
        if generation >= at.BEYOND_ANY_TICK:
            raise OverflowError(f"TICK is {generation}")  # damage: see layout
        words[at.H_TICK] = generation + 1
        words[at.H_UNFINISHED] += 1
        self._publish(request, slot, generation, 0, generation)
        return slot

    def begin_chained(self, request: Request, written: Written, count: int) -> Room:
        """Take a head slot, WRITING by us, for a request with `count` chained slots.

        `written` names it as soon as it is ours, so that `abandon` finds it even if an exception
        comes in between.
        """
        words, table = self._words, self._table
        needed, keep = 1 + count + self.beside(request), self.follow_ups.keep_room(request.ties)
        room = Room.NONE if self.full() else table.make_room(needed, keep)
        if room is not Room.ENOUGH:
            return room
        self._registry.ensure()
        words[at.H_DIRTY] = 1
        slot = table.slots.take_one()
        generation = words[at.H_TICK]
        if generation >= at.BEYOND_ANY_TICK:
            raise OverflowError(f"TICK is {generation}")  # damage: see layout
        words[at.H_TICK] = generation + 1
        written.slot, written.generation = slot, generation
        written.wanted = Wanted(count, at.chain_word(slot, generation))
        self._registry.set_field(at.E_OTHERS, self._others() + 1)
        word = (self._slots_at + slot * self._size) // 8
        words[word + S_META_BYTES] = len(request.meta)
        words[word + S_ARGUMENTS_BYTES] = len(request.arguments)
        words[word + S_ARGUMENTS_CHAIN] = 0
        words[word + S_METADATA_CHAIN] = words[word + S_HISTORY_CHAIN] = 0
        words[word + S_TIES_CHAIN] = words[word + BATCH_WORD] = 0
        words[table.commit + slot] = at.head_word(at.WRITING, generation, self._registry.index)
        words[at.H_UNFINISHED] += 1
        return Room.ENOUGH

    def chain_request(self, written: Written) -> Room:
        """Take some chained slots of what we are WRITING, and return ENOUGH when all are there."""
        word = self._table.offset(written.slot) // 8 + S_ARGUMENTS_CHAIN
        mine = at.head_word(at.WRITING, written.generation, self._registry.index)
        return self._take_runs(written.slot, mine, written.wanted, word, self._table.kept())

    def beside(self, request: Request) -> int:
        """Return how many slots a request needs for its metadata and ties."""
        return sum(block.slots(self._size) for block in (request.metadata, request.ties) if block)

    def publish_chained(self, request: Request, written: Written) -> bool | Holder:
        """Make READY what we have been WRITING; return False where it was taken from us.

        Nothing is done where another record has its key: that is returned.
        """
        if not self.is_ours(written):
            return False
        if request.key and (holder := self.holder(request.key)):
            return holder
        words = self._words
        words[at.H_DIRTY] = 1
        # Its place in the queue is that of its publication: others have passed while we copied.
        tick = words[at.H_TICK]
        words[at.H_TICK] = tick + 1
        metadata = words[self._table.metadata.word(written.slot)]
        ties = words[self._table.ties.word(written.slot)]
        chain = written.wanted.chain
        keyed = at.KEYED if request.key else 0
        self._publish(request, written.slot, written.generation, chain, tick, metadata, ties, keyed)
        self._registry.set_field(at.E_OTHERS, self._others() - 1)
        return True

    def holder(self, key: bytes) -> Holder | None:
        """Return the record that has a key; None for none."""
        return holder_of(self._table, key)

    def abandon(self, written: Written) -> None:
        """Free what we have been WRITING, if there is any."""
        if self.is_ours(written):
            self._words[at.H_DIRTY] = 1
            self._table.free(written.slot)
            self._words[at.H_UNFINISHED] -= 1
            self._registry.set_field(at.E_OTHERS, self._others() - 1)

    def is_ours(self, written: Written) -> bool:
        """Return whether we still are WRITING it: nobody took us for dead."""
        word = self._words[self._table.commit + written.slot]
        return bool(word == at.head_word(at.WRITING, written.generation, self._registry.index))

    def claim(self, share: at.Share | None) -> int:
        """Make the next due record of a share RUNNING by us: return its slot, 0, or AGAIN."""
        words, table = self._words, self._table
        now_ns = time.time_ns()
        more = words[at.H_DEFERRED] and table.order.promote(now_ns)
        place = table.order.first(share)
        slot, lane, _ = place
        if not lane:
            return AGAIN if more else 0
        registry = self._registry
        if words[registry.entry] != registry.commit:
            registry.ensure()
        if slot >= table.segment.limit:
            table.segment.must_hold(slot)
        word = words[table.commit + slot] if slot else 0
        if word >> at.STATE_SHIFT != at.READY or word % 31:
            words[at.H_DIRTY] = 1
            raise inconsistent(table.segment.path)
        offset = self._slots_at + slot * self._size
        words[at.H_DIRTY] = 1
        current = registry.entry + at.E_CURRENT
        if table.is_run_by(words[current], registry.index):
            # A signal handler's exception came between its claim and its start, or its end.
            registry.set_field(at.E_OTHERS, self._others() + 1)
        sealed = seal_claim(now_ns, registry.worker, words[offset // 8 + S_REQUEST_CRC])
        self._bytes[offset + CLAIM_AT : offset + CLAIM_END] = sealed
        words[current] = slot
        counted = table.tallies.note_start(slot, now_ns) if words[at.H_TALLIED] else None
        generation = word & at.GENERATION_MASK
        words[table.commit + slot] = at.head_word(at.RUNNING, generation, registry.index)
        if counted is not None:
            table.tallies.count(counted)
        table.order.pop(place)
        words[at.H_RUNNING] += 1
        return slot

    def chain_outcome(self, found: Found, wanted: Wanted, keep: int) -> Room:
        """Take some chained slots of a record that we run, and return ENOUGH when all are there.

        Args:
            found: The record.
            wanted: Its chain.
            keep: Slots that must be left for the results and errors of others.
        """
        word = self._table.offset(found.slot) // 8 + S_OUTCOME_CHAIN
        return self._take_runs(found.slot, found.word, wanted, word, keep)

    def drop_outcome_chain(self, found: Found) -> None:
        """Free what an interrupted attempt to finish a record that we run has chained."""
        words, table = self._words, self._table
        if words[table.commit + found.slot] == found.word:
            words[at.H_DIRTY] = 1
            word = table.offset(found.slot) // 8 + S_OUTCOME_CHAIN
            chain = words[word]
            words[word] = 0
            table.slots.discard(chain)

    def trim(self) -> bool:
        """Evict some of what is beyond MAX_RESULTS, and return whether there is more to do."""
        return self._table.trim(self._words[at.H_MAX_RESULTS])

    def _take_runs(self, slot: int, mine: int, wanted: Wanted, word: int, keep: int) -> Room:
        words, table = self._words, self._table
        if words[table.commit + slot] != mine:
            return Room.NONE
        room = table.make_room(wanted.count, keep)
        if room is not Room.ENOUGH:
            return room
        words[at.H_DIRTY] = 1
        whole = table.slots.take_runs(wanted)
        words[word] = wanted.chain
        return Room.ENOUGH if whole else Room.MORE

    def finish(self, found: Found, state: int, slots: int, note: int, outcome: int) -> int:
        """Make a record that we run SUCCESSFUL or FAILED; return False where it is not ours.

        Args:
            found: The record.
            state: Which of the two.
            slots: Those that it occupies, without its metadata: any process may replace these.
            note: Where another one is in it, that says to stop: then this only returns
                TOLD_TO_STOP; and AGAIN where there has to be room for what follows it.
            outcome: As what its tally counts it.
        """
        words, table, slot = self._words, self._table, found.slot
        commit, head = table.commit + slot, (self._slots_at + slot * self._size) // 8
        if words[commit] != found.word:
            return False
        stop = words[head + S_STOP]
        if stop != note and noted_loss(stop):
            return TOLD_TO_STOP
        tied = found.head.ties_chain
        if tied and self.wants_room(slot, successful=state == at.SUCCESSFUL):
            return AGAIN
        words[at.H_DIRTY] = 1
        if words[head + S_METADATA_CHAIN]:
            slots += table.metadata.slots_of(slot)
        table.recency.stamp(slot)
        noted = None
        if words[at.H_TALLIED]:
            noted = table.tallies.note_end(slot, outcome, words[head + S_FINISHED_AT])
        if tied:
            self.follow_ups.end(slot, state, found.head.generation, noted)
        else:
            words[commit] = at.head_word(state, found.head.generation)
            if noted is not None:
                table.tallies.count(noted)
        table.link_finished(slot, slots, words[at.H_MAX_RESULTS])
        return True

    def touch(self, slot: int, word: int) -> None:
        """Make a finished record the most recently used, if it is still there."""
        words, table = self._words, self._table
        if words[table.commit + slot] == word and words[at.H_NEWEST] != slot:
            words[at.H_DIRTY] = 1
            table.recency.renew(slot)

    def _publish(
        self,
        request: Request,
        slot: int,
        generation: int,
        chain: int,
        sequence: int,
        metadata_chain: int = 0,
        ties_chain: int = 0,
        keyed: int = 0,
    ) -> None:
        """Fill the head slot, commit it as READY and link it."""
        words, table, registry = self._words, self._table, self._registry
        sealed = seal_request(
            request.id_high, with_slot(request.id_low, slot), generation, request.now_ns,
            registry.origin << 8 | request.queue | keyed, request.meta, request.arguments, chain,
            request.time_limit,
        )  # fmt: skip
        offset = self._slots_at + slot * self._size
        self._bytes[offset : offset + len(sealed)] = sealed
        if metadata_chain:
            words[offset // 8 + S_METADATA_CHAIN] = metadata_chain
        if ties_chain:
            words[offset // 8 + S_TIES_CHAIN] = ties_chain
        due_ns = request.due_ns if request.due_ns > request.now_ns else 0
        # Bytes of an earlier record must not pass for this one's progress.
        words[(offset + self._size - PROGRESS_BYTES) // 8] = 0
        words[table.sequence + slot] = sequence
        words[table.due + slot] = due_ns
        queue = request.queue
        counted = table.tallies.note_enqueue(slot) if queue > at.QUEUE_MASK else None
        words[table.commit + slot] = at.head_word(at.READY, generation)
        if counted is not None:
            table.tallies.count(counted)
        if due_ns:
            table.order.defer(slot)
        else:
            lane = registry.lane
            if registry.newest > words[registry.runnable_word]:
                lane += at.LANE_WORDS  # `layout.lane_of` says the same
            table.order.append(slot, lane, queue & at.QUEUE_MASK)
        if keyed:
            table.keys.add(slot)

    def full(self) -> bool:
        """Return whether MAX_PENDING tasks wait."""
        words = self._words
        pending: int = words[at.H_UNFINISHED] - words[at.H_RUNNING]
        return pending >= words[at.H_MAX_PENDING]

    def _others(self) -> int:
        return self._registry.field(self._registry.index, at.E_OTHERS)
