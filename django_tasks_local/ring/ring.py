"""The tasks of a ring: enqueue, get, claim, finish."""

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

from django.tasks import TaskResultStatus

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format.head import (
    OUTCOME_AT,
    OUTCOME_END,
    S_OUTCOME_CHAIN,
    make_head,
    outcome_at,
    problem,
    seal_outcome,
)
from django_tasks_local.ring.format.ids import format_id, new_id_words, with_slot
from django_tasks_local.ring.records.claim import RingClaim
from django_tasks_local.ring.records.expiry import TTL_OF
from django_tasks_local.ring.records.listing import Listing
from django_tasks_local.ring.records.loss import EXIT_DETACHED, STOP_ASKED
from django_tasks_local.ring.records.order import JUDGED_WAITING
from django_tasks_local.ring.records.payload import NO_ARGUMENTS, Pickled, encode
from django_tasks_local.ring.records.reader import STATUSES, Found, does_not_exist
from django_tasks_local.ring.records.slots import Wanted
from django_tasks_local.ring.records.table import Room
from django_tasks_local.ring.shm.errors import lost_hold
from django_tasks_local.ring.shm.registry import WAITS
from django_tasks_local.store import Arguments, StopAsked, task_path

from .attachment import Attached
from .firing import Firing
from .format import layout as at
from .operations import AGAIN, TOLD_TO_STOP, Request, Written
from .stops import Cancelled

logger = logging.getLogger("django_tasks_local")

type _Small = Callable[[Request], int]
type _Publish = Callable[[Request, Written], bool]

# A task that falls due so soon wakes a worker, which then waits for its moment. For others the
# pool's own look, once a second, is in time.
SOON_NS: Final = 1_000_000_000


class Ring(Attached):
    """The store of ProcessPoolBackend, as one attached process uses it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.firing = Firing(
            self._table, self._do, self._mutex.run, self.refusals, self._enqueue_with_metadata,
            self.wake,
        )  # fmt: skip

    def encode(self, value: object) -> bytes | Pickled:
        """Pickles a value; it may raise whatever pickling raises."""
        return encode(value, self._inline)

    def encode_arguments(self, arguments: Arguments) -> bytes | Pickled:
        """As `encode`, for a task's arguments."""
        args, kwargs = arguments
        return encode(arguments, self._inline) if args or kwargs else NO_ARGUMENTS

    def enqueue(
        self, meta: bytes, arguments: bytes | Pickled, *, priority: int, due_ns: int,
        time_limit: int = 0, metadata: bytes = b"",
    ) -> tuple[str, int]:  # fmt: skip
        """As `put`, with the id as text."""
        high, low, now_ns = self.put(
            meta, arguments, priority=priority, due_ns=due_ns, time_limit=time_limit,
            metadata=metadata,
        )  # fmt: skip
        return format_id(high, low), now_ns

    def put(
        self, meta: bytes, arguments: bytes | Pickled, *, priority: int, due_ns: int,
        time_limit: int = 0, metadata: bytes = b"",
    ) -> tuple[int, int, int]:  # fmt: skip
        """Store a READY task and wake a worker.

        It holds the lock for microseconds; large arguments are copied outside it.

        Returns:
            The two words of the result id (`format_id` spells it), and when the task was enqueued
            (Unix ns).

        Raises:
            QueueFull: MAX_PENDING tasks wait, or their payloads fill SHM_SIZE.
            PayloadTooLarge: The arguments or the metadata could never fit.
            StoreUnavailable: /dev/shm is full, or the ring can't be used.
        """
        work = self._semaphores.work
        if work is None:
            work = self.take_code()
        now_ns = time.time_ns()
        queue = priority - at.LOWEST_PRIORITY
        high, low = new_id_words()
        request = Request(meta, arguments, queue, due_ns, now_ns, high, low, time_limit)
        if metadata:
            request = request._replace(metadata=self.refusals.block(metadata, meta))
            slot = self._enqueue_with_metadata(request)
        elif len(meta) + len(arguments) <= self._inline:
            while (slot := self._mutex.run(self._do.enqueue, request)) == AGAIN:
                pass
        else:
            request = request._replace(arguments=Pickled.of(arguments))
            slot = self._enqueue_chained(request)
        if not slot:
            raise self.refusals.of_request(request)
        if due_ns <= now_ns + SOON_NS:
            try:  # noqa: SIM105  (`suppress` would cost 1 % of it all)
                work.release()
            except OSError:
                pass  # at its ceiling: it is a hint (rule 11), and the task is in the ring
        return request.id_high, with_slot(request.id_low, slot), now_ns

    def get(self, result_id: str) -> Found:
        """The record as it is now; reading a finished one makes it the most recently used.

        It waits for nobody: where somebody is inside for long, the order stays as it is.

        Raises:
            TaskResultDoesNotExist: Whatever string it is that names no record here; or it expired.
            StoreUnavailable: The record is damaged.
        """
        found = self._reader.find(result_id)
        word = found.word
        state = word >> at.STATE_SHIFT
        if state == at.RUNNING:
            if self._bury(word >> at.OWNER_SHIFT & at.OWNER_MASK):
                return self.get(result_id)
        elif state != at.READY:
            if self.words[TTL_OF[state]]:
                self.expiry.refuse_expired(found)
            if self.words[at.H_NEWEST] != found.slot:
                self._mutex.try_run(self._do.touch, found.slot, word)
        return found

    def listed(
        self, statuses: Collection[TaskResultStatus], accepts: Callable[[bytes], bool] | None
    ) -> Iterator[Found]:
        """The records of these statuses, without the lock and without a trace: see `Listing`."""
        states = [state for state, status in STATUSES.items() if status in statuses]
        found = Listing(self._table, self._reader).records(states, accepts)
        if not any(self.words[which] for which in TTL_OF.values()):
            return found
        return (each for each in found if not self.expiry.is_over(each))

    def cancel(self, result_id: str, *, running: bool) -> tuple[bool, Found | None]:
        """Takes a READY task out, or asks a RUNNING one to stop; see `Stops.cancel`.

        Returns:
            Whether it was taken out or asked, and the record if it was taken out.
        """
        outcome, found = self.stops.cancel(result_id, running=running)
        taken_out = outcome is Cancelled.TAKEN_OUT
        return outcome is not Cancelled.TOO_LATE, found if taken_out else None

    def claim(self, share: at.Share | None = None) -> RingClaim | None:
        """Makes the next task RUNNING by this process.

        Args:
            share: Which tasks may run on this process's code; None: all.

        Returns:
            None where nothing is due of what it may run.
        """
        words, table = self.words, self._table
        judged = JUDGED_WAITING[share[0]] if share is not None else at.H_MAGIC
        # The first of these mostly says enough, and costs least.
        while (
            words[judged] or words[at.H_DEFERRED] or words[at.H_DIRTY] or table.order.waits(share)
        ):
            slot = self._settled(self._do.claim, share)
            if slot == AGAIN:
                continue
            if not slot:
                break
            offset = self._slots_at + slot * self._size
            raw = self._bytes[offset : offset + self._size].tobytes()
            head = make_head(raw)
            word = words[self._commit + slot]
            claim = RingClaim(self._reader, table, slot, word, head, raw)
            wrong = problem(raw, head, at.RUNNING, self._inline)
            if head.generation != word & at.GENERATION_MASK:
                wrong = "its commit word is of another generation"
            if not wrong:
                return claim
            # Never unpickled. Whoever asks for the result is told what is wrong.
            self._settled(self._do.lose, claim)
            self._waiters.wake(slot)
            logger.error("%s: a task in slot %d can't run: %s", self.segment.path, slot, wrong)
        return None

    def finish(
        self, claim: RingClaim, *, successful: bool, outcome: bytes | Pickled,
        cancelled: bool = False,
    ) -> int:  # fmt: skip
        """Stores the outcome of a claimed task and makes it SUCCESSFUL or FAILED.

        A process that lost its hold on the ring (its task closed all descriptors, or forked and
        both came back) ends here instead, by `os._exit`. A worker waits for a frozen process for as
        long as it takes.

        Returns:
            When it finished (unix ns).

        Raises:
            PayloadTooLarge: There is no room for it. Nothing is stored: call again with less.
            StopAsked: The task was asked to stop: call again with that as the outcome, `cancelled`.
        """
        if not claim.ours():
            os._exit(EXIT_DETACHED)
        self.registry.hold(claim.pid)  # the task may have dropped our record locks
        head = claim.head
        offset = self._slots_at + claim.slot * self._size
        if self.words[offset // 8 + S_OUTCOME_CHAIN]:  # an earlier attempt was interrupted
            self._settled(self._do.drop_outcome_chain, claim)
        slots, chain = 1, 0
        if head.arguments_chain:
            slots += at.slots_for(head.request_bytes, self._size)
        size = len(outcome)
        if isinstance(outcome, bytes) and (start := outcome_at(head, size, self._inline)):
            start += offset
            self._bytes[start : start + size] = outcome
        else:
            outcome = Pickled.of(outcome)
            count = at.slots_for(len(outcome), self._size)
            chain = self._write_outcome(claim, outcome, count)
            slots += count
        now_ns = time.time_ns()
        state = at.SUCCESSFUL if successful else at.FAILED
        sealed = seal_outcome(now_ns, outcome, chain, head.claim_crc, state)
        self._bytes[offset + OUTCOME_AT : offset + OUTCOME_END] = sealed
        claim.close()
        note = STOP_ASKED if cancelled else 0
        ended = self._settled(self._do.finish, claim, state, slots, note)
        if not ended:
            os._exit(EXIT_DETACHED)  # taken for dead, and reaped
        if ended == TOLD_TO_STOP:
            if not claim.is_asked():
                os._exit(EXIT_DETACHED)  # the pool's SIGKILL is on its way
            raise StopAsked
        if self.words[at.H_WAITED] > now_ns:
            self._waiters.wake(claim.slot)
        if self.registry.marked(WAITS):  # a thread that it has left, or an interrupted wait
            self._settled(self._waiters.end_task)
        return now_ns

    def wait_for_change(self, found: Found, timeout_s: float) -> None:
        """Wait until a record has ended, or for `timeout_s`; it may return early.

        It sees an end at once, the death of a worker only where another process settles it: `get`
        does that, too.
        """
        if found.slot < self.segment.reserved() and found.state in at.UNFINISHED:
            self._waiters.wait(found.slot, found.word, timeout_s)

    def begin_waiting(self, task_id: str) -> bool:
        """A worker's task begins to wait for others; False where no worker would be left."""
        return self._settled(self._waiters.begin_in_task, task_id, self.max_workers())

    def end_waiting(self, task_id: str) -> None:
        """It waits no longer."""
        self._settled(self._waiters.end_in_task, task_id)

    def save_metadata(
        self, result_id: str, metadata: bytes, claim: RingClaim | None = None
    ) -> None:
        """Replace the metadata of a task: a reader sees the old or the new, never a mixture.

        Args:
            result_id: The task's.
            metadata: JSON, b"" for none.
            claim: The task as this process claimed it, where it is its worker.

        Raises:
            TaskResultDoesNotExist: There is no such record any more, or it has expired.
            PayloadTooLarge: There is no room for it. The old metadata stays.
            StoreUnavailable: Its worker is taken for dead, or the ring cannot be used.
        """
        run = self._mutex.run
        found: Found
        if claim is None:
            found = self._reader.find(result_id)
            self.expiry.refuse_expired(found)
        elif claim.ours():
            self.registry.hold(claim.pid)  # the task may have dropped our record locks
            found, run = claim, self._settled
        else:
            raise lost_hold(self.segment.path)
        block = self.refusals.block(metadata, found.meta)
        save = partial(self._do.save_metadata, found, block, as_owner=claim is not None)
        while (room := run(save)) is Room.MORE:
            pass
        if room is Room.NONE:
            raise self.refusals.of_metadata(block, found.meta)
        if room is None:
            raise lost_hold(self.segment.path) if claim else does_not_exist(result_id)

    def _enqueue_with_metadata(
        self, request: Request, small: _Small | None = None, publish: _Publish | None = None
    ) -> int:
        """Stores a request, by other operations where a periodic task fires."""
        if len(request.meta) + len(request.arguments) > self._inline:
            request = request._replace(arguments=Pickled.of(request.arguments))
            return self._enqueue_chained(request, publish)
        small = small or self._do.enqueue_with_metadata
        while (slot := self._mutex.run(small, request)) == AGAIN:
            pass
        return slot

    def _enqueue_chained(self, request: Request, publish: _Publish | None = None) -> int:
        size = len(request.meta) + len(request.arguments)
        count = at.slots_for(size, self._table.geometry.slot_size)
        written = Written()
        run = self._mutex.run
        self._free_abandoned()
        try:
            room = _in_steps(run, self._do.begin_chained, request, written, count)
            if room is Room.ENOUGH and request.metadata:
                room = _in_steps(run, self._do.attach_metadata, written, request.metadata)
            if room is Room.ENOUGH:
                room = _in_steps(run, self._do.chain_request, written)
            if room is Room.NONE:
                run(self._do.abandon, written)
                return 0
            self._table.slots.write(
                written.wanted.chain,
                at.chain_word(written.slot, written.generation),
                [request.meta, *request.arguments.parts],
            )
            published = run(publish or self._do.publish_chained, request, written)
        except BaseException:
            self._abandoned.append(written)
            with suppress(StoreUnavailable):  # somebody is frozen inside: another time
                self._free_abandoned()
            raise
        if not published:
            raise lost_hold(self.segment.path)
        return written.slot

    def _free_abandoned(self) -> None:
        """Gives back what enqueues that were interrupted have left WRITING by us."""
        for written in list(self._abandoned):
            self._mutex.run(self._do.abandon, written)
            with suppress(ValueError):  # another thread did it as well
                self._abandoned.remove(written)

    def _write_outcome(self, found: Found, outcome: Pickled, count: int) -> int:
        owner_word = at.chain_word(found.slot, found.head.generation)
        wanted = Wanted(count, owner_word)
        # A small result or an error may use the reserve: that is what it is kept for.
        keep = self.words[at.H_MAX_WORKERS] if count > 1 else 0
        room = _in_steps(self._settled, self._do.chain_outcome, found, wanted, keep)
        if room is Room.NONE:
            self._settled(self._do.drop_outcome_chain, found)
            raise self.refusals.of_outcome(task_path(found.meta), outcome, count)
        self._table.slots.write(wanted.chain, owner_word, outcome.parts)
        return wanted.chain


def _in_steps(run: Callable[..., Room], operation: Callable[..., Room], *args: Any) -> Room:
    """What an operation comes to that needs several holds of the lock, each of them short."""
    while (room := run(operation, *args)) is Room.MORE:
        pass
    return room
