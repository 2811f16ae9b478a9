"""What is done after a death: settle what a process left behind, rebuild what is derived.

Both run inside the mutex, and both may die half-way themselves: the next one starts again.
"""

import time
from array import array
from typing import Final

from django_tasks_local.ring.records import retrying
from django_tasks_local.ring.records.batched import in_order_of_settling, was_accepted
from django_tasks_local.ring.records.follow_ups import FollowUps
from django_tasks_local.ring.records.holder import Holder, holder_of
from django_tasks_local.ring.records.loss import (
    is_by_kill,
    is_cancelled,
    is_to_be_announced,
    noted_loss,
)
from django_tasks_local.ring.records.table import Table
from django_tasks_local.ring.records.tallies import lost_as

from .format import layout as at
from .format.head import (
    OUTCOME_AT,
    OUTCOME_END,
    S_ARGUMENTS_BYTES,
    S_GENERATION,
    S_META_BYTES,
    S_METADATA_CHAIN,
    S_OUTCOME_BYTES,
    S_OUTCOME_CHAIN,
    S_TIES_CHAIN,
    inline_bytes,
    seal_loss,
)

# How many commit words are copied at once: Python's numbers take five times as much memory.
_SCANNED_AT_ONCE: Final = 2**16


def settle_record(table: Table, slot: int, index: int, loss: int, keep: int) -> int:
    """Settle one record that a dead process left, and return its slot if a task was lost, else 0.

    Args:
        table: The records.
        slot: The record's head slot; any slot may be given.
        index: The dead process's entry.
        loss: A `loss_word` for a task that it ran.
        keep: MAX_RESULTS.
    """
    if table.is_run_by(slot, index):
        # A death came in the middle of a retry. Another note than that of a cancellation is why the
        # attempt was lost that is over.
        cancelled = is_cancelled(noted_loss(table.head(slot).stop))
        if not cancelled and retrying.is_over(table, slot):
            retrying.make_ready(table, slot)
            return 0
        mark_lost(table, slot, loss, keep)
        return slot
    if table.is_owned_by(slot, index, at.WRITING):
        settle_unfinished(table, slot)
    return 0


def settle_unfinished(table: Table, slot: int) -> None:
    """Settle a WRITING record of a dead process: make it READY if it was accepted, else free it."""
    if was_accepted(table, slot):
        publish(table, slot)
    else:
        table.words[at.H_DIRTY] = 1
        table.free(slot)
        table.words[at.H_UNFINISHED] -= 1


def publish(table: Table, slot: int) -> Holder | None:
    """Make a WRITING record READY that was accepted with its batch.

    Returns:
        The record that has its key by now, and then this one is freed; else None.
    """
    words = table.words
    words[at.H_DIRTY] = 1
    keyed = table.keys.has_key(slot)
    if keyed and (holder := holder_of(table, table.keys.key(slot))):
        table.free(slot)
        words[at.H_UNFINISHED] -= 1
        return holder
    words[table.sequence + slot] = tick = words[at.H_TICK]
    words[at.H_TICK] = tick + 1
    generation = words[table.commit + slot] & at.GENERATION_MASK
    counted = table.tallies.note_enqueue(slot)
    words[table.commit + slot] = at.head_word(at.READY, generation)
    table.tallies.count(counted)
    if words[table.due + slot]:
        table.order.defer(slot)
    else:
        table.order.append(slot, *table.order.lane_of(slot))
    if keyed:
        table.keys.add(slot)
    return None


def owned_by(table: Table, index: int) -> list[int]:
    """Return the head slots that a dead entry owns (outside the lock: they do not change).

    In the order in which they are to be settled: as they were taken, but the records of batches
    last. Until all of its tasks are settled, a batch is what says whether they were accepted.
    """
    reserved = table.slots.reserved()
    column = table.words[table.commit : table.commit + reserved].tolist()
    owned = at.WRITING, at.RUNNING
    return in_order_of_settling(
        table,
        [
            slot
            for slot, word in enumerate(column)
            if word >> at.STATE_SHIFT in owned and word >> at.OWNER_SHIFT & at.OWNER_MASK == index
        ],
    )


def mark_lost(table: Table, slot: int, loss: int, keep: int) -> None:
    """Make a RUNNING record LOST; what is noted there of its end goes before `loss`.

    There has to be room for what follows it.
    """
    words = table.words
    words[at.H_DIRTY] = 1
    head = table.head(slot)
    offset = table.offset(slot)
    loss, now_ns = noted_loss(head.stop) or loss, time.time_ns()
    sealed = seal_loss(now_ns, loss, head)
    table.bytes[offset + OUTCOME_AT : offset + OUTCOME_END] = sealed
    table.recency.stamp(slot)
    if is_to_be_announced(loss):  # before it is LOST: a death in between must not hide it
        words[at.H_UNTOLD + at.code_of(head.origin)] = words[table.sequence + slot]
    noted = table.tallies.note_end(slot, lost_as(loss), now_ns)
    FollowUps(table).end(slot, at.LOST, head.generation, noted)
    if head.outcome_chain:  # a result that its worker was still copying
        words[offset // 8 + S_OUTCOME_CHAIN] = 0
        table.slots.discard(head.outcome_chain)
    words[at.H_KILLED if is_by_kill(loss) else at.H_LOST] += 1
    table.link_finished(slot, table.slots_of(slot), keep)


def rebuild(table: Table) -> list[str]:
    """Rebuild everything derived from the commit words: one scan, 2 µs a record, 7 with ties.

    Columns are read and written as a whole: a word by itself costs 40 ns. It copes with any bytes:
    what does not hold together is dropped.

    Returns:
        What had to be dropped, a sentence each. A death leaves nothing of that kind.
    """
    words, slots = table.words, table.slots
    table.tallies.complete()
    words[at.H_DIRTY] = 1
    if not slots.reserved():
        slots.restore_reserved()
    reserved = slots.reserved()
    found = _Records(table, reserved)
    for start in range(0, reserved, _SCANNED_AT_ONCE):
        found.scan(start, min(start + _SCANNED_AT_ONCE, reserved))
    table.bytes[table.geometry.map_at : table.geometry.map_at + reserved] = found.used
    words[at.H_FREE] = found.used.count(0)
    words[at.H_CURSOR] = 1
    words[at.H_DISCARDED] = 0
    words[at.H_FINISHED_SLOTS] = found.finished_slots
    words[at.H_RUNNING] = found.running
    words[at.H_UNFINISHED] = found.writing + found.running + len(found.ready)
    columns = [
        slice(start, start + reserved) for start in map(table.geometry.column, ("link", "back"))
    ]
    # Links inside chains stay as they are.
    links, backs = (array("Q", words[column].tobytes()) for column in columns)
    due = table.due
    found.place_cancelled()
    found.put_in_order(found.finished)
    table.recency.fill(found.finished, links, backs)
    found.put_in_order(found.ready)
    deferred = [slot for slot in found.ready if words[due + slot]]
    deferred.sort(key=lambda slot: words[due + slot])
    waiting = [slot for slot in found.ready if not words[due + slot]] if deferred else found.ready
    table.order.fill(waiting, deferred, links, backs)
    table.keys.fill(found.keyed)
    words[columns[0]] = memoryview(links)
    words[columns[1]] = memoryview(backs)
    table.schedule.complete(found.ready)
    words[at.H_TICK] = found.tick
    follow_ups = FollowUps(table)
    tied = filter(table.state, found.tied + found.due)
    words[at.H_HANDOVER] = follow_ups.largest_handover(tied)
    for slot in filter(table.state, found.due):
        follow_ups.complete(slot, found.ready)
    return found.dropped


class _Records:
    """What a scan of the commit words finds.

    Attributes:
        used: The free map.
        tick: A number above every generation and every place in an order.
        ready: The slots of the records that are READY.
        finished: And of those that are SUCCESSFUL, FAILED or LOST.
        cancelled: Those among them whose place is still that in the queue.
        finished_slots: How many slots these occupy.
        keyed: The slots of the records that are READY or RUNNING and have keys.
        tied: The slots of the records that have not ended and have ties; some may be dropped.
        due: And of those that have ended, where what follows is still to be made READY.
        running: How many records are RUNNING.
        writing: How many are WRITING.
        dropped: What did not hold together.
    """

    def __init__(self, table: Table, reserved: int) -> None:
        self._table = table
        self.used = bytearray(reserved)
        self.used[0] = 1  # slot 0 is never handed out
        tick: int = table.words[at.H_TICK]
        self.tick = tick if 0 < tick < at.BEYOND_ANY_TICK else 1
        self.ready: list[int] = []
        self.finished: list[int] = []
        self.cancelled: list[int] = []
        self.keyed: list[int] = []
        self.tied: list[int] = []
        self.due: list[int] = []
        self.finished_slots = self.running = self.writing = 0
        self.dropped: list[str] = []

    def scan(self, start: int, end: int) -> None:
        """Look at the commit words of some slots."""
        table, words = self._table, self._table.words
        column = words[table.commit + start : table.commit + end].tolist()
        places = words[table.sequence + start : table.sequence + end].tolist()
        shift = at.STATE_SHIFT
        tick = self.tick
        for slot, word in enumerate(column, start):
            state = word >> shift
            if not word or state == at.CHAIN or not slot:
                continue
            generation = word & at.GENERATION_MASK
            size = self._take(slot, state, word, generation)
            if not size:
                words[table.commit + slot] = 0
                if state != at.WRITING:  # whose writer may have died before its chain was whole
                    self.dropped.append(
                        f"slot {slot} held a record whose slots do not hold: dropped"
                    )
                continue
            place = places[slot - start]
            if place >= at.BEYOND_ANY_TICK:
                place = self._mended_place(slot, state, place, generation)
            tick = max(tick, generation + 1, place + 1)
            if state in (at.READY, at.RUNNING) and table.keys.has_key(slot):
                self.keyed.append(slot)
            if state == at.READY:
                self.ready.append(slot)
            elif state == at.RUNNING:
                self.running += 1
            elif state == at.WRITING:
                self.writing += 1
            else:
                self.finished.append(slot)
                self.finished_slots += size
        self.tick = tick

    def _mended_place(self, slot: int, state: int, place: int, generation: int) -> int:
        """Return the place of a record that left the queue, or whose place is damaged."""
        place &= ~at.LEAVES_QUEUE
        if place >= at.BEYOND_ANY_TICK:  # damage, and no longer a place
            place = generation
        elif state == at.LOST:
            self.cancelled.append(slot)
            return place
        elif state == at.READY:
            retrying.forget_end(self._table, slot)
        self._table.words[self._table.sequence + slot] = place
        return place

    def place_cancelled(self) -> None:
        """Make the most recent what was cancelled, and has no new place yet."""
        for slot in self.cancelled:
            self._table.words[self._table.sequence + slot] = self.tick
            self.tick += 1

    def put_in_order(self, slots: list[int]) -> None:
        """Sort records by their places. Where two have the same, which is damage, all get others.

        (A TICK that was damaged gives places away that others have.)
        """
        words, sequence = self._table.words, self._table.sequence
        slots.sort(key=lambda slot: words[sequence + slot])
        if len({words[sequence + slot] for slot in slots}) < len(slots):
            for slot in slots:
                words[sequence + slot] = self.tick
                self.tick += 1

    def _take(self, slot: int, state: int, word: int, generation: int) -> int:
        """Mark a record's slots as used, and return how many they are, 0 where they do not hold."""
        words, geometry, slots = self._table.words, self._table.geometry, self._table.slots
        used = self.used
        if not state or word % 31 or generation >= at.BEYOND_ANY_TICK or used[slot]:
            return 0
        head = (geometry.slots_at + slot * geometry.slot_size) // 8
        if state != at.WRITING and words[head + S_GENERATION] != generation:
            return 0  # a writer stores it last
        wanted = []
        size = words[head + S_META_BYTES] + words[head + S_ARGUMENTS_BYTES]
        if size > inline_bytes(geometry.slot_size):
            chain = slots.request_chain(slot)
            if slots.is_cut(slot) and 0 < (start := chain & at.EXTENT_SLOT_MASK) < len(used):
                words[geometry.column("link") + start] = 0  # its last write, which may be missing
                size = words[head + S_META_BYTES]
            wanted.append((chain, size, state != at.WRITING))
        if at.RUNNING <= state <= at.FAILED and (chain := words[head + S_OUTCOME_CHAIN]):
            size = words[head + S_OUTCOME_BYTES]
            wanted.append((chain, size, state != at.RUNNING))
        if any(words[head + S_METADATA_CHAIN : head + S_TIES_CHAIN + 1].tolist()):  # neighbours
            wanted += self._blocks(slot, state, word)
        used[slot] = 1
        if not wanted:  # as most are
            return 1
        taken = self._take_chains(wanted, at.chain_word(slot, generation))
        used[slot] = taken is not None
        return 1 + taken if taken is not None else 0

    def _blocks(self, slot: int, state: int, word: int) -> list[tuple[int, int, bool]]:
        """Return what `_take_chains` wants to know of a record's blocks."""
        table, words = self._table, self._table.words
        if words[table.ties.word(slot)]:
            if state in at.UNFINISHED:
                self.tied.append(slot)
            elif word >> at.OWNER_SHIFT & at.OWNER_MASK == at.DUE:
                self.due.append(slot)
        named = [
            (words[each.word(slot)], each) for each in (table.metadata, table.history, table.ties)
        ]
        return [(chain, each.block_bytes(chain), True) for chain, each in named if chain]

    def _take_chains(self, wanted: list[tuple[int, int, bool]], owner_word: int) -> int | None:
        """Mark the slots of chains as used, and return how many, None where they do not hold.

        Args:
            wanted: Their first extents, their bytes, and whether they have so many: a chain that is
                still being taken is as long as it is.
            owner_word: The commit word of their slots.
        """
        table, used = self._table, self.used
        runs: list[tuple[int, int]] = []
        for chain, size, whole in wanted:
            count = 0
            for start, length in table.slots.extents(chain, owner_word):
                column = table.words[table.commit + start : table.commit + start + length]
                free = used.find(1, start, start + length) < 0
                if not free or column.tolist().count(owner_word) != length:
                    self._give_back(runs)
                    return None
                used[start : start + length] = b"\x01" * length
                runs.append((start, length))
                count += length
            if whole and count != at.slots_for(size, table.slots.size):
                self._give_back(runs)
                return None
        return sum(length for _, length in runs)

    def _give_back(self, runs: list[tuple[int, int]]) -> None:
        for start, length in runs:
            self.used[start : start + length] = bytes(length)
