"""The schedule in a ring: a row for each periodic task, with the last time that is settled.

Changes are made in the lock. A row is found by its name, whose word is stored last and cleared
first.
"""

from typing import Final, NamedTuple

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import S_ID_HIGH, S_ID_LOW
from django_tasks_local.ring.format.ids import slot_of_id
from django_tasks_local.ring.shm.segment import Segment

_END: Final = at.SCHEDULE_AT + at.ROWS * at.ROW_WORDS


class Row(NamedTuple):
    """A row as it was read at one moment. Times are Unix ns, 0 for never.

    Attributes:
        number: Which row of the table it is.
        name: The number of its periodic task's name.
        timing: The number of its times.
        settled_ns: Times up to here have fired, or never will.
        last_ns: The time for which it fired last.
        id_high, id_low: The result id of that run.
        skipped: How many times came while an earlier run was not over.
    """

    number: int
    name: int
    timing: int
    settled_ns: int
    last_ns: int
    id_high: int
    id_low: int
    skipped: int


class ScheduleRows:
    """The rows, and the records that they lead to."""

    def __init__(self, segment: Segment) -> None:
        geometry = segment.geometry
        self._segment = segment
        self._words = segment.words
        self._commit = geometry.column("commit")
        self._slots_at = geometry.slots_at
        self._size = geometry.slot_size

    def rows(self) -> list[Row]:
        """Return the rows in use (40 µs for all; no lock needed)."""
        words: list[int] = self._words[at.SCHEDULE_AT : _END].tolist()
        return [
            Row(index, *words[start : start + at.R_FIRING])
            for index, start in enumerate(range(0, len(words), at.ROW_WORDS))
            if words[start]
        ]

    def get(self, index: int, which: int) -> int:
        """Return one word of a row."""
        word: int = self._words[_word(index, which)]
        return word

    def put(self, index: int, which: int, value: int) -> None:
        """Store one word of a row."""
        self._words[_word(index, which)] = value

    def free(self) -> list[int]:
        """Return the rows that are not in use."""
        names: list[int] = self._words[at.SCHEDULE_AT : _END : at.ROW_WORDS].tolist()
        return [index for index, name in enumerate(names) if not name]

    def give(self, index: int, name: int, timing: int, now_ns: int) -> None:
        """Give a free row to a name, settled up to now."""
        self.put(index, at.R_TIMING, timing)
        self.put(index, at.R_SETTLED, now_ns)
        for which in range(at.R_LAST, at.R_FIRING_FOR + 1):
            self.put(index, which, 0)
        self.put(index, at.R_NAME, name)

    def propose(self, index: int, id_high: int, time_ns: int) -> None:
        """Note which record is about to be made READY for a row, and for which of its times.

        Whether it was is what the commit word of the record says, to those that `complete`.
        """
        self.put(index, at.R_FIRING_FOR, time_ns)
        self.put(index, at.R_FIRING, id_high)

    def settle(self, index: int, slot: int) -> None:
        """Note that a row has fired, by the record in a slot, for the time that was proposed."""
        head = (self._slots_at + slot * self._size) // 8
        time_ns = self.get(index, at.R_FIRING_FOR)
        self.put(index, at.R_ID_HIGH, self._words[head + S_ID_HIGH])
        self.put(index, at.R_ID_LOW, self._words[head + S_ID_LOW])
        self.put(index, at.R_LAST, time_ns)
        self.put(index, at.R_SETTLED, time_ns)
        self.put(index, at.R_FIRING, 0)

    def complete(self, ready: list[int]) -> None:
        """Complete what a death in the middle has left, when all READY records are known.

        Such a record still is READY: the first process inside rebuilds.
        """
        firing = {self.get(index, at.R_FIRING): index for index in self.firing()}
        if not firing:
            return
        for slot in ready:
            high = self._words[(self._slots_at + slot * self._size) // 8 + S_ID_HIGH]
            if high in firing:
                self.settle(firing[high], slot)
        for index in self.firing():
            self.put(index, at.R_FIRING, 0)

    def firing(self) -> list[int]:
        """Return the rows for which a record is being made READY: none, after a rebuild."""
        start = at.SCHEDULE_AT + at.R_FIRING
        column: list[int] = self._words[start : _END : at.ROW_WORDS].tolist()
        return [index for index, word in enumerate(column) if word]

    def is_over(self, index: int) -> bool:
        """Return whether the run that a row started last has ended, or there was none."""
        slot = slot_of_id(self.get(index, at.R_ID_LOW))
        if not 0 < slot < self._segment.reserved():
            return True
        head = (self._slots_at + slot * self._size) // 8
        return bool(
            self._words[self._commit + slot] >> at.STATE_SHIFT not in at.UNFINISHED
            or self._words[head + S_ID_HIGH] != self.get(index, at.R_ID_HIGH)
            or self._words[head + S_ID_LOW] != self.get(index, at.R_ID_LOW)
        )


def _word(index: int, which: int) -> int:
    return at.SCHEDULE_AT + index * at.ROW_WORDS + which
