"""Tasks that are to stop: those that are cancelled, and what a pool must know of those that run.

That a task is to stop is noted in its record, in the lock and under its commit word, as a kill is
(see ``records.killing``): the note never meets its worker's next task.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Final, NamedTuple

from django_tasks_local.ring.format.head import (
    CLAIM_AT,
    CLAIM_END,
    OUTCOME_AT,
    OUTCOME_END,
    S_REQUEST_CRC,
    S_STARTED_AT,
    S_STOP,
    S_TIME_LIMIT,
    make_head,
    seal_claim,
    seal_loss,
)
from django_tasks_local.ring.records.expiry import Expiry
from django_tasks_local.ring.records.follow_ups import FollowUps
from django_tasks_local.ring.records.killing import Run
from django_tasks_local.ring.records.loss import (
    NOT_STARTED,
    STOP_ASKED,
    Loss,
    is_cancelled,
    loss_word,
    noted_loss,
)
from django_tasks_local.ring.records.reader import Found, Reader
from django_tasks_local.ring.records.table import Room, Table
from django_tasks_local.ring.shm.entries import Entry
from django_tasks_local.ring.shm.errors import inconsistent
from django_tasks_local.ring.shm.registry import Registry

from .format import layout as at

type _Run = Callable[..., Any]

# The default action for it is to do nothing, should a pid have become another process's.
_HARMLESS: Final = signal.SIGCHLD


class Cancelled(Enum):
    """What came of an attempt to cancel."""

    TAKEN_OUT = 1  # it never starts
    ASKED = 2  # to stop
    TOO_LATE = 3  # it had finished, or is being ended for another reason
    AGAIN = 4  # its state has just changed


class Running(NamedTuple):
    """What a worker runs right now, in numbers; `run` tells it from any other attempt."""

    slot: int
    word: int
    started_at_ns: int
    time_limit: int
    asked: bool  # to stop

    @property
    def run(self) -> Run:
        """What `Killing.note` wants to know of it."""
        return Run(self.slot, self.word, self.started_at_ns)


class Stops:
    """What a site and a pool do to tasks that are to stop.

    Args:
        table: The records.
        registry: Who is attached.
        reader: Finds records.
        expiry: When finished ones expire.
        run: The mutex's way in.
        wake: Wakes those that wait for the end of what is in a slot.
    """

    def __init__(
        self, table: Table, registry: Registry, reader: Reader, expiry: Expiry, run: _Run,
        wake: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._table = table
        self._words = table.words
        self._registry = registry
        self._reader = reader
        self._expiry = expiry
        self._run = run
        self._wake = wake
        self._follow_ups = FollowUps(table)

    def cancel(self, result_id: str, *, running: bool) -> tuple[Cancelled, Found]:
        """Take a waiting task out, or ask a running one to stop.

        Args:
            result_id: Whose.
            running: False to leave it alone once it runs.

        Returns:
            What came of it, never AGAIN, and the record as it then is.

        Raises:
            TaskResultDoesNotExist: The id names no record here.
            StoreUnavailable: The record is damaged, or another process is frozen inside.
        """
        while True:
            found = self._reader.find(result_id)
            if found.state in at.FINISHED:
                self._expiry.refuse_expired(found)
                return Cancelled.TOO_LATE, found
            came_of_it, raw = self._run(self._cancel, found, running)
            if came_of_it is Cancelled.AGAIN:
                continue
            if came_of_it is Cancelled.ASKED:
                self._wake_pool(found.word >> at.OWNER_SHIFT & at.OWNER_MASK)
            if came_of_it is Cancelled.TAKEN_OUT:
                self._wake(found.slot)
                # As it was then: it may be evicted at any moment.
                word = at.head_word(at.LOST, found.head.generation)
                found = Found(self._reader, result_id, found.slot, word, make_head(raw), raw)
            return came_of_it, found

    def running(self, worker: Entry) -> Running | None:
        """Return what a worker runs; None for nothing. No lock."""
        table, words, slot = self._table, self._words, worker.slot
        if not table.is_run_by(slot, worker.index):
            return None
        word = words[table.commit + slot]
        head = table.offset(slot) // 8
        found = Running(
            slot, word, words[head + S_STARTED_AT], words[head + S_TIME_LIMIT],
            words[head + S_STOP] == STOP_ASKED,
        )  # fmt: skip
        if word >> at.STATE_SHIFT != at.RUNNING or words[table.commit + slot] != word:
            return None
        return found

    def _cancel(self, found: Found, running: bool) -> tuple[Cancelled, bytes]:
        words, table, slot = self._words, self._table, found.slot
        if words[table.commit + slot] != found.word:
            return Cancelled.AGAIN, b""
        if found.state == at.READY:
            if self._follow_ups.make_room(slot, successful=False) is Room.MORE:
                return Cancelled.AGAIN, b""
            return Cancelled.TAKEN_OUT, self._take_out(slot, found.head.generation)
        stop = table.offset(slot) // 8 + S_STOP
        if running and not noted_loss(words[stop]):
            words[stop] = STOP_ASKED
        # Also where its worker is being killed for that.
        cancelled = running and is_cancelled(noted_loss(words[stop]))
        return (Cancelled.ASKED if cancelled else Cancelled.TOO_LATE), b""

    def _take_out(self, slot: int, generation: int) -> bytes:
        """Make a READY record LOST: cancelled. Return its head slot."""
        words, table = self._words, self._table
        words[at.H_DIRTY] = 1
        offset = table.offset(slot)
        sealed = seal_claim(0, 0, words[offset // 8 + S_REQUEST_CRC])
        table.bytes[offset + CLAIM_AT : offset + CLAIM_END] = sealed
        # Its place in the queue is its own until the commit, and then no place among the results.
        words[table.sequence + slot] |= at.LEAVES_QUEUE
        loss = loss_word(Loss.CANCELLED, NOT_STARTED)
        sealed = seal_loss(time.time_ns(), loss, table.head(slot))
        table.bytes[offset + OUTCOME_AT : offset + OUTCOME_END] = sealed
        noted = table.tallies.note_cancel(slot)
        self._follow_ups.end(slot, at.LOST, generation, noted)
        try:
            table.order.remove(slot)
        except IndexError as error:
            raise inconsistent(table.segment.path) from error
        words[table.due + slot] = 0
        table.recency.stamp(slot)
        words[at.H_RUNNING] += 1  # which `link_finished` takes off
        raw = bytes(table.bytes[offset : offset + table.geometry.slot_size])
        table.link_finished(slot, table.slots_of(slot), words[at.H_MAX_RESULTS])
        return raw

    def _wake_pool(self, owner: int) -> None:
        """Have the pool of a worker look at once, and not only at its next tick.

        Its pid is what the kernel says of the lock that it holds, not what is written anywhere.
        """
        pool = self._registry.pool_of(owner) if owner < at.ENTRIES else -1
        pid = self._registry.holder(pool) if pool >= 0 else None
        if pid is not None and pid > 0:
            with suppress(OSError):
                os.kill(pid, _HARMLESS)
