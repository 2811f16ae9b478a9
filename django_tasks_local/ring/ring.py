"""The tasks of a ring: enqueue, get, claim, finish."""

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator

import posix_ipc
from django.tasks import TaskResultStatus

from django_tasks_local.attempts import TaskErrorText
from django_tasks_local.ring.format.head import (
    OUTCOME_AT,
    OUTCOME_END,
    S_OUTCOME_CHAIN,
    inline_bytes,
    make_head,
    outcome_at,
    problem,
    seal_outcome,
)
from django_tasks_local.ring.format.ids import format_id, new_id_words, with_slot
from django_tasks_local.ring.records.claim import RingClaim
from django_tasks_local.ring.records.expiry import TTL_OF, Expiry
from django_tasks_local.ring.records.groups import Groups
from django_tasks_local.ring.records.killing import Killing
from django_tasks_local.ring.records.listing import Listing
from django_tasks_local.ring.records.loss import EXIT_DETACHED, STOP_ASKED
from django_tasks_local.ring.records.order import JUDGED_WAITING
from django_tasks_local.ring.records.payload import NO_ARGUMENTS, Pickled, encode
from django_tasks_local.ring.records.reader import Found
from django_tasks_local.ring.records.workforce import Workforce
from django_tasks_local.ring.shm.entries import WAITS, Role
from django_tasks_local.ring.shm.leadership import Leadership
from django_tasks_local.ring.shm.limits import Limits
from django_tasks_local.store import Arguments, KeyTaken, StopAsked
from django_tasks_local.ties import Ties

from .attachment import Attachment
from .bulk import Bulk
from .chaining import Chaining
from .counters import Counters
from .firing import Firing
from .format import layout as at
from .format.tally import outcome_of
from .holders import Holders
from .look import Counts
from .operations import SOON_NS, Request
from .parts import Parts
from .refusals import Refusals
from .retries import Retries
from .saving import Saving
from .settling import AGAIN
from .stops import Cancelled, Stops
from .upkeep import Upkeep

logger = logging.getLogger("django_tasks_local")


class Ring:
    """The store of ProcessPoolBackend, as one attached process uses it.

    Attributes:
        name, alias: The common part of the objects' names; the alias of the backend, for texts.
        attachment, upkeep: This process's place in the ring, and what keeps that in order.
        segment, words: The memory, and the memory as words.
        registry, codes: Who is attached, whose tasks are in the ring.
        workforce: How pools share MAX_WORKERS.
        expiry: When finished results expire.
        killing, stops: Workers that are to be killed, tasks that are to stop.
        firing, bulk, counters: Periodic tasks, tasks that are enqueued together, what counts.
    """

    def __init__(
        self, name: str, alias: str, limits: Limits, role: Role, *, path: str = "",
        digest: int = 0, temporary: bool = False, pool: int = -1,
    ) -> None:  # fmt: skip
        """Attach, and make the ring where there is none.

        Args:
            name: As from `ring_name`.
            alias: The alias of the backend, for texts and worker ids.
            limits: The options.
            role: What this process is to the ring.
            path: Its settings file.
            digest: What its code is, see `code_digest`; 0: that of its settings file.
            temporary: Marks a new ring as that of a test run.
            pool: A worker's pool (its entry).

        Raises:
            StoreUnavailable: See `attach_segment`.
        """
        make = role not in (Role.POOL, Role.WORKER)
        parts = Parts(name, alias, limits.geometry, os.getpid(), make=make, temporary=temporary)
        self.name, self.alias = name, alias
        self.segment, self.words = parts.segment, parts.words
        self.registry, self.codes = parts.registry, parts.codes
        self.workforce = Workforce(parts.registry, parts.codes, parts.mutex)
        self._retries = Retries(parts.table, parts.registry, parts.reader)
        self.upkeep = Upkeep(parts, self.workforce, self._retries)
        self.attachment = Attachment(
            parts, self.upkeep.settle_dead, limits, role, path=path, digest=digest, pool=pool
        )
        # Here as well as in `parts`: what each task needs is one look-up away.
        self._parts = parts
        self._table, self._mutex, self._reader = parts.table, parts.mutex, parts.reader
        self._operations, self._waiters = parts.operations, parts.waiters
        self._semaphores = parts.semaphores
        self._run = self.attachment.run
        self._bytes, self._commit = parts.segment.bytes, parts.table.commit
        self._slots_at, self._size = parts.table.geometry.slots_at, parts.table.geometry.slot_size
        self._inline = inline_bytes(self._size)
        self.expiry = Expiry(parts.table, parts.mutex)
        self.killing = Killing(parts.table, parts.mutex)
        self.stops = Stops(
            parts.table, parts.registry, parts.reader, self.expiry, parts.mutex.run,
            parts.waiters.wake,
        )  # fmt: skip
        self._refusals = Refusals(parts.table, parts.mutex, alias, self._inline)
        holders = Holders(parts, self.upkeep.settle_if_dead, self.upkeep.settle)
        self._chaining = Chaining(parts, self._refusals, self._run, holders)
        self.firing = Firing(parts, self._refusals, self._chaining, holders)
        self.bulk = Bulk(parts, self._refusals, holders, self.attachment, self.upkeep)
        self.counters = Counters(parts)
        self._saving = Saving(parts, self._refusals, self.expiry, self._run)

    @property
    def leadership(self) -> Leadership:
        """Who runs the pool of our code; of no use to a visitor, which has none."""
        return self._parts.leadership

    def encode(self, value: object) -> bytes | Pickled:
        """Pickle a value; it may raise whatever pickling raises."""
        return encode(value, self._inline)

    def encode_arguments(self, arguments: Arguments) -> bytes | Pickled:
        """Do as `encode`, for a task's arguments."""
        args, kwargs = arguments
        return encode(arguments, self._inline) if args or kwargs else NO_ARGUMENTS

    def enqueue(
        self, meta: bytes, arguments: bytes | Pickled, *, priority: int, due_ns: int,
        time_limit: int = 0, metadata: bytes = b"", key: bytes = b"", tally: int = 0,
        ties: Ties | None = None,
    ) -> tuple[str, int]:  # fmt: skip
        """Do as `put`, with the id as text."""
        high, low, now_ns = self.put(
            meta, arguments, priority=priority, due_ns=due_ns, time_limit=time_limit,
            metadata=metadata, key=key, ties=ties, tally=tally,
        )  # fmt: skip
        return format_id(high, low), now_ns

    def put(
        self, meta: bytes, arguments: bytes | Pickled, *, priority: int, due_ns: int,
        time_limit: int = 0, metadata: bytes = b"", key: bytes = b"", tally: int = 0,
        ties: Ties | None = None,
    ) -> tuple[int, int, int]:  # fmt: skip
        """Store a READY task and wake a worker.

        It holds the lock for microseconds; large arguments are copied outside it.
        `Counters.remember` gives its `tally`; 0: it is not counted.

        Returns:
            The two words of the result id (`format_id` spells it), and when the task was enqueued
            (Unix ns).

        Raises:
            KeyTaken: A task with this key waits or runs.
            QueueFull: MAX_PENDING tasks wait, or their payloads fill SHM_SIZE.
            PayloadTooLarge: The arguments, the metadata or what follows could never fit.
            StoreUnavailable: /dev/shm or the disk is full, or the ring cannot be used.
        """
        work = self._semaphores.work
        if work is None:
            work = self.attachment.take_code()
        now_ns = time.time_ns()
        queue = tally | priority - at.LOWEST_PRIORITY
        high, low = new_id_words()
        request = Request(meta, arguments, queue, due_ns, now_ns, high, low, time_limit)
        if metadata or key or ties:
            block = self._refusals.block(metadata, meta) if metadata else None
            tied = self._refusals.tied(ties, meta) if ties else None
            request = request._replace(meta=key + meta, metadata=block, key=key, ties=tied)
            try:
                slot = self._chaining.enqueue(request)
            except KeyTaken:
                self.attachment.wait_for_disk()  # the other may be on its way there
                raise
        elif len(meta) + len(arguments) <= self._inline:
            while (slot := self._mutex.run(self._operations.enqueue, request)) == AGAIN:
                pass
        else:
            slot = self._chaining.enqueue(request)
        if not slot:
            raise self._refusals.of_request(request)
        # One for each worker suffices: each looks until it finds nothing, and those that are too
        # many would have idle workers look once for each.
        if due_ns <= now_ns + SOON_NS and work.value < self.words[at.H_MAX_WORKERS]:
            work.release()
        if self.attachment.syncs:
            self.attachment.wait_for_disk()
        return request.id_high, with_slot(request.id_low, slot), now_ns

    def get(self, result_id: str) -> Found:
        """Return the record as it is now; reading a finished one makes it the most recently used.

        It never waits: where another process is inside for long, the order stays as it is.

        Raises:
            TaskResultDoesNotExist: Whatever string it is that names no record here; or it expired.
            StoreUnavailable: The record is damaged.
        """
        found = self._reader.find(result_id)
        word = found.word
        state = word >> at.STATE_SHIFT
        if state == at.RUNNING:
            if self.upkeep.settle_if_dead(word >> at.OWNER_SHIFT & at.OWNER_MASK):
                return self.get(result_id)
        elif state != at.READY:
            if self.words[TTL_OF[state]]:
                self.expiry.refuse_expired(found)
            if self.words[at.H_NEWEST] != found.slot:
                self._mutex.try_run(self._operations.touch, found.slot, word)
        return found

    def listed(
        self, statuses: Collection[TaskResultStatus], accepts: Callable[[bytes], bool] | None,
        group: str = "",
    ) -> Iterator[Found]:  # fmt: skip
        """Return the records of these statuses, read without the lock and without a trace."""
        listing = Listing(self._table, self._reader)
        return self.expiry.without_expired(listing.of_status(statuses, accepts, group))

    def unfinished_in(self, group: str) -> list[str]:
        """Return the ids of a group's tasks that wait or run; see ``store.StoreClient``."""
        return Groups(self._table, self._reader).unfinished(group, self._mutex.run)

    def cancel(self, result_id: str, *, running: bool) -> tuple[bool, Found | None]:
        """Take a READY task out, or ask a RUNNING one to stop; see `Stops.cancel`.

        Returns:
            Whether it was taken out or asked, and the record if it was taken out.
        """
        outcome, found = self.stops.cancel(result_id, running=running)
        taken_out = outcome is Cancelled.TAKEN_OUT
        self.attachment.wait_for_disk()
        if taken_out and found.head.ties_chain:  # for what may follow it
            self.upkeep.wake(1, at.code_of(found.head.origin))
        return outcome is not Cancelled.TOO_LATE, found if taken_out else None

    def claim(self, share: at.Share | None = None) -> RingClaim | None:
        """Make the next task RUNNING by this process.

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
            slot = self._run(self._operations.claim, share)
            if slot == AGAIN:
                continue
            if not slot:
                break
            offset = self._slots_at + slot * self._size
            raw = self._bytes[offset : offset + self._size].tobytes()
            head = make_head(raw)
            word = words[self._commit + slot]
            claim = RingClaim(self._reader, table, slot, word, head, raw, self.attachment.pid)
            wrong = problem(raw, head, at.RUNNING, self._inline)
            if head.generation != word & at.GENERATION_MASK:
                wrong = "its commit word is of another generation"
            if not wrong:
                if self.attachment.syncs:  # a task that starts has started, whatever comes
                    self.attachment.wait_for_disk()
                return claim
            # Never unpickled. A reader of the result is told what is wrong.
            while self._run(self._operations.mark_lost, claim) == AGAIN:
                pass
            self._waiters.wake(slot)
            logger.error("%s: a task in slot %d cannot run: %s", self.segment.path, slot, wrong)
        return None

    def wait_for_work(self, timeout_s: float) -> None:
        """Wait for a wake-up: a hint only, the ring is the truth. Signals end it early."""
        work = self._semaphores.work
        assert work is not None  # visitors do not wait
        try:
            work.acquire(timeout_s)
        except posix_ipc.BusyError:
            self.upkeep.renew_semaphores()
        except posix_ipc.SignalError:
            return

    def finish(
        self, claim: RingClaim, *, successful: bool, outcome: bytes | Pickled,
        cancelled: bool = False, timed_out: bool = False,
    ) -> int:  # fmt: skip
        """Store the outcome of a claimed task and make it SUCCESSFUL or FAILED.

        A process that lost its hold on the ring (its task closed all descriptors, or forked and
        both came back) ends here instead, by `os._exit`. A worker waits for a frozen process for as
        long as it takes.

        Returns:
            When it finished (Unix ns).

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
            self._run(self._operations.drop_outcome_chain, claim)
        slots, chain = 1, 0
        # A claim that is closed has an end, or a retry, that was interrupted.
        if head.arguments_chain or head.history_chain or head.ties_chain or not claim.is_open:
            slots = self._table.slots_before_end(claim.slot, head)
        size = len(outcome)
        if isinstance(outcome, bytes) and (start := outcome_at(head, size, self._inline)):
            start += offset
            self._bytes[start : start + size] = outcome
        else:
            outcome = Pickled.of(outcome)
            count = at.slots_for(len(outcome), self._size)
            chain = self._chaining.write_outcome(claim, outcome, count)
            slots += count
        now_ns = time.time_ns()
        state = at.SUCCESSFUL if successful else at.FAILED
        sealed = seal_outcome(now_ns, outcome, chain, head.claim_crc, state)
        self._bytes[offset + OUTCOME_AT : offset + OUTCOME_END] = sealed
        claim.close()
        note = STOP_ASKED if cancelled else 0
        counts_as = outcome_of(successful, cancelled, timed_out)
        end = self._operations.finish
        while (ended := self._run(end, claim, state, slots, note, counts_as)) == AGAIN:
            pass
        if ended is not True:
            if not ended or not claim.is_asked():
                os._exit(EXIT_DETACHED)  # taken for dead, or the pool's SIGKILL is on its way
            raise StopAsked
        # A thread that it has left, or an interrupted wait, leaves that mark.
        if self.words[at.H_WAITED] > now_ns or head.ties_chain or self.registry.marked(WAITS):
            self._tell_ended(claim, now_ns)
        return now_ns

    def _tell_ended(self, claim: RingClaim, now_ns: int) -> None:
        if self.words[at.H_WAITED] > now_ns:
            self._waiters.wake(claim.slot)
        if claim.head.ties_chain:  # for what may follow it
            self.upkeep.wake(1, at.code_of(claim.head.origin))
        if self.registry.marked(WAITS):
            self._run(self._waiters.end_task)

    def retry(self, claim: RingClaim, *, error: TaskErrorText, due_ns: int) -> bool:
        """Make a claimed task READY again; see ``store.Store`` and `Retries.retry`."""
        if not self._retries.retry(self._run, claim, error, due_ns):
            return False
        self._run(self._waiters.end_task)
        if due_ns <= time.time_ns() + SOON_NS:
            self.upkeep.wake(1, at.code_of(claim.head.origin))
        return True

    def wait_for_change(self, found: Found, timeout_s: float) -> None:
        """Wait until a record has ended, or for `timeout_s`; it may return early.

        It sees an end at once, the death of a worker only where another process settles it: `get`
        does that, too.
        """
        if found.slot < self.segment.reserved() and found.state in at.UNFINISHED:
            self._waiters.wait(found.slot, found.word, timeout_s)

    def begin_waiting(self, task_id: str) -> bool:
        """Note that a worker's task waits for others; return False if no worker were left."""
        return self._run(self._waiters.begin_in_task, task_id, self.upkeep.max_workers())

    def end_waiting(self, task_id: str) -> None:
        """Note that it waits no longer."""
        self._run(self._waiters.end_in_task, task_id)

    def save_metadata(
        self, result_id: str, metadata: bytes, claim: RingClaim | None = None
    ) -> None:
        """Replace the metadata of a task; see `Saving.save`."""
        self._saving.save(result_id, metadata, claim)

    def counts(self) -> Counts:
        """Return what is in the ring, without the lock: each number is true for a recent moment."""
        return Counts.of(self._table)
