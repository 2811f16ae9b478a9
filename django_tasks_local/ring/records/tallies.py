"""The tallies of a ring: which task has which, and how its records are counted (see ``tally``)."""

from bisect import bisect_left
from typing import Final

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format import tally
from django_tasks_local.ring.format.head import (
    S_ENQUEUED_AT,
    S_ORIGIN,
    S_STARTED_AT,
    SINCE_WORD,
)
from django_tasks_local.ring.shm.segment import Segment

from .loss import Loss, reason

# From an ORIGIN to how far its tally is from tally 0, which is none.
_ORIGIN_SHIFT: Final = at.TALLY_SHIFT - at.TALLY_BITS
_TALLY_MASK: Final = at.TALLIES - 1 << at.TALLY_BITS
_LOST_AS: Final = {Loss.TIMED_OUT: tally.TIMEOUT, Loss.CANCELLED: tally.CANCELLED}


# What was noted, and follows the store of a commit word: the word of the count and what that is to
# be, likewise of its sum, 0 where it has none. None: the record is not counted.
type Noted = tuple[int, int, int, int] | None


class Tallies:
    """The tallies of a ring."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._words = segment.words
        self._bytes = segment.bytes
        self._commit = segment.geometry.column("commit")
        self._slots_at = segment.geometry.slots_at // 8
        self._slot_words = segment.geometry.slot_size // 8

    # --- which task has which -----------------------------------------------------------------

    def find(self, name: bytes) -> int | None:
        """Return the number of a name's tally; None where it could be given one (no lock)."""
        if not 0 < len(name) <= tally.NAME_BYTES:
            return tally.OTHERS
        for number in range(tally.FIRST_NAMED, at.TALLIES):
            size = self._words[tally.word_of(number, tally.K_NAME_BYTES)]
            if not size:
                return None
            if size == len(name) and self._name(number, size) == name:
                return number
        return tally.OTHERS

    def give(self, name: bytes) -> int:
        """Return the number of a name's tally, and give it the next one if it has none (lock)."""
        words, number = self._words, self.find(name)
        if number is None:
            number = 1 + self._last_named()
            start = tally.word_of(number, tally.K_NAME) * 8
            self._bytes[start : start + len(name)] = name
            words[tally.word_of(number, tally.K_NAME_BYTES)] = len(name)
        words[at.H_TALLIED] = 1
        return number

    def are_in_use(self) -> bool:
        """Return whether any was given, and claims and ends are counted (no lock)."""
        return bool(self._words[at.H_TALLIED])

    def read(self) -> list[tally.Tally]:
        """Return the tallies that have names, and first that of the others (no lock, 0.3 ms)."""
        return [self._read(number) for number in range(tally.OTHERS, self._last_named() + 1)]

    def _last_named(self) -> int:
        sizes = self._words[at.TALLIES_AT : at.TALLIES_END : at.TALLY_WORDS].tolist()
        named = (n for n in range(tally.FIRST_NAMED, at.TALLIES) if not sizes[n])
        return next(named, at.TALLIES) - 1

    def _read(self, number: int) -> tally.Tally:
        start = tally.word_of(number, 0)
        words: list[int] = self._words[start : start + at.TALLY_WORDS].tolist()
        name = self._name(number, words[tally.K_NAME_BYTES])
        task, _, queue = name.decode("utf-8", "replace").partition("\0")
        buckets = (
            words[first : first + tally.BUCKETS]
            for first in range(tally.K_RAN, tally.K_END, tally.BUCKETS)
        )
        return tally.Tally(
            task, queue, words[tally.K_ENQUEUED], words[tally.K_TAKEN_OUT],
            words[tally.K_WAITED : tally.K_RAN], words[tally.K_WAITED_NS],
            dict(zip(tally.OUTCOMES, buckets, strict=True)), words[tally.K_RAN_NS],
        )  # fmt: skip

    def _name(self, number: int, size: int) -> bytes:
        start = tally.word_of(number, tally.K_NAME) * 8
        return bytes(self._bytes[start : start + min(size, tally.NAME_BYTES)])

    # --- counting: in the lock, `note_…` right before the store of W, `count` right behind it ----

    def note_enqueue(self, slot: int, many: int = 1) -> Noted:
        """Note that a record, or several of one task in neighbouring slots, are to be READY."""
        return self._note(tally.K_ENQUEUED, slot, many)

    def note_cancel(self, slot: int) -> Noted:
        """Note that a READY record is to be LOST."""
        return self._note(tally.K_TAKEN_OUT, slot)

    def note_start(self, slot: int, now_ns: int) -> Noted:
        """Note that a READY record is to be RUNNING."""
        words, head = self._words, self._slots_at + slot * self._slot_words
        since_ns = words[head + SINCE_WORD]
        if not 0 < since_ns < at.KEYED:  # else it is the name of its batch
            since_ns = words[head + S_ENQUEUED_AT]
        return self._note_time(tally.K_WAITED, tally.K_WAITED_NS, slot, now_ns - since_ns)

    def note_end(self, slot: int, outcome: int, now_ns: int) -> Noted:
        """Note that the attempt of a RUNNING record is to be over."""
        started_ns = self._words[self._slots_at + slot * self._slot_words + S_STARTED_AT]
        return self._note_time(outcome, tally.K_RAN_NS, slot, now_ns - started_ns)

    def count(self, noted: Noted) -> None:
        """Count what was noted, if it is to be counted, now that W is stored."""
        if noted is not None:
            word, number, sum_word, total_ns = noted
            self._words[word] = number
            if sum_word:
                self._words[sum_word] = total_ns

    def complete(self) -> None:
        """Count what DIRTY notes if its W was stored: for a rebuild, before it changes DIRTY."""
        note = self._words[at.H_DIRTY]
        word = note >> tally.NOTE_WORD_SHIFT & tally.NOTE_WORD_MASK
        slot, many = note & tally.NOTE_SLOT_MASK, 1 + (note >> tally.NOTE_MORE_SHIFT)
        # Else nothing was being counted, or the note is damaged.
        if at.TALLIES_AT <= word < at.TALLIES_END and 0 < slot <= self._segment.reserved() - many:
            states, words = tally.states_of(word), self._words
            column = words[self._commit + slot : self._commit + slot + many].tolist()
            if stored := sum(each >> at.STATE_SHIFT in states for each in column):
                sum_word = tally.sum_of(word)
                self.count((word, words[at.H_COUNTED] + stored, sum_word, words[at.H_SUMMED]))

    def _note(self, which: int, slot: int, many: int = 1) -> Noted:
        words = self._words
        origin = words[self._slots_at + slot * self._slot_words + S_ORIGIN]
        tally_at = origin >> _ORIGIN_SHIFT & _TALLY_MASK
        if not tally_at:
            return None
        word = tally_at + at.TALLIES_AT + which
        words[at.H_DIRTY] = 1  # what was noted before is counted
        words[at.H_COUNTED] = counted = words[word]
        more = many - 1 << tally.NOTE_MORE_SHIFT
        words[at.H_DIRTY] = more | word << tally.NOTE_WORD_SHIFT | slot
        return word, counted + many, 0, 0

    def _note_time(self, first: int, total: int, slot: int, took_ns: int) -> Noted:
        # As `_note`, once more: this is called twice for each task.
        words = self._words
        origin = words[self._slots_at + slot * self._slot_words + S_ORIGIN]
        tally_at = origin >> _ORIGIN_SHIFT & _TALLY_MASK
        if not tally_at:
            return None
        if not 0 <= took_ns <= tally.LONGEST_NS:
            took_ns = 0
        tally_at += at.TALLIES_AT
        word = tally_at + first + bisect_left(tally.BOUNDS_NS, took_ns)
        words[at.H_DIRTY] = 1  # what was noted before is counted
        words[at.H_COUNTED] = counted = words[word]
        words[at.H_SUMMED] = total_ns = words[tally_at + total] + took_ns
        words[at.H_DIRTY] = word << tally.NOTE_WORD_SHIFT | slot
        return word, counted + 1, tally_at + total, total_ns


def lost_as(loss: int) -> int:
    """Return which outcome a `loss_word` stands for."""
    told = reason(loss)
    return next((outcome for each, outcome in _LOST_AS.items() if each == told), tally.LOST)
