"""Which waiting task is next: one FIFO for each priority, and a heap of those not yet due."""

from . import layout as at
from .segment import Segment

_WORD = at.WORD_BITS
# The bitmap's words, highest priority first, with the FIFO that each one's bit 0 stands for.
_BITMAP = [(at.H_BITMAP + n, n * _WORD) for n in (3, 2, 1, 0)]


class Order:
    """The READY records in the order in which they are to be claimed (all in the lock)."""

    def __init__(self, segment: Segment) -> None:
        geometry = segment.geometry
        self._segment = segment
        self._words = segment.words
        self._sequence = geometry.column("sequence")
        self._due = geometry.column("due")
        self._link = geometry.column("link")
        self._heap = geometry.column("heap")
        self._slots_at = geometry.slots_at // 8
        self._slot_words = geometry.slot_size // 8

    def append(self, slot: int, queue: int) -> None:
        """Puts a due record at the end of the FIFO `queue` (priority + 100)."""
        words = self._words
        tail = words[at.H_FIFO_TAIL + queue]
        words[self._link + slot] = 0
        if tail:
            if tail >= self._segment.limit:
                self._segment.must_hold(tail)
            words[self._link + tail] = slot
        else:
            words[at.H_FIFO_HEAD + queue] = slot
            words[at.H_BITMAP + queue // _WORD] |= 1 << queue % _WORD
        words[at.H_FIFO_TAIL + queue] = slot
        words[at.H_WAITING] += 1

    def first(self) -> tuple[int, int]:
        """The next record to claim and its FIFO; (0, 0) where nothing waits."""
        words = self._words
        for bitmap, base in _BITMAP:
            bits = words[bitmap]
            if bits:
                queue = base + bits.bit_length() - 1
                if queue < at.PRIORITIES:
                    return words[at.H_FIFO_HEAD + queue], queue
        return 0, 0

    def pop(self, queue: int) -> None:
        """Takes the first record out of a FIFO."""
        words = self._words
        rest = words[self._link + words[at.H_FIFO_HEAD + queue]]
        words[at.H_FIFO_HEAD + queue] = rest
        if not rest:
            words[at.H_FIFO_TAIL + queue] = 0
            words[at.H_BITMAP + queue // _WORD] &= ~(1 << queue % _WORD)
        words[at.H_WAITING] -= 1

    def defer(self, slot: int) -> None:
        """Puts a record into the heap; its `due` word says until when."""
        words, heap = self._words, self._heap
        place = words[at.H_DEFERRED]
        if place >= self._segment.limit:
            self._segment.must_hold(place)
        words[at.H_DEFERRED] = place + 1
        key = self._key(slot)
        while place:
            parent = (place - 1) // 2
            above = words[heap + parent]
            if self._key(above) <= key:
                break
            words[heap + place] = above
            place = parent
        words[heap + place] = slot

    def next_due_ns(self) -> int:
        """When the first deferred record falls due, unix ns; 0 where none is deferred."""
        words = self._words
        if not words[at.H_DEFERRED]:
            return 0
        slot = words[self._heap]
        # Asked outside the lock, too. What is damaged is due at once: who goes inside finds out.
        return words[self._due + slot] if slot < self._segment.reserved() else 1

    def promote(self, now_ns: int) -> None:
        """Moves what has fallen due to the end of its FIFO."""
        words = self._words
        while words[at.H_DEFERRED] and self.next_due_ns() <= now_ns:
            words[at.H_DIRTY] = 1
            slot = self._pop_heap()
            words[self._sequence + slot] = tick = words[at.H_TICK]
            words[at.H_TICK] = tick + 1
            words[self._due + slot] = 0  # only now a rebuild sees it as due
            self.append(slot, self.queue_of(slot))

    def queue_of(self, slot: int) -> int:
        """The FIFO that a record belongs to."""
        origin = self._words[self._slots_at + slot * self._slot_words + at.S_ORIGIN]
        return min(origin & 0xFF, at.PRIORITIES - 1)

    def _pop_heap(self) -> int:
        words, heap = self._words, self._heap
        first: int = words[heap]
        size = words[at.H_DEFERRED] - 1
        if max(size, first) >= self._segment.limit:
            self._segment.must_hold(max(size, first))
        words[at.H_DEFERRED] = size
        slot = words[heap + size]
        key = self._key(slot)
        place = 0
        while (child := 2 * place + 1) < size:
            if child + 1 < size and self._key(words[heap + child + 1]) < self._key(
                words[heap + child]
            ):
                child += 1
            below = words[heap + child]
            if key <= self._key(below):
                break
            words[heap + place] = below
            place = child
        words[heap + place] = slot
        return first

    def _key(self, slot: int) -> tuple[int, int]:
        if slot >= self._segment.limit:
            self._segment.must_hold(slot)
        return self._words[self._due + slot], self._words[self._sequence + slot]
