"""The audit of what is derived: counts, free map, FIFOs, heap and recency list against the records.

It can be judged only where every record is whole; see `audit`.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from django_tasks_local.exceptions import StoreUnavailable, counted
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records.follow_ups import MOST_HANDOVER

from .tallies import tally_problems

if TYPE_CHECKING:
    from .records import Audit


def derived_problems(audit: Audit) -> list[str]:
    """Return what is wrong with all that can be rebuilt from the records."""
    states = audit.states
    finished = [slot for state in at.FINISHED for slot in states[state]]
    deferred = [slot for slot in states[at.READY] if audit.words[audit.table.due + slot]]
    heads = set(finished)
    discarded = audit.table.slots.discarded()
    counts = (
        ("UNFINISHED", at.H_UNFINISHED, sum(len(states[state]) for state in at.UNFINISHED)),
        ("RUNNING", at.H_RUNNING, len(states[at.RUNNING])),
        ("FINISHED", at.H_FINISHED, len(finished)),
        ("DEFERRED", at.H_DEFERRED, len(deferred)),
        ("FREE", at.H_FREE, audit.owner.count(0) - 1 - len(discarded)),
        ("FINISHED_SLOTS", at.H_FINISHED_SLOTS, sum(head in heads for head in audit.owner)),
    )
    problems = [
        f"{name} is {audit.words[word]}, but {found} are there"
        for name, word, found in counts
        if audit.words[word] != found
    ]
    problems += _sequence_problems(audit)
    problems += _map_problems(audit, discarded)
    problems += _lane_problems(audit, set(states[at.READY]) - set(deferred))
    problems += _deferred_problems(audit, deferred)
    problems += _heap_problems(audit, set(deferred))
    problems += _recency_problems(audit, heads)
    problems += [
        f"row {index} of the schedule has FIRING, and nobody fires"
        for index in audit.table.schedule.firing()
    ]
    problems += _keys_problems(audit)
    problems += _handover_problems(audit, len(discarded))
    return problems + tally_problems(audit)


def _handover_problems(audit: Audit, discarded: int) -> list[str]:
    tied = [
        slot
        for state in at.UNFINISHED
        for slot in audit.states[state]
        if audit.words[audit.table.ties.word(slot)]
    ]
    handover, needed = audit.words[at.H_HANDOVER], audit.follow_ups.largest_handover(tied)
    spare = audit.words[at.H_FREE] + audit.words[at.H_FINISHED_SLOTS] + discarded
    problems = []
    if not needed <= handover <= MOST_HANDOVER:
        wanted = f"{needed} to {MOST_HANDOVER} slots"
        problems.append(f"HANDOVER is {handover}, and follow-ups need {wanted}")
    if spare < needed:  # one would be dropped, see `FollowUps.end`
        problems.append(f"{spare} slots can be made free, and follow-ups need {needed}")
    return problems


def _sequence_problems(audit: Audit) -> list[str]:
    words, tick = audit.words, audit.words[at.H_TICK]
    problems = [] if 0 < tick <= at.GENERATION_MASK else [f"TICK is {tick}"]
    for state, slots in audit.states.items():
        for slot in slots:
            generation = audit.column[slot] & at.GENERATION_MASK
            sequence = words[audit.table.sequence + slot]
            if generation >= tick:
                problems.append(f"slot {slot} has generation {generation}, and TICK is {tick}")
            if state != at.WRITING and sequence >= tick:
                problems.append(f"slot {slot} has sequence {sequence}, and TICK is {tick}")
    return problems


def _map_problems(audit: Audit, discarded: list[int]) -> list[str]:
    both = [slot for slot in discarded if audit.owner[slot]]
    if both:
        return [
            f"slot {both[0]} was given up, and the record of slot {audit.owner[both[0]]} has it"
        ]
    if len(set(discarded)) != len(discarded):
        return ["a slot was given up twice"]
    base = audit.table.geometry.map_at
    found = bytes(audit.table.bytes[base : base + audit.reserved])
    given_up = set(discarded)
    wanted = bytes(head != 0 or slot in given_up for slot, head in enumerate(audit.owner))
    # Slot 0 may be marked or not: it is never handed out.
    wrong = [slot for slot in range(1, audit.reserved) if found[slot] != wanted[slot]]
    if not wrong:
        return []
    first = wrong[0]
    return [
        f"the free map is wrong for {counted(len(wrong), 'slot')}, the first is slot {first}: it "
        f"says {found[first]}, and the record of slot {audit.owner[first]} occupies it (0: none)"
    ]


def _walk(audit: Audit, start: int, link: int) -> list[int]:
    """Return the slots of a linked list, up to one that is out of bounds or there already."""
    path: list[int] = []
    seen: set[int] = set()
    slot = start
    while 0 < slot < audit.reserved and slot not in seen:
        path.append(slot)
        seen.add(slot)
        slot = audit.words[link + slot]
    return path


def _lane_problems(audit: Audit, ready: set[int]) -> list[str]:
    problems: list[str] = []
    met: set[int] = set()
    for lane in range(at.LANES):
        problems += _fifo_problems(audit, lane, ready, met)
    return problems + [f"slot {slot} waits in no FIFO" for slot in sorted(ready - met)]


def _fifo_problems(audit: Audit, lane: int, ready: set[int], met: set[int]) -> list[str]:
    """Return what is wrong with a lane's FIFOs; the records in them are put into `met`."""
    words, table = audit.words, audit.table
    problems: list[str] = []
    link = table.geometry.column("link")
    start = at.LANES_AT + lane * at.LANE_WORDS
    block = words[start : start + at.LANE_WORDS].tolist()
    if not any(block):  # as those of most codes are
        return problems
    found = 0
    for queue in range(at.PRIORITIES):
        head, tail = block[at.L_HEAD + queue], block[at.L_TAIL + queue]
        marked = block[at.L_BITMAP + queue // at.WORD_BITS] >> queue % at.WORD_BITS & 1
        if not (head or tail or marked):
            continue
        name = f"FIFO {queue + at.LOWEST_PRIORITY} of lane {lane}"
        if marked != (head != 0):
            problems.append(f"{name} starts at slot {head}, and its bit is {marked}")
        path = _walk(audit, head, link)
        end = path[-1] if path else 0
        if end != tail or (end and words[link + end]):
            problems.append(f"{name} ends at slot {end}, and its tail is slot {tail}")
        problems += [
            f"{name} has slot {slot} ({audit.describe(slot)}), wrongly"
            for slot in path
            if slot not in ready or slot in met or not _belongs(audit, slot, start, queue)
        ]
        problems += _disorder(audit, name, path)
        problems += _back_problems(audit, name, start, path)
        met.update(path)
        found += len(path)
    if block[at.L_BITMAP + 3] >> at.PRIORITIES % at.WORD_BITS:
        problems.append(f"the bitmap of lane {lane} has bits of priorities that do not exist")
    if block[at.L_WAITING] != found:
        problems.append(f"WAITING of lane {lane} is {block[at.L_WAITING]}, but {found} are there")
    return problems


def _back_problems(audit: Audit, name: str, lane: int, path: list[int]) -> list[str]:
    """Return what is wrong with the words by which a record is taken out of its FIFO."""
    back, words = audit.table.geometry.column("back"), audit.words
    return [
        f"{name} has slot {slot}, whose back word is {words[back + slot]:#x}"
        for before, slot in pairwise([0, *path])
        if words[back + slot] >> 32 != lane or (before and words[back + slot] & 2**32 - 1 != before)
    ]


def _belongs(audit: Audit, slot: int, lane: int, queue: int) -> bool:
    """Return whether a record may be in a lane: a judged one may still be among newer ones."""
    right, its_queue = audit.table.order.lane_of(slot)
    newer = (lane - at.LANES_AT) // at.LANE_WORDS % 2 and lane - at.LANE_WORDS == right
    return its_queue == queue and bool(lane == right or newer)


def _deferred_problems(audit: Audit, deferred: list[int]) -> list[str]:
    found = Counter(at.code_of(audit.table.head(slot).origin) for slot in deferred)
    return [
        f"DEFERRED of code {code} is {word}, but {found[code]} are there"
        for code in range(at.CODES)
        if (word := audit.words[at.code_word(code, at.C_DEFERRED)]) != found[code]
    ]


def _disorder(audit: Audit, name: str, path: list[int]) -> list[str]:
    sequence = audit.table.sequence
    return [
        f"{name} has slot {before} before slot {after}, against their sequence"
        for before, after in pairwise(path)
        if audit.words[sequence + before] >= audit.words[sequence + after]
    ]


def _heap_problems(audit: Audit, deferred: set[int]) -> list[str]:
    words, table = audit.words, audit.table
    heap = table.geometry.column("heap")
    size = min(words[at.H_DEFERRED], audit.reserved)
    slots = words[heap : heap + size].tolist()
    problems = [
        f"the heap has slot {slot} at place {place}, wrongly"
        for place, slot in enumerate(slots)
        if slot not in deferred
    ]
    if len(set(slots)) != len(slots):
        problems.append("the heap has a slot twice")
    if problems:
        return problems
    keys = [(words[table.due + slot], words[table.sequence + slot]) for slot in slots]
    problems = [
        f"the heap's place {place} is due before its parent"
        for place in range(1, len(keys))
        if keys[(place - 1) // 2] > keys[place]
    ]
    back = table.geometry.column("back")
    problems += [
        f"slot {slot} is at place {place} of the heap, and says {words[back + slot]}"
        for place, slot in enumerate(slots)
        if words[back + slot] != place
    ]
    return problems + [f"slot {s} is deferred in no heap" for s in sorted(deferred - set(slots))]


def _hand_problems(audit: Audit, path: list[int]) -> list[str]:
    words, slots = audit.words, audit.table.slots
    hand = words[at.H_HAND]
    if hand and hand not in path:
        return [f"HAND is slot {hand}, which is not in the recency list"]
    return [
        f"slot {slot} has arguments to drop, and HAND is behind it"
        for slot in path[: path.index(hand) + 1 if hand else 0]
        if slots.request_chain(slot) != slots.meta_chain(slot, slots.request_chain(slot))
    ]


def _recency_problems(audit: Audit, finished: set[int]) -> list[str]:
    words, geometry = audit.words, audit.table.geometry
    link, back = geometry.column("link"), geometry.column("back")
    path = _walk(audit, words[at.H_OLDEST], link)
    end = path[-1] if path else 0
    problems = _disorder(audit, "the recency list", path)
    if end != words[at.H_NEWEST] or (end and words[link + end]):
        problems.append(f"the recency list ends at slot {end}, not at {words[at.H_NEWEST]}")
    for before, slot in pairwise([0, *path]):
        if words[back + slot] != before:
            problems.append(f"slot {slot} has {words[back + slot]} for older, not {before}")
    problems += [
        f"the recency list has slot {slot} ({audit.describe(slot)})"
        for slot in path
        if slot not in finished
    ]
    problems += _hand_problems(audit, path)
    lost = sorted(finished - set(path))
    return problems + [f"slot {slot} is finished in no list" for slot in lost]


def _keys_problems(audit: Audit) -> list[str]:
    """Return what is wrong with the hash table of keys, and with the keys themselves."""
    keys, states = audit.table.keys, audit.states
    keyed = {slot for slot in (*states[at.READY], *states[at.RUNNING]) if keys.has_key(slot)}
    count = audit.words[at.H_KEYED]
    if count != len(keyed):
        return [f"KEYED is {count}, but {len(keyed)} are there"]
    owners: dict[bytes, int] = {}
    problems = []
    for slot in sorted(keyed):
        other = owners.setdefault(keys.key(slot), slot)
        if other != slot:
            problems.append(f"slot {slot} has the key of slot {other}")
    try:
        met = [(number, slot) for number in range(count) for slot in keys.bucket(number)]
    except (IndexError, StoreUnavailable):
        return [*problems, "a bucket of the keys never ends"]
    problems += [
        f"bucket {number} of the keys has slot {slot} ({audit.describe(slot)}), wrongly"
        for number, slot in met
        if slot not in keyed or keys.bucket_of(keys.key(slot)) != number
    ]
    if len(met) != len({slot for _, slot in met}):
        problems.append("the keys have a slot twice")
    lost = sorted(keyed - {slot for _, slot in met})
    return problems + [f"slot {slot} has a key and is in no bucket" for slot in lost]
