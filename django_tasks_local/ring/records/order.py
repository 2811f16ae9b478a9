"""Which waiting task is next: FIFOs, one for each priority, and a heap of those not yet due.

Each code (see ``codes``) has two lanes of FIFOs, so that a task which only other code may run holds
back nothing.
"""

from array import array
from collections import Counter
from struct import Struct
from typing import Final

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import S_ORIGIN, SINCE_WORD
from django_tasks_local.ring.shm.segment import Segment

# How many deferred records one hold of the lock moves: 0.3 ms in a heap of a million.
PROMOTED_AT_ONCE: Final = 16

_WORD = at.WORD_BITS
# The words of a lane's bitmap, lowest priority first.
_bitmap = Struct("=4Q").unpack
_PRIORITY_BITS: Final = (1 << at.PRIORITIES) - 1
_LANES: Final = range(at.LANES_AT, at.HEADER_BYTES // 8, at.LANE_WORDS)
# By code: its judged lane, the other one's count, and the word up to where it was judged.
_JUDGED: Final = tuple(_LANES[::2])
JUDGED_WAITING: Final = tuple(lane + at.L_WAITING for lane in _JUDGED)
_NEWER: Final = tuple(lane + at.LANE_WORDS + at.L_WAITING for lane in _JUDGED)
_RUNNABLE_UP_TO: Final = tuple(at.code_word(code, at.C_RUNNABLE_UP_TO) for code in range(at.CODES))


# Where a waiting record is: its slot (0: none), and the lane and the FIFO that it is first in.
type Place = tuple[int, int, int]
# The `back` word of a due record: its lane, and the one before it. Of a deferred one: its place in
# the heap.
_LANE_SHIFT: Final = 32
_BEFORE: Final = 2**_LANE_SHIFT - 1
NOWHERE: Final[Place] = 0, 0, 0


class Order:
    """The READY records in the order in which they are to be claimed (all in the lock)."""

    def __init__(self, segment: Segment) -> None:
        geometry = segment.geometry
        self._segment = segment
        self._words = segment.words
        self._bytes = segment.bytes
        self._sequence = geometry.column("sequence")
        self._due = geometry.column("due")
        self._link = geometry.column("link")
        self._back = geometry.column("back")
        self._heap = geometry.column("heap")
        self._slots_at = geometry.slots_at // 8
        self._slot_words = geometry.slot_size // 8

    def append(self, slot: int, lane: int, queue: int) -> None:
        """Put a due record at the end of the FIFO `queue` (priority + 100) of a lane."""
        words = self._words
        last = lane + at.L_TAIL + queue
        tail = words[last]
        words[self._link + slot] = 0
        # For `remove`. That of the first one is not kept up to date: the lane says who is first.
        words[self._back + slot] = lane << _LANE_SHIFT | tail
        if tail:
            if tail >= self._segment.limit:
                self._segment.must_hold(tail)
            words[self._link + tail] = slot
        else:
            words[lane + at.L_HEAD + queue] = slot
            words[lane + at.L_BITMAP + queue // _WORD] |= 1 << queue % _WORD
        words[last] = slot
        words[lane + at.L_WAITING] += 1

    def append_run(self, start: int, length: int, lane: int, queue: int) -> None:
        """Put records in neighbouring slots at the end of a FIFO, as `append` does one."""
        words = self._words
        last = lane + at.L_TAIL + queue
        tail = words[last]
        links = array("Q", range(start + 1, start + length + 1))
        links[-1] = 0
        words[self._link + start : self._link + start + length] = memoryview(links)
        first = lane << _LANE_SHIFT | start
        backs = array("Q", [lane << _LANE_SHIFT | tail, *range(first, first + length - 1)])
        words[self._back + start : self._back + start + length] = memoryview(backs)
        if tail:
            if tail >= self._segment.limit:
                self._segment.must_hold(tail)
            words[self._link + tail] = start
        else:
            words[lane + at.L_HEAD + queue] = start
            words[lane + at.L_BITMAP + queue // _WORD] |= 1 << queue % _WORD
        words[last] = start + length - 1
        words[lane + at.L_WAITING] += length

    def first(self, share: at.Share | None = None) -> Place:
        """Return the next record to claim, of those that `share` allows (None: of all).

        Usually one lane has records, and then nothing is compared.
        """
        words = self._words
        if share is None:
            return self._best([self._head(lane) for lane in _LANES if words[lane + at.L_WAITING]])
        code, runnable_up_to, adopted = share
        if words[_NEWER[code]] or adopted:
            return self._best(self._allowed(share))
        lane = _JUDGED[code]
        # A worker that is slower than its pool's end must not take what a later pool allows.
        if words[lane + at.L_WAITING] and runnable_up_to >= words[_RUNNABLE_UP_TO[code]]:
            return self._head(lane)
        return NOWHERE

    def pop(self, place: Place) -> None:
        """Take the first record out of its FIFO."""
        words = self._words
        slot, lane, queue = place
        words[lane + at.L_HEAD + queue] = rest = words[self._link + slot]
        if not rest:
            words[lane + at.L_TAIL + queue] = 0
            words[lane + at.L_BITMAP + queue // _WORD] &= ~(1 << queue % _WORD)
        words[lane + at.L_WAITING] -= 1

    def remove(self, slot: int) -> None:
        """Take a READY record out, wherever it stands: O(1), of the heap O(log n).

        Raises:
            IndexError: The lists are damaged.
        """
        words = self._words
        back = words[self._back + slot]
        if words[self._due + slot]:
            if back >= words[at.H_DEFERRED] or words[self._heap + back] != slot:
                raise IndexError(f"slot {slot} is not at place {back} of the heap")
            self._pop_heap(back)
            return
        lane, before, after = back >> _LANE_SHIFT, back & _BEFORE, words[self._link + slot]
        if lane not in _LANES:
            raise IndexError(f"slot {slot} is in no lane")
        if max(before, after) >= self._segment.limit:
            self._segment.must_hold(max(before, after))
        queue = min(self._origin(slot) & 0xFF, at.PRIORITIES - 1)
        if words[lane + at.L_HEAD + queue] == slot:
            self.pop((slot, lane, queue))
            return
        if not before or words[self._link + before] != slot:
            raise IndexError(f"slot {slot} does not follow slot {before}")
        words[self._link + before] = after
        if after:
            words[self._back + after] = back
        else:
            words[lane + at.L_TAIL + queue] = before
        words[lane + at.L_WAITING] -= 1

    def waits(self, share: at.Share | None) -> bool:
        """Return whether a look inside is worthwhile though nothing is in the judged lane."""
        return share is not None and bool(self._words[_NEWER[share[0]]] or share[2])

    def waiting(self) -> int:
        """Return how many records were in the lanes a moment ago (outside the lock)."""
        words = self._words
        return sum(words[lane + at.L_WAITING] for lane in _LANES)

    def waiting_in(self, code: int) -> tuple[int, int]:
        """Return how many of a code are in its judged lane, and in the other one; as `waiting`."""
        words = self._words
        return words[_JUDGED[code] + at.L_WAITING], words[_NEWER[code]]

    def fill(
        self, waiting: list[int], deferred: list[int], links: "array[int]", backs: "array[int]"
    ) -> None:
        """Link these records, for a rebuild.

        Args:
            waiting: Those that are due, in the order of their places.
            deferred: The others, sorted by when they fall due and then by place.
            links: The link column, to be written by the caller.
            backs: The back column, likewise.
        """
        words = self._words
        end = at.HEADER_BYTES // 8
        lanes = array("Q", bytes(end * 8))  # as the header counts
        last: dict[int, int] = {}  # by FIFO, as the word of its tail
        for slot in waiting:
            lane, queue = self.lane_of(slot)
            tail = lane + at.L_TAIL + queue
            before = last.get(tail, 0)
            backs[slot] = lane << _LANE_SHIFT | before
            if before:
                links[before] = slot
            else:
                lanes[lane + at.L_HEAD + queue] = slot
                lanes[lane + at.L_BITMAP + queue // _WORD] |= 1 << queue % _WORD
            last[tail] = slot
            lanes[lane + at.L_WAITING] += 1
        for tail, slot in last.items():
            lanes[tail] = slot
            links[slot] = 0
        words[at.LANES_AT : end] = memoryview(lanes)[at.LANES_AT :]
        for place, slot in enumerate(deferred):
            backs[slot] = place
        # What is sorted is a heap.
        words[self._heap : self._heap + len(deferred)] = memoryview(array("Q", deferred))
        words[at.H_DEFERRED] = len(deferred)
        codes = Counter(map(self._deferred_word, deferred))
        for code in range(at.CODES):
            word = at.code_word(code, at.C_DEFERRED)
            words[word] = codes[word]

    def lane_of(self, slot: int) -> tuple[int, int]:
        """Return the lane and the FIFO that a READY record belongs to."""
        origin = self._origin(slot)
        runnable_up_to = self._words[_RUNNABLE_UP_TO[at.code_of(origin)]]
        return at.lane_of(origin, runnable_up_to), min(origin & 0xFF, at.PRIORITIES - 1)

    def defer(self, slot: int) -> None:
        """Put a record into the heap; its `due` word says until when."""
        words = self._words
        place = words[at.H_DEFERRED]
        if place >= self._segment.limit:
            self._segment.must_hold(place)
        words[at.H_DEFERRED] = place + 1
        words[self._deferred_word(slot)] += 1
        self._rise(slot, place)

    def next_due_ns(self) -> int:
        """Return when the first deferred record falls due, Unix ns; 0 where none is deferred."""
        words = self._words
        if not words[at.H_DEFERRED]:
            return 0
        slot = words[self._heap]
        # Asked outside the lock, too. What is damaged is due at once: who goes inside finds out.
        return words[self._due + slot] if slot < self._segment.reserved() else 1

    def promote(self, now_ns: int) -> bool:
        """Move some of what has fallen due to the ends of its FIFOs, in the order of `due`.

        Not all at once: a million may fall due at the same instant.

        Returns:
            Whether more of it is left.
        """
        words = self._words
        for _ in range(PROMOTED_AT_ONCE):
            if not words[at.H_DEFERRED] or self.next_due_ns() > now_ns:
                return False
            words[at.H_DIRTY] = 1
            slot = self._pop_heap()
            words[self._sequence + slot] = tick = words[at.H_TICK]
            words[at.H_TICK] = tick + 1
            since = self._slots_at + slot * self._slot_words + SINCE_WORD
            words[since] = words[self._due + slot]
            words[self._due + slot] = 0  # only now a rebuild sees it as due
            self.append(slot, *self.lane_of(slot))
        return bool(words[at.H_DEFERRED]) and self.next_due_ns() <= now_ns

    def _pop_heap(self, place: int = 0) -> int:
        words, heap, due, limit = self._words, self._heap, self._due, self._segment.limit
        back = self._back
        first: int = words[heap + place]
        size = words[at.H_DEFERRED] - 1
        if max(size, first) >= limit:
            self._segment.must_hold(max(size, first))
            limit = self._segment.limit
        words[self._deferred_word(first)] -= 1
        words[at.H_DEFERRED] = size
        slot = words[heap + size]
        if slot == first:
            return first
        # Down to a leaf along the smaller children, and from there up to where the last record
        # belongs, since that is mostly near: half the comparisons.
        while (child := 2 * place + 1) < size:
            below = words[heap + child]
            if child + 1 < size:
                other = words[heap + child + 1]
                if max(below, other) >= limit:
                    self._segment.must_hold(max(below, other))
                    limit = self._segment.limit
                left, right = words[due + below], words[due + other]
                if right < left or (right == left and self._key(other) < self._key(below)):
                    child, below = child + 1, other
            words[heap + place] = below
            words[back + below] = place
            place = child
        self._rise(slot, place)
        return first

    def _rise(self, slot: int, place: int) -> None:
        """Put a record at a place of the heap, or above, where it belongs."""
        words, heap, back = self._words, self._heap, self._back
        key = self._key(slot)
        while place:
            parent = (place - 1) // 2
            above = words[heap + parent]
            if self._key(above) <= key:
                break
            words[heap + place] = above
            words[back + above] = place
            place = parent
        words[heap + place] = slot
        words[back + slot] = place

    def _head(self, lane: int) -> Place:
        start = (lane + at.L_BITMAP) * 8
        low, middle, high, highest = _bitmap(self._bytes[start : start + 32])
        bits = highest << 3 * _WORD | high << 2 * _WORD | middle << _WORD | low
        queue = (bits & _PRIORITY_BITS).bit_length() - 1
        return (self._words[lane + at.L_HEAD + queue], lane, queue) if queue >= 0 else (0, lane, 0)

    def _allowed(self, share: at.Share) -> list[Place]:
        """Return the first records of all lanes that a share allows, if they are allowed too."""
        words = self._words
        code, runnable_up_to, adopted = share
        lane = _JUDGED[code]
        found = []
        if words[lane + at.L_WAITING] and runnable_up_to >= words[_RUNNABLE_UP_TO[code]]:
            found.append(self._head(lane))
        if words[_NEWER[code]]:
            newer = self._head(lane + at.LANE_WORDS)
            if self._serial(newer) <= runnable_up_to:
                found.append(newer)
        for other in range(at.CODES):
            if adopted >> other & 1 and other != code:
                both = _JUDGED[other], _JUDGED[other] + at.LANE_WORDS
                heads = [self._head(lane) for lane in both if words[lane + at.L_WAITING]]
                # A site of that code may be back: what it enqueues waits for a pool of its own.
                found += [head for head in heads if self._serial(head) <= adopted >> at.CODES]
        return found

    def _best(self, heads: list[Place]) -> Place:
        """Return what comes first by priority, then by place in the order."""
        if len(heads) < 2:
            return heads[0] if heads else NOWHERE
        words, sequence = self._words, self._sequence
        return min(heads, key=lambda head: (-head[2], words[sequence + self._checked(head[0])]))

    def _serial(self, head: Place) -> int:
        return self._origin(self._checked(head[0])) >> 8 & at.SERIAL_MASK

    def _checked(self, slot: int) -> int:
        if slot >= self._segment.limit:
            self._segment.must_hold(slot)
        if not slot:
            raise IndexError("a lane with records has no first one")
        return slot

    def _origin(self, slot: int) -> int:
        word: int = self._words[self._slots_at + slot * self._slot_words + S_ORIGIN]
        return word

    def _deferred_word(self, slot: int) -> int:
        return at.code_word(at.code_of(self._origin(slot)), at.C_DEFERRED)

    def _key(self, slot: int) -> tuple[int, int]:
        if slot >= self._segment.limit:
            self._segment.must_hold(slot)
        return self._words[self._due + slot], self._words[self._sequence + slot]
