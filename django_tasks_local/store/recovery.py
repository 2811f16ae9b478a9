"""What is done after a death: reap what a process left behind, rebuild what is derived.

Both run inside the mutex, and both may die half-way themselves: the next one starts again.
"""

import time
import zlib

from . import layout as at
from .table import Table


def settle(table: Table, slot: int, index: int, loss: int, keep: int) -> int:
    """Settles one record that a dead process left; the slot where a task was lost, else 0.

    Args:
        table: The records.
        slot: The record's head slot; any slot may be given.
        index: The dead process's entry.
        loss: A `loss_word` for a task that it ran.
        keep: MAX_RESULTS.
    """
    words = table.words
    if table.is_run_by(slot, index):
        lose(table, slot, loss, keep)
        return slot
    if table.is_owned_by(slot, index, at.WRITING):
        words[at.H_DIRTY] = 1
        table.free(slot)
        words[at.H_UNFINISHED] -= 1
    return 0


def owned_by(table: Table, index: int) -> list[int]:
    """The head slots that an entry owns (outside the lock: for a dead one, whose do not change)."""
    reserved = table.slots.reserved()
    column = table.words[table.commit : table.commit + reserved].tolist()
    owned = at.WRITING, at.RUNNING
    return [
        slot
        for slot, word in enumerate(column)
        if word >> at.STATE_SHIFT in owned and word >> at.OWNER_SHIFT & at.OWNER_MASK == index
    ]


def lose(table: Table, slot: int, loss: int, keep: int) -> None:
    """Makes a RUNNING record LOST."""
    words = table.words
    words[at.H_DIRTY] = 1
    head = table.head(slot)
    finished_at_ns = time.time_ns()
    crc = zlib.crc32(at.OUTCOME.pack(finished_at_ns, loss, 0), head.claim_crc ^ at.LOST)
    outcome_chain = head.outcome_chain
    word = table.offset(slot) // 8
    words[word + at.S_FINISHED_AT] = finished_at_ns
    words[word + at.S_OUTCOME_BYTES] = loss
    words[word + at.S_OUTCOME_CRC] = crc
    table.recency.stamp(slot)
    words[table.commit + slot] = at.head_word(at.LOST, head.generation)
    if outcome_chain:  # a result that its worker was still copying
        words[word + at.S_OUTCOME_CHAIN] = 0
        table.slots.discard(outcome_chain)
    words[at.H_LOST] += 1
    table.link_finished(slot, table.slots_of(slot), keep)


def rebuild(table: Table) -> list[str]:
    """Makes everything derived anew from the commit words: one scan, about 2 us a record.

    It copes with any bytes: what does not hold together is dropped.

    Returns:
        What had to be dropped, a sentence each. A death leaves nothing of that kind.
    """
    words, slots = table.words, table.slots
    words[at.H_DIRTY] = 1
    if not slots.reserved():
        slots.restore_reserved()
    reserved = slots.reserved()
    column = words[table.commit : table.commit + reserved].tolist()
    used = bytearray(reserved)
    used[0] = 1  # slot 0 is never handed out
    by_state: dict[int, list[int]] = {state: [] for state in range(at.READY, at.CHAIN)}
    by_state[at.WRITING] = []
    finished_slots = 0
    dropped = []
    for slot, word in enumerate(column):
        state = word >> at.STATE_SHIFT
        if word == 0 or state == at.CHAIN or slot == 0:
            continue
        known = state in by_state and at.is_whole(word) and _is_of_its_head(table, slot, word)
        size = _claim_slots(table, slot, column, used) if known else 0
        if size:
            by_state[state].append(slot)
            finished_slots += size if state in at.FINISHED else 0
            continue
        words[table.commit + slot] = 0
        if state != at.WRITING:  # whose writer may have died before its chain was whole
            dropped.append(f"slot {slot} held a record whose slots do not hold: dropped")
    table.bytes[table.geometry.map_at : table.geometry.map_at + reserved] = used
    words[at.H_TICK] = _next_tick(table, [s for each in by_state.values() for s in each])
    words[at.H_FREE] = used.count(0)
    words[at.H_CURSOR] = 1
    words[at.H_DISCARDED] = 0
    words[at.H_FINISHED_SLOTS] = finished_slots
    words[at.H_RUNNING] = len(by_state[at.RUNNING])
    words[at.H_UNFINISHED] = sum(len(by_state[state]) for state in at.UNFINISHED)
    _rebuild_recency(table, [s for state in at.FINISHED for s in by_state[state]])
    _rebuild_order(table, by_state[at.READY])
    return dropped


def _is_of_its_head(table: Table, slot: int, word: int) -> bool:
    """Whether a commit word's generation is one that the ring has, and that of its record."""
    generation = word & at.GENERATION_MASK
    if word >> at.STATE_SHIFT == at.WRITING:  # whose head comes last
        return generation < at.BEYOND_ANY_TICK
    return bool(
        generation == table.words[table.offset(slot) // 8 + at.S_GENERATION]
        and generation < at.BEYOND_ANY_TICK
    )


def _next_tick(table: Table, heads: list[int]) -> int:
    """A number above every generation and every place in an order."""
    words = table.words
    tick: int = words[at.H_TICK]
    if not 0 < tick < at.BEYOND_ANY_TICK:
        tick = 1
    for slot in heads:
        generation = words[table.commit + slot] & at.GENERATION_MASK
        if words[table.sequence + slot] >= at.BEYOND_ANY_TICK:  # damage, and no longer a place
            words[table.sequence + slot] = generation
        tick = max(tick, generation + 1, words[table.sequence + slot] + 1)
    return tick


def _claim_slots(table: Table, slot: int, column: list[int], used: bytearray) -> int:
    """Marks a record's slots as used; how many they are, 0 where its chains do not hold."""
    word = table.offset(slot) // 8
    owner_word = table.owner_word(slot)
    payload = table.words[word + at.S_META_BYTES] + table.words[word + at.S_ARGUMENTS_BYTES]
    state = table.state(slot)
    wanted = []
    if payload > table.geometry.inline_bytes:
        wanted.append((table.words[word + at.S_ARGUMENTS_CHAIN], payload, state != at.WRITING))
    if state in (at.SUCCESSFUL, at.FAILED, at.RUNNING):
        chain = table.words[word + at.S_OUTCOME_CHAIN]
        if chain:
            size = table.words[word + at.S_OUTCOME_BYTES]
            wanted.append((chain, size, state != at.RUNNING))
    if not wanted and not used[slot]:  # as most are
        used[slot] = 1
        return 1
    taken = [slot]
    for chain, size, whole in wanted:
        found = [
            each
            for start, length in table.slots.extents(chain, owner_word)
            for each in range(start, start + length)
        ]
        # A chain that is still being taken is as long as it is.
        if whole and len(found) != at.slots_for(size, table.slots.size):
            return 0
        taken += found
    if any(column[each] != owner_word for each in taken[1:]):
        return 0
    if any(map(used.__getitem__, taken)) or len(set(taken)) != len(taken):
        return 0
    for each in taken:
        used[each] = 1
    return len(taken)


def _rebuild_recency(table: Table, finished: list[int]) -> None:
    words = table.words
    finished.sort(key=lambda slot: words[table.sequence + slot])
    words[at.H_OLDEST] = words[at.H_NEWEST] = 0
    words[at.H_FINISHED] = len(finished)
    for slot in finished:
        table.recency.append(slot)


def _rebuild_order(table: Table, ready: list[int]) -> None:
    words = table.words
    table.order.clear()
    ready.sort(key=lambda slot: words[table.sequence + slot])
    for slot in ready:
        if words[table.due + slot]:
            table.order.defer(slot)
        else:
            table.order.append(slot, *table.order.lane_of(slot))
