"""Periodic tasks: a time of an entry is settled, and its task made READY, in one hold of the lock.

The commit word of the record decides. What is proposed for it is noted in the row before; a rebuild
after a death completes the row where the record was committed, and drops the proposal elsewhere. So
no time fires twice, and none is settled without its task.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from django_tasks_local.store import KeyTaken
from django_tasks_local.ties import Ties

from .chaining import Chaining
from .format import layout as at
from .format.ids import new_id_words
from .holders import Holders
from .metadata import MetadataOperations
from .operations import Request, Written
from .parts import Parts
from .records.schedule import Row
from .records.table import Room, Table
from .refusals import Refusals
from .settling import AGAIN


class Outcome(Enum):
    """What came of a time of a periodic task."""

    FIRED = 1
    OVERLAPS = 2  # its earlier run, or another task with its key, is not over: skipped, and counted
    TOO_LATE = 3  # another pool has settled it, or the row is another's by now


class Due(NamedTuple):
    """A time of a periodic task that has come.

    Attributes:
        row: Its row, as the caller has seen it.
        time_ns: The time.
        overlap: Whether it may run while its earlier run waits or runs.
    """

    row: Row
    time_ns: int
    overlap: bool


@dataclass(slots=True)
class Attempt:
    """To fire once, and what came of it."""

    due: Due
    key: bytes = b""
    outcome: Outcome = Outcome.TOO_LATE


class FiringOperations:
    """What happens inside the mutex; see `operations`."""

    def __init__(self, table: Table, tasks: MetadataOperations) -> None:
        self._words = table.words
        self._rows = table.schedule
        self._tasks = tasks

    def fire(self, request: Request, attempt: Attempt) -> int:
        """Store a request that fits its head slot, for a time of a row.

        Returns:
            As `enqueue`; 1 also where the attempt says that it came to nothing.
        """
        if not self.judge(attempt):
            return 1
        room = self._tasks.room_for(request)
        if room is not Room.ENOUGH:
            return AGAIN if room is Room.MORE else 0
        self._words[at.H_DIRTY] = 1
        self._rows.propose(attempt.due.row.number, request.id_high, attempt.due.time_ns)
        slot = self._tasks.enqueue_with_more(request)
        assert isinstance(slot, int)  # `judge` has looked for its key
        self._rows.settle(attempt.due.row.number, slot)
        return slot

    def fire_chained(self, request: Request, written: Written, attempt: Attempt) -> bool:
        """Make READY what we have been WRITING, for a time of a row.

        Returns:
            As `publish_chained`; True also where the attempt says that it came to nothing.
        """
        if not self._tasks.is_ours(written):
            return False
        if not self.judge(attempt):
            self._tasks.abandon(written)
            return True
        self._words[at.H_DIRTY] = 1
        self._rows.propose(attempt.due.row.number, request.id_high, attempt.due.time_ns)
        self._tasks.publish_chained(request, written)
        self._rows.settle(attempt.due.row.number, written.slot)
        return True

    def settle(self, row: Row, time_ns: int) -> bool:
        """Settle a row's times up to a moment, without any run; return whether it was as seen."""
        as_seen = self._is(row)
        if as_seen:
            self._rows.put(row.number, at.R_SETTLED, time_ns)
        return as_seen

    def adopt(self, entries: list[tuple[int, int]], now_ns: int) -> None:
        """Give each entry its row, and take theirs from all others.

        Args:
            entries: The numbers of their names, and of their times.
            now_ns: New ones, and those whose times have changed, begin after this moment.
        """
        left = dict(entries)
        for row in self._rows.rows():
            timing = left.pop(row.name, None)  # where damage has made two of one, the other goes
            if timing is None:
                self._rows.put(row.number, at.R_NAME, 0)
            elif row.timing != timing:
                self._rows.put(row.number, at.R_SETTLED, now_ns)
                self._rows.put(row.number, at.R_TIMING, timing)  # last: or else it is done again
        for index, (name, timing) in zip(self._rows.free(), left.items(), strict=False):
            self._rows.give(index, name, timing, now_ns)

    def judge(self, attempt: Attempt) -> bool:
        """Return whether the time is to fire; if not, the attempt says why.

        A time that its row's earlier run overlaps, or any task with its key, is skipped by that.
        """
        row, time_ns, overlap = attempt.due
        attempt.outcome = Outcome.TOO_LATE
        if not self._is(row):
            return False
        is_free = overlap or self._rows.is_over(row.number)
        if not is_free or (attempt.key and self._tasks.holder(attempt.key)):
            attempt.outcome = Outcome.OVERLAPS
            skipped = self._rows.get(row.number, at.R_SKIPPED)
            self._rows.put(row.number, at.R_SKIPPED, skipped + 1 & at.GENERATION_MASK)
            self._rows.put(row.number, at.R_SETTLED, time_ns)
            return False
        attempt.outcome = Outcome.FIRED
        return True

    def _is(self, row: Row) -> bool:
        """Return whether a row still is that entry's, and settled as far as was seen."""
        return bool(
            self._rows.get(row.number, at.R_NAME) == row.name
            and self._rows.get(row.number, at.R_TIMING) == row.timing
            and self._rows.get(row.number, at.R_SETTLED) == row.settled_ns
        )


class Firing:
    """What a pool does with the schedule of its ring.

    Args:
        parts: The ring.
        refusals: What there is no room for.
        chaining: Stores requests that have metadata.
        holders: What is done about those that have keys.
    """

    def __init__(
        self, parts: Parts, refusals: Refusals, chaining: Chaining, holders: Holders
    ) -> None:
        self._rows = parts.table.schedule
        self._tasks = parts.operations
        self._operations = FiringOperations(parts.table, parts.operations)
        self._run = parts.mutex.run
        self._refusals = refusals
        self._chaining = chaining
        self._holders = holders
        self._semaphores = parts.semaphores

    def rows(self) -> dict[int, Row]:
        """Return the rows by the numbers of their entries' names. No lock."""
        return {row.name: row for row in self._rows.rows()}

    def adopt(self, entries: Iterable[tuple[int, int]], now_ns: int) -> None:
        """Give each entry its row, and take theirs from all others; see `FiringOperations`."""
        self._run(self._operations.adopt, list(entries), now_ns)

    def settle(self, row: Row, time_ns: int) -> bool:
        """Settle a row's times up to a moment, without any run; return whether it was as seen."""
        return bool(self._run(self._operations.settle, row, time_ns))

    def fire(
        self, due: Due, meta: bytes, arguments: Any, *, priority: int, time_limit: int,
        metadata: bytes, key: bytes = b"", ties: Ties | None = None, tally: int = 0,
    ) -> Outcome:  # fmt: skip
        """Store a READY task for a time of a row, and wake a worker, unless that is too late.

        Args:
            due: The time.
            meta: The task, and the rest of it as `Ring.put` has it; there must be metadata.
            arguments, priority, time_limit, metadata, key, ties, tally: Likewise.

        Raises:
            QueueFull, PayloadTooLarge, StoreUnavailable: As `Ring.put`. The time is not settled.
        """
        attempt = Attempt(due, key)
        queue = tally | priority - at.LOWEST_PRIORITY
        tied = self._refusals.tied(ties, meta) if ties else None
        if key and (holder := self._run(self._tasks.holder, key)):
            self._holders.still_holds(holder)  # if not, its key is free now
        # Also before: nothing makes room for what is skipped.
        while self._run(self._operations.judge, attempt):
            high, low = new_id_words()
            request = Request(
                key + meta, arguments, queue, 0, time.time_ns(), high, low, time_limit,
                self._refusals.block(metadata, meta), key, tied,
            )  # fmt: skip
            small = partial(self._operations.fire, attempt=attempt)
            publish = partial(self._operations.fire_chained, attempt=attempt)
            try:
                slot = self._chaining.enqueue(request, small, publish)
            except KeyTaken:
                continue  # since it was judged
            if not slot:
                raise self._refusals.of_request(request)
            if attempt.outcome is Outcome.FIRED:
                self._semaphores.wake(1)
            break
        return attempt.outcome
