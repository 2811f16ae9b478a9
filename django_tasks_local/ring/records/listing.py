"""Records in the order in which people want to see them, read without the lock and without a trace.

What decides the place is read from the columns and the head slots as they are at that moment; each
record is then copied and checked as for any other reader. One that has changed its state meanwhile
stays where it was, or is left out if its new state was not asked for.
"""

import time
from collections.abc import Callable, Collection, Iterator
from itertools import chain, compress
from typing import Final

from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import (
    META_AT,
    S_ARGUMENTS_BYTES,
    S_FINISHED_AT,
    S_ID_HIGH,
    S_ID_LOW,
    S_META_BYTES,
    S_ORIGIN,
    S_STARTED_AT,
    inline_bytes,
)
from django_tasks_local.ties import group_digest

from .groups import TOP_BYTE, TOP_SHIFT, Groups
from .reader import STATUSES, Found, Reader
from .table import Table

# Above so many records a whole column is read at once.
_MANY: Final = 500


class Listing:
    """All records of a ring, for lists. 100,000 are put in order in 10 to 30 ms."""

    def __init__(self, table: Table, reader: Reader) -> None:
        geometry = table.geometry
        self._table = table
        self._reader = reader
        self._inline = inline_bytes(geometry.slot_size)
        self._slots_at, self._step = geometry.slots_at // 8, geometry.slot_size // 8
        self._reserved = table.slots.reserved()
        self._groups = Groups(table, reader)

    def of_status(
        self, statuses: Collection[TaskResultStatus], accepts: Callable[[bytes], bool] | None,
        group: str = "",
    ) -> Iterator[Found]:  # fmt: skip
        """Yield the records of these statuses, as `records` does."""
        states = [state for state, status in STATUSES.items() if status in statuses]
        return self.records(states, accepts, group)

    def records(
        self, states: Collection[int], accepts: Callable[[bytes], bool] | None = None,
        group: str = "",
    ) -> Iterator[Found]:  # fmt: skip
        """Yield what is RUNNING, READY and finished, in this order.

        RUNNING: the latest start comes first. READY: in the order in which they will run; what is
        deferred comes after all that is due, by the moment at which it falls due. Finished: the
        latest end comes first. Damaged records are left out: `check` names them.

        Args:
            states: Which of them.
            accepts: Says by the bytes that name a task whether its record is wanted; None: all are.
            group: Only those of this group; "": all.
        """
        tops = self._tops()
        for several, order in (
            (frozenset({at.RUNNING}), self._latest_start_first),
            (frozenset({at.READY}), self._next_first),
            (at.FINISHED, self._latest_end_first),
        ):
            wanted = several.intersection(states)
            marks = tops.translate(bytes(top >> TOP_SHIFT in wanted for top in range(256)))
            slots = list(compress(range(self._reserved), marks)) if 1 in marks else []
            if group:
                digest = group_digest(group)
                slots = [slot for slot in slots if self._groups.may_have(slot, digest)]
            for slot in order(slots):
                found = self._found(slot, states, accepts)
                if found is not None and group in ("", found.ties.group):
                    yield found

    def count(self, states: Collection[int]) -> int:
        """Return how many records are in one of these states, expired ones included."""
        others = bytes(top for top in range(256) if top >> TOP_SHIFT not in states)
        return len(self._tops().translate(None, others))

    def _tops(self) -> bytes:
        # The state alone: this reads one byte of each word, and nothing here is a loop of Python's.
        commit = self._table.commit * 8
        return bytes(self._table.bytes[commit + TOP_BYTE : commit + self._reserved * 8 : 8])

    def _latest_start_first(self, slots: list[int]) -> Iterator[int]:
        return self._latest_first(slots, S_STARTED_AT)

    def _latest_end_first(self, slots: list[int]) -> Iterator[int]:
        return self._latest_first(slots, S_FINISHED_AT)

    def _latest_first(self, slots: list[int], field: int) -> Iterator[int]:
        words, first, step = self._table.words, self._slots_at + field, self._step
        if len(slots) < _MANY:
            return iter(sorted(slots, key=lambda slot: -words[first + slot * step]))
        # Bits of positive floats are ordered as whole numbers are, and floats are sorted three
        # times as fast as numbers of 61 bits.
        floats = self._table.bytes.cast("d")
        times = floats[first : first + self._reserved * step : step].tolist()
        return iter(sorted(slots, key=times.__getitem__, reverse=True))

    def _next_first(self, slots: list[int]) -> Iterator[int]:
        table, words, now_ns = self._table, self._table.words, time.time_ns()
        origins, step = self._slots_at + S_ORIGIN, self._step
        deferred: list[int] = []
        due_now: list[int] = []
        for slot in slots:
            (deferred if words[table.due + slot] else due_now).append(slot)
        due_now.sort(key=lambda slot: words[table.sequence + slot])
        deferred.sort(key=lambda slot: (words[table.due + slot], words[table.sequence + slot]))
        # What has fallen due goes to the end of its FIFO with the next claim.
        due_now += [slot for slot in deferred if words[table.due + slot] <= now_ns]
        due_now.sort(key=lambda slot: -(words[origins + slot * step] & 0xFF))  # the priority
        return chain(due_now, (slot for slot in deferred if words[table.due + slot] > now_ns))

    def _found(
        self, slot: int, states: Collection[int], accepts: Callable[[bytes], bool] | None
    ) -> Found | None:
        table, words = self._table, self._table.words
        word = self._slots_at + slot * self._step
        if accepts is not None:
            size = words[word + S_META_BYTES]
            if size + words[word + S_ARGUMENTS_BYTES] <= self._inline:
                # Not checked yet: this only saves the checks of what is not wanted.
                start = word * 8 + META_AT
                if not accepts(bytes(table.bytes[start : start + size])):
                    return None
        try:
            found = self._reader.find_words(words[word + S_ID_HIGH], words[word + S_ID_LOW])
        except (TaskResultDoesNotExist, StoreUnavailable):
            return None  # evicted meanwhile; or damaged
        if found.state not in states or (accepts is not None and not accepts(found.meta)):
            return None
        return found
