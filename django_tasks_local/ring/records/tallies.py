"""The tallies of a ring: which task has which, and how its records are counted (see ``tally``)."""

from bisect import bisect_left
from typing import Final, NamedTuple

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

_LOST_AS: Final = {Loss.TIMED_OUT: tally.TIMEOUT, Loss.CANCELLED: tally.CANCELLED}


class Counted(NamedTuple):
    """A count that was noted, and follows the store of a commit word."""

    word: int
    sum_word: int  # 0: it has none
    many: int


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

    def note_enqueue(self, slot: int, many: int = 1) -> Counted | None:
        """Note that a record, or several of one task in neighbouring slots, are to be READY."""
        number = self._number(slot)
        return self._note(tally.word_of(number, tally.K_ENQUEUED), slot, 0, many)

    def note_start(self, slot: int, now_ns: int) -> Counted | None:
        """Note that a READY record is to be RUNNING."""
        words, head = self._words, self._slots_at + slot * self._slot_words
        since_ns = words[head + SINCE_WORD]
        if not 0 < since_ns < at.KEYED:  # else it is the name of its batch
            since_ns = words[head + S_ENQUEUED_AT]
        return self._note_time(tally.K_WAITED, slot, now_ns - since_ns)

    def note_end(self, slot: int, outcome: int, now_ns: int) -> Counted | None:
        """Note that the attempt of a RUNNING record is to be over."""
        started_ns = self._words[self._slots_at + slot * self._slot_words + S_STARTED_AT]
        return self._note_time(outcome, slot, now_ns - started_ns)

    def note_cancel(self, slot: int) -> Counted | None:
        """Note that a READY record is to be LOST."""
        return self._note(tally.word_of(self._number(slot), tally.K_TAKEN_OUT), slot, 0)

    def count(self, counted: Counted | None) -> None:
        """Count what was noted, if it is to be counted, now that W is stored."""
        if counted is not None:
            words = self._words
            word, sum_word, many = counted
            words[word] = words[at.H_COUNTED] + many
            if sum_word:
                words[sum_word] = words[at.H_SUMMED]

    def complete(self) -> None:
        """Count what DIRTY notes if its W was stored: for a rebuild, before it changes DIRTY."""
        note = self._words[at.H_DIRTY]
        word = note >> tally.NOTE_WORD_SHIFT & tally.NOTE_WORD_MASK
        slot, many = note & tally.NOTE_SLOT_MASK, 1 + (note >> tally.NOTE_MORE_SHIFT)
        # Else nothing was being counted, or the note is damaged.
        if at.TALLIES_AT <= word < at.TALLIES_END and 0 < slot <= self._segment.reserved() - many:
            states = tally.states_of(word)
            column = self._words[self._commit + slot : self._commit + slot + many].tolist()
            if stored := sum(each >> at.STATE_SHIFT in states for each in column):
                self.count(Counted(word, tally.sum_of(word), stored))

    def _note_time(self, first: int, slot: int, took_ns: int) -> Counted | None:
        if not 0 <= took_ns <= tally.LONGEST_NS:
            took_ns = 0
        which = first + bisect_left(tally.BOUNDS_NS, took_ns)
        return self._note(tally.word_of(self._number(slot), which), slot, took_ns)

    def _note(self, word: int, slot: int, took_ns: int, many: int = 1) -> Counted | None:
        if word < at.TALLIES_AT + at.TALLY_WORDS:  # it has no tally
            return None
        words = self._words
        words[at.H_COUNTED] = words[word]
        if sum_word := tally.sum_of(word):
            words[at.H_SUMMED] = words[sum_word] + took_ns
        words[at.H_DIRTY] = (
            many - 1 << tally.NOTE_MORE_SHIFT | word << tally.NOTE_WORD_SHIFT | slot
        )  # fmt: skip
        return Counted(word, sum_word, many)

    def _number(self, slot: int) -> int:
        return tally.number_in(self._words[self._slots_at + slot * self._slot_words + S_ORIGIN])


def lost_as(loss: int) -> int:
    """Return which outcome a `loss_word` stands for."""
    told = reason(loss)
    return next((outcome for each, outcome in _LOST_AS.items() if each == told), tally.LOST)
