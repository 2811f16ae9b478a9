"""What a ring derives from its commit words, in a form that can be compared."""

from collections import defaultdict
from itertools import compress
from typing import Any

from django_tasks_local.ring import Ring
from django_tasks_local.ring.format import layout as at


def derived(ring: Ring) -> dict[str, Any]:
    """All that is derived from the commit words, in a form that can be compared."""
    table, words = ring._table, ring.words
    # A task goes from one lane of its code into the other when its code may run.
    waiting: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for code in range(at.CODES):
        for lane in (0, 1):
            first = at.LANES_AT + (2 * code + lane) * at.LANE_WORDS + at.L_HEAD
            heads = words[first : first + at.PRIORITIES].tolist()
            for queue in compress(range(at.PRIORITIES), heads):
                waiting[code, queue] += _walk(ring, heads[queue])
    heap = table.geometry.column("heap")
    reserved = table.slots.reserved()
    place = table.geometry.map_at
    return {
        "waiting": {
            place: sorted(slots, key=lambda slot: words[table.sequence + slot])
            for place, slots in waiting.items()
        },
        "heap": sorted(words[heap : heap + words[at.H_DEFERRED]].tolist()),
        "recency": _walk(ring, words[at.H_OLDEST]),
        "newest": words[at.H_NEWEST],
        "keys": sorted(slot for n in range(words[at.H_KEYED]) for slot in table.keys.bucket(n)),
        "map": bytes(ring.segment.bytes[place + 1 : place + reserved]),
        "counts": [
            words[n]
            for n in (
                at.H_FREE, at.H_DEFERRED, at.H_RUNNING, at.H_FINISHED,
                at.H_FINISHED_SLOTS, at.H_UNFINISHED,
            )
        ],
    }  # fmt: skip


def _walk(ring: Ring, slot: int) -> list[int]:
    link = ring._table.geometry.column("link")
    slots = []
    while slot:
        slots.append(slot)
        slot = ring.words[link + slot]
    return slots
