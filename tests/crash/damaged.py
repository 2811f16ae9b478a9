"""A furnished ring whose bytes can be put back, and what damages it at random."""

import ctypes
import mmap
import random
import time
from typing import Final

from django_tasks_local.ring import Limits
from django_tasks_local.ring.format import layout as at
from tests.crash.noted import noted_value
from tests.crash.retried import VERY_BUSY, retried_value, retry
from tests.crash.scene import FAR_NS, SLOT, Scene, large_value, small_value

# Three steps of slots, of which one has memory.
LIMITS: Final = Limits(3, 8, 20, SLOT, 3 * at.STEP_SLOTS * (SLOT + 57) + at.COLUMNS_AT + 64_488)


class Damaged(Scene):
    """A ring with records of every kind, most of it without memory."""

    def furnish(self) -> None:
        """Fills it, and remembers the state."""
        self.done(large_value(1), "a" * 1000)
        self.done(small_value(2), ("app.Error", "text"), successful=False)
        self.done(small_value(3), None)
        self.done(noted_value(4), "b" * 30)
        for number in range(3):
            self.enqueue(small_value(5 + number), 50)
        self.claim()
        self.claim()
        self.lose_a_worker()
        self.ring.upkeep.settle_dead()
        self.enqueue(noted_value(10), 5)
        self.enqueue(large_value(11))
        self.enqueue(noted_value(12, 2))
        for number in range(4):
            self.enqueue(small_value(13 + number), due_ns=time.time_ns() + FAR_NS * (number + 1))
        self.enqueue(small_value(17), -3)
        self.enqueue(retried_value(18), 60)
        retry(self)
        self.finish(self.claim(), "c" * 20)
        self.enqueue(retried_value(19, 2), 60)
        retry(self, VERY_BUSY)
        self.reserved = self.ring.counts().reserved_slots
        geometry = self.ring.segment.geometry
        self.places = [(0, at.COLUMNS_AT), *geometry.ranges(0, self.reserved)]
        view = self.ring.segment.bytes
        self.parts = [bytes(view[start : start + size]) for start, size in self.places]
        registry = self.ring.registry
        self.commit_word = registry.field(registry.index, at.E_COMMIT)

    def restore(self) -> None:
        """Puts every byte that has memory back."""
        for (start, size), part in zip(self.places, self.parts, strict=True):
            self.ring.segment.bytes[start : start + size] = part
        self.ring.upkeep.renew_semaphores()

    def commit_words(self) -> list[int]:
        """The commit words of all slots that have memory."""
        commit = self.ring._table.commit
        return self.ring.words[commit : commit + self.reserved].tolist()

    def protect(self) -> None:
        """In a child: what has no memory yet must not be touched."""
        geometry, segment_ = self.ring.segment.geometry, self.ring.segment
        base = ctypes.addressof(ctypes.c_char.from_buffer(segment_._memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

        def each(first: int, end: int, how: int) -> None:
            for start, size in geometry.ranges(first, end):
                low = -(-start // at.PAGE) * at.PAGE
                high = (start + size) // at.PAGE * at.PAGE
                if how:  # what shares a page with it
                    low, high = start // at.PAGE * at.PAGE, -(-(start + size) // at.PAGE) * at.PAGE
                if high > low:
                    assert protect(base + low, high - low, how) == 0

        def reserve_and_open(first: int, end: int) -> None:
            reserve(first, end)
            self.open_up_to(end)

        each(self.reserved, geometry.slots, 0)

        def open_up_to(end: int) -> None:
            each(self.reserved, end, mmap.PROT_READ | mmap.PROT_WRITE)

        self.open_up_to = open_up_to
        reserve = segment_.reserve
        segment_.reserve = reserve_and_open  # type: ignore[method-assign]


def damage(scene: Damaged, rng: random.Random) -> str:
    """Writes over one place, or two; says what it did.

    It passes over what nobody can see: several wrong bits that make another valid commit word of
    the same generation, as every 31st wrong byte at its upper end does.
    """
    while True:
        view, places = scene.ring.segment.bytes, scene.places
        before = [bytes(view[start : start + size]) for start, size in places]
        words = scene.commit_words()
        done = "; ".join(_damage_once(scene, rng) for _ in range(rng.choice((1, 1, 1, 2))))
        if not any(map(_passes_for, words, scene.commit_words())):
            return done
        for (start, size), part in zip(places, before, strict=True):
            view[start : start + size] = part


def _passes_for(before: int, now: int) -> bool:
    """Whether a wrong commit word looks like one of the same record in another state."""
    same = (before ^ now) & at.GENERATION_MASK == 0
    return before != now and before != 0 != now and same and at.is_whole(now)


def _damage_once(scene: Damaged, rng: random.Random) -> str:
    view = scene.ring.segment.bytes
    start, size = rng.choice([(0, at.PAGE), (0, at.PAGE), *scene.places])
    part = bytes(view[start : start + size])
    place = rng.randrange(size)
    if rng.random() < 0.8:  # most of a ring is empty
        used = [n for n in range(0, size, 8) if any(part[n : n + 8])]
        place = (rng.choice(used) if used else 0) + rng.randrange(8)
    place = min(place, size - 1)
    word = place - place % 8
    kind = rng.choice(("bit", "byte", "word", "small", "copy", "ones", "range", "zeros"))
    match kind:
        case "bit":
            data = bytes([part[place] ^ 1 << rng.randrange(8)])
        case "byte":
            data = rng.randbytes(1)
        case "word":
            place, data = word, rng.randbytes(8)
        case "small":  # looks like a link
            place, data = word, rng.randrange(4 * at.STEP_SLOTS).to_bytes(8, "little")
        case "copy":
            other = rng.randrange(0, size, 8)
            place, data = word, part[other : other + 8]
        case "ones":
            place, data = word, b"\xff" * 8
        case "range":
            data = rng.randbytes(rng.choice((16, 64, 300, 5000)))
        case _:
            data = bytes(rng.choice((8, 64, 5000)))
    data = data[: size - place]
    view[start + place : start + place + len(data)] = data
    return f"{kind} at {start + place}: {data[:8].hex()}{'...' if len(data) > 8 else ''}"
