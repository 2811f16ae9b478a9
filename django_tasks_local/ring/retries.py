"""Tasks that are tried again: by their worker, or by the process that settles a dead one.

What happens to a record inside the mutex stands in ``records.retrying``. Here is what comes before:
the history is made outside, since only the owner of a record changes it, and nobody changes that of
a dead owner without its commit word.
"""

import logging
import os
import time
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NamedTuple

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.attempts import Past, TaskErrorText, add_attempt
from django_tasks_local.backoff import doubled
from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format.blocks import HISTORY, Block, most_bytes
from django_tasks_local.ring.format.head import (
    S_STARTED_AT,
    S_STOP,
    inline_bytes,
    make_head,
    problem,
)
from django_tasks_local.ring.format.history import encode_past, least_bytes
from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.ring.records.claim import RingClaim
from django_tasks_local.ring.records.loss import (
    EXIT_DETACHED,
    loss_error,
    may_be_retried,
    noted_loss,
)
from django_tasks_local.ring.records.reader import Found, Reader
from django_tasks_local.ring.records.retrying import end_attempt, is_over, make_ready, past_of
from django_tasks_local.ring.records.table import Room, Table
from django_tasks_local.ring.shm.errors import more_room_in, no_room_in
from django_tasks_local.ring.shm.registry import Registry
from django_tasks_local.store import StopAsked, lost_attempts, task_path

from .format import layout as at

type _Run = Callable[..., Any]

# A task that was lost with its worker waits so long after its first attempt, twice as long after
# the second, and so on. Numbers alone: what settles a dead worker calls no code of the user's.
FIRST_PAUSE_S: Final = 1
LONGEST_PAUSE_S: Final = 600

_DAMAGED: Final = (
    "the history of its attempts is damaged. `manage.py local_tasks check` says more of the ring."
)

logger = logging.getLogger("django_tasks_local")


class Retried(Enum):
    """What came of an attempt to have a task tried again."""

    YES = 1
    TO_STOP = 2  # it is to stop, and was not told so before
    NOT_OURS = 3  # its commit word is another
    NO_ROOM = 4
    DAMAGED = 5  # its history, and its attempts cannot be counted any more


class AttemptEnd(NamedTuple):
    """The end of one attempt, with all that can be computed outside the lock."""

    found: Found  # the record as it was then
    noted: int  # what its STOP says, see ``noted_loss``
    block: Block
    due_ns: int


class Retries:
    """How a process has tasks tried again.

    Args:
        table: The records.
        registry: Who is attached.
        reader: Reads them.
    """

    def __init__(self, table: Table, registry: Registry, reader: Reader) -> None:
        self._table = table
        self._words = table.words
        self._registry = registry
        self._reader = reader
        self._size = table.geometry.slot_size
        self._inline = inline_bytes(self._size)

    def retry(self, run: _Run, claim: RingClaim, error: TaskErrorText, due_ns: int) -> bool:
        """Make a record that we run READY again.

        As `Ring.finish`, it ends a process that lost its hold on the ring.

        Args:
            run: The mutex's way in, which waits for as long as it takes.
            claim: The record.
            error: How its attempt has failed.
            due_ns: Not before then, Unix ns; 0 for at once.

        Returns:
            False where there is no room for its history, or that is damaged. Nothing is stored.

        Raises:
            StopAsked: The task was asked to stop, likewise.
        """
        if not claim.ours():
            os._exit(EXIT_DETACHED)
        self._registry.hold(claim.pid)  # the task may have dropped our record locks
        claim.close()
        came_of_it = self._retry(run, claim, error, due_ns)
        if came_of_it in (Retried.NO_ROOM, Retried.DAMAGED):
            why = self._no_room() if came_of_it is Retried.NO_ROOM else _DAMAGED
            logger.error(
                "%s: task id=%s path=%s is not tried again: %s",
                self._table.segment.path, claim.result_id, task_path(claim.meta), why,
            )  # fmt: skip
            return False
        if came_of_it is Retried.TO_STOP and claim.is_asked():
            raise StopAsked
        if came_of_it is not Retried.YES:
            os._exit(EXIT_DETACHED)  # taken for dead, or the pool's SIGKILL is on its way
        return True

    def _retry(
        self, run: _Run, claim: RingClaim, error: TaskErrorText, due_ns: int
    ) -> Retried | None:
        head, slot = claim.head, claim.slot
        # As it is now: a retry of this very attempt may have been interrupted.
        past = past_of(self._table, slot)
        if past is None and self._words[self._table.history.word(slot)]:
            return Retried.DAMAGED
        if is_over(self._table, slot):
            completed: Retried | None = run(self._complete, claim)
            return completed
        past = add_attempt(past, head.worker, head.started_at_ns, error)

        def end(block: Block) -> Retried | None:
            return self._end(run, AttemptEnd(claim, 0, block, due_ns))

        return self._in_less_and_less_room(past, end)

    def _no_room(self) -> str:
        """Return why what is kept of attempts has no room, and what makes some."""
        slots, geometry = self._table.slots, self._table.geometry
        if slots.reserved() < slots.total:  # SHM_SIZE allows more, and the kernel gave no memory
            directory = os.path.dirname(self._table.segment.path)
            return (
                f"{no_room_in(directory)}, and what is kept of its attempts needs room: "
                f"{more_room_in(directory)}."
            )
        return (
            "what is kept of its attempts needs room, and tasks that wait and run take all "
            f"{geometry.segment_bytes:,} bytes that SHM_SIZE allows. Raise SHM_SIZE."
        )

    def settle(self, run: _Run, slot: int, index: int, loss: int) -> int | None:
        """Have the task tried again that a dead process was running, if its record says so.

        Args:
            run: The mutex's way in, which may give up.
            slot: Its head slot; any may be given.
            index: The dead process's entry.
            loss: A `loss_word`, unless there is one in the record.

        Returns:
            The slot where it is tried again, 0 where it is not; None where that is still to be
            decided, since another process is inside for long.
        """
        found = self._lost(slot) if self._table.is_run_by(slot, index) else None
        if found is None:
            return 0
        head = found.head
        noted = noted_loss(head.stop)
        past = past_of(self._table, slot)
        attempts = 1 + (len(past.workers) if past else 0)
        if (
            attempts >= lost_attempts(head.time_limit)
            or (head.history_chain and (past is None or is_over(self._table, slot)))
            or not may_be_retried(noted or loss)
        ):
            return 0
        try:
            path = task_path(found.meta)
        except (TaskResultDoesNotExist, StoreUnavailable):
            return 0  # it is damaged
        now_ns = time.time_ns()
        due_ns = now_ns + round(doubled(FIRST_PAUSE_S, attempts, LONGEST_PAUSE_S) * 1e9)
        ended = head._replace(outcome_bytes=noted or loss, finished_at_ns=now_ns)
        error = loss_error(ended, retried=True)
        past = add_attempt(past, head.worker, head.started_at_ns, error)

        def end(block: Block) -> Retried | None:
            if self._registry.alive(index):
                return Retried.NOT_OURS
            return self._end(run, AttemptEnd(found, noted, block, due_ns))

        came_of_it = self._in_less_and_less_room(past, end)
        if came_of_it is Retried.YES:
            logger.warning(
                "alias=%s Task id=%s path=%s was lost in attempt %d, and is tried again: %s",
                self._reader.alias, found.result_id, path, attempts, error[1],
            )  # fmt: skip
            return slot
        return None if came_of_it is None else 0

    def _lost(self, slot: int) -> Found | None:
        """Return a record as it stands, None where it is damaged or is not RUNNING any more."""
        table = self._table
        offset = table.offset(slot)
        word = self._words[table.commit + slot]
        raw = table.bytes[offset : offset + self._size].tobytes()
        head = make_head(raw)
        if (
            word >> at.STATE_SHIFT != at.RUNNING
            or head.generation != word & at.GENERATION_MASK
            or problem(raw, head, at.RUNNING, self._inline)
        ):
            return None
        return Found(self._reader, format_id(head.id_high, head.id_low), slot, word, head, raw)

    def _in_less_and_less_room(
        self, past: Past[int], end: Callable[[Block], Retried | None]
    ) -> Retried | None:
        """Try with all of the errors, and where there is no room for them, with less of their text.

        Returns:
            What came of the last try; None where the mutex's way in gave up.
        """
        least = least_bytes(past)
        size = most_bytes(self._size)
        while True:
            block = Block(encode_past(past, max(size, least)), HISTORY)
            came_of_it = end(block)
            if came_of_it is not Retried.NO_ROOM or block.slots(self._size) == 1 or size <= least:
                return came_of_it
            size = min(size, len(block.data)) // 2

    def _end(self, run: _Run, end: AttemptEnd) -> Retried | None:
        while True:
            came_of_it: Retried | Room | None = run(self._end_inside, end)
            if not isinstance(came_of_it, Room):
                return came_of_it

    def _complete(self, claim: Found) -> Retried:
        words, table, slot = self._words, self._table, claim.slot
        if words[table.commit + slot] != claim.word:
            return Retried.NOT_OURS
        if noted_loss(words[table.offset(slot) // 8 + S_STOP]):
            return Retried.TO_STOP
        make_ready(table, slot)
        return Retried.YES

    def _end_inside(self, end: AttemptEnd) -> Retried | Room:
        words, table, found = self._words, self._table, end.found
        head = table.offset(found.slot) // 8
        # Its next attempt may have the same commit word.
        if (words[table.commit + found.slot], words[head + S_STARTED_AT]) != (
            found.word, found.head.started_at_ns,
        ):  # fmt: skip
            return Retried.NOT_OURS
        if noted_loss(words[head + S_STOP]) != end.noted:
            return Retried.TO_STOP
        # What is kept for the results of others may be used as far as this hold gives it back.
        given_back = table.history.slots_of(found.slot)
        keep = max(0, table.kept() - given_back)
        room = table.make_room(end.block.slots(self._size), keep)
        if room is not Room.ENOUGH:
            return Room.MORE if room is Room.MORE else Retried.NO_ROOM
        end_attempt(table, found.slot, end.block, end.due_ns)
        return Retried.YES
