"""One process's attachment to a ring: its parts put together, and what keeping house needs."""

import logging
import os
import time
from array import array
from collections.abc import Callable, Iterable
from functools import partial
from time import sleep
from typing import Final

import posix_ipc

from django_tasks_local.ring.audit import repair
from django_tasks_local.ring.format.head import S_ID_HIGH, inline_bytes
from django_tasks_local.ring.format.ids import slot_of_id
from django_tasks_local.ring.records.codes import Codes, code_digest
from django_tasks_local.ring.records.expiry import Expiry
from django_tasks_local.ring.records.killing import Killing
from django_tasks_local.ring.records.loss import Loss, loss_word
from django_tasks_local.ring.records.loss_log import log_loss
from django_tasks_local.ring.records.reader import Reader
from django_tasks_local.ring.records.table import Table
from django_tasks_local.ring.records.workforce import Workforce
from django_tasks_local.ring.shm.leadership import Leadership
from django_tasks_local.ring.shm.limits import Limits, shared_drain_timeout_s, shared_max_workers
from django_tasks_local.ring.shm.lock import GUARD, ByteLock
from django_tasks_local.ring.shm.mutex import Mutex
from django_tasks_local.ring.shm.registry import Attachment, Registry, Role
from django_tasks_local.ring.shm.segment import Segment, attach_segment
from django_tasks_local.ring.shm.semaphores import Semaphores
from django_tasks_local.ring.shm.waiters import Waiters

from . import recovery
from .enrolment import Enrolment, enrol
from .format import layout as at
from .look import Counts
from .metadata import MetadataOperations
from .operations import Written
from .refusals import Refusals
from .stops import Stops

# Each step in a hold of its own; the pool has other things to see to.
_STEPS_AT_ONCE: Final = 32
_LET_OTHERS_IN_S: Final = 0.0001  # a process that waits for the lock must wake up to take it

logger = logging.getLogger("django_tasks_local")


class Attached:
    """What every attached process can do; `Ring` adds the tasks. A forked child makes its own.

    Attributes:
        name: The common part of the objects' names.
        alias: The alias of the backend, for texts and worker ids.
        limits: The options.
        path: This process's settings file.
        pid: The process that this attachment belongs to.
        segment: The memory.
        registry: Who is attached.
        codes: Whose tasks are in the ring.
        workforce: How pools share MAX_WORKERS.
        expiry: When finished results expire.
        killing, stops: Workers that are to be killed, tasks that are to stop.
        digest: Which code this process runs.
    """

    def __init__(
        self, name: str, alias: str, limits: Limits, role: Role, *, path: str = "",
        digest: int = 0, passing: bool = False, pool: int = -1,
    ) -> None:  # fmt: skip
        """Attaches, and makes the ring where there is none.

        A visitor gets its entry later, if somebody is inside for long: reading needs neither.

        Args:
            name: As from `ring_name`.
            alias: The alias of the backend, for texts and worker ids.
            limits: The options.
            role: What this process is to the ring.
            path: Its settings file.
            digest: What its code is, see `code_digest`; 0: that of its settings file.
            passing: Marks a new ring as that of a test run.
            pool: A worker's pool (its entry).

        Raises:
            StoreUnavailable: See `attach_segment`.
        """
        self.name = name
        self.alias = alias
        self.limits = limits
        self.path = path
        self.pid = os.getpid()
        make = role not in (Role.POOL, Role.WORKER)
        self.segment: Segment = attach_segment(name, limits.geometry, passing=passing, make=make)
        self.words = self.segment.words
        self._bytes = self.segment.bytes
        self._table = Table(self.segment)
        self._commit = self._table.commit
        self._slots_at = self._table.geometry.slots_at
        self._size = self._table.geometry.slot_size
        self._inline = inline_bytes(self._size)
        self.registry = Registry(self.segment)
        self.codes = Codes(self.segment, self._table.order)
        self.digest = digest or code_digest(path)
        self._leadership: Leadership | None = None
        self._reader = Reader(self._table, alias)
        self._do = MetadataOperations(self._table, self.registry)
        self._enrolment = Enrolment(self.registry, self.codes, path, self.digest)
        self._semaphores = Semaphores(self.segment)
        self._waiters = Waiters(self.segment, self.registry)
        self._mutex = self._shared_mutex()
        self.workforce = Workforce(self.registry, self.codes, self._mutex)
        self.expiry = Expiry(self._table, self._mutex)
        self.killing = Killing(self._table, self._mutex)
        self.refusals = Refusals(self._table, self._mutex, alias, self._inline)
        self.stops = Stops(
            self._table, self.registry, self._reader, self.expiry, self._mutex.run,
            self._waiters.wake,
        )  # fmt: skip
        self._abandoned: list[Written] = []  # by enqueues that could not free it themselves
        if not self.words[at.H_MAX_WORKERS]:  # just made, and no site has come yet
            limits.share(self.words)
        # Workers and their pool wait for as long as it takes: what they do is done by nobody else.
        self._settled = self._mutex.insist if role in (Role.POOL, Role.WORKER) else self._mutex.run
        run = self._mutex.try_run if role is Role.VISITOR else self._settled
        enrol(self.reap_dead, run, self._enrolment.register, role, pool)
        self._semaphores.take_code(self.registry.code)

    @property
    def leadership(self) -> Leadership:
        """Who runs the pool of our code; of no use to a visitor, which has none."""
        code = max(self.registry.code, 0)
        if self._leadership is None or self._leadership.code != code:
            self._leadership = Leadership(self.segment, code)
        return self._leadership

    def take_code(self) -> posix_ipc.Semaphore:
        """Gives a visitor the number of its code, since it enqueues.

        Returns:
            The semaphore on which the workers of that code wait.

        Raises:
            StoreUnavailable: All numbers are in use.
        """
        if self.registry.code < 0:
            enrol(self.reap_dead, self._settled, self._enrolment.become, Role.VISITOR, True)
        self._semaphores.take_code(self.registry.code)
        return self._semaphores.work

    def wait_for_work(self, timeout_s: float) -> None:
        """Waits for a wake-up: a hint only, the ring is the truth. Signals end it early."""
        work = self._semaphores.work
        assert work is not None  # visitors do not wait
        try:
            work.acquire(timeout_s)
        except posix_ipc.BusyError:
            self.heal()
        except posix_ipc.SignalError:
            return

    def top_up(self) -> None:
        """Replaces the wake-ups that killed workers took with them."""
        self.wake(min(self.workforce.runnable(), 1024))

    def clear(self, serial: int) -> None:
        """A pool: lets its workers run the tasks of sites up to `serial`."""
        self.registry.set_field(at.E_CLEARED, serial)
        self.leadership.set_cleared(serial)  # last: who claims less may claim nothing then
        self.top_up()

    def promote(self) -> None:
        """Moves tasks that have fallen due into their FIFOs, and wakes workers for them.

        Not where somebody is inside for long; a claim does it as well. It leaves after some
        hundreds, of however many: `next_due_ns` then is in the past.
        """
        if self.words[at.H_DEFERRED]:
            for _ in range(_STEPS_AT_ONCE):
                if not self._mutex.try_run(self._table.order.promote, time.time_ns()):
                    break
                sleep(_LET_OTHERS_IN_S)
            self.top_up()

    def trim(self) -> None:
        """Evicts what is beyond a MAX_RESULTS that was lowered; some of it at each call."""
        for _ in range(_STEPS_AT_ONCE):
            if not self._mutex.try_run(self._do.trim):
                break

    def next_due_ns(self) -> int:
        """When the next deferred task falls due (unix ns), 0 for none, or if it can't be asked."""
        if not self.words[at.H_DEFERRED]:
            return 0
        return self._mutex.try_run(self._table.order.next_due_ns) or 0

    def heal(self) -> None:
        """Mends the semaphores: a lost token, a removed name. Cheap; call it now and then."""
        self.renew_semaphores()
        self._mutex.heal()

    def renew_semaphores(self) -> None:
        """Opens those that others use now: removed ones serve until a newcomer makes new ones."""
        if self._semaphores.renew():
            self._mutex.semaphore = self._semaphores.mutex

    def reap(self, index: int, loss: int = 0) -> int:
        """Settles what a dead process left; the slot of the task that was lost, 0 for none.

        A pool does not insist here: it has signals to hear, and tries again.

        Raises:
            StoreUnavailable: Somebody is frozen inside.
        """
        return self._reap(self._mutex.run, index, loss)

    def reap_dead(self) -> list[Attachment]:
        """Reaps every dead entry, but leaves a living pool's workers to that pool.

        Those that it cannot reap because somebody is inside for long are left for the next time.

        Returns:
            The living.
        """
        entries = list(self.registry.attachments())
        for entry in entries:
            if not entry.alive:
                self._bury(entry.index)
        return [entry for entry in entries if entry.alive]

    def become(self, role: Role, *, needed: bool = True) -> bool:
        """Takes another role, and with it a new serial; a site's limits hold for all.

        Args:
            role: The new role.
            needed: False to give it up where somebody is inside for long.

        Returns:
            Whether it was done.
        """
        run = self._settled if needed else self._mutex.try_run
        if not enrol(self.reap_dead, run, self._enrolment.become, role, role is not Role.VISITOR):
            return False
        if role is Role.SITE:
            self.limits.share(self.words)
        self._semaphores.take_code(self.registry.code)
        return True

    def hold(self) -> bool:
        """Sees to it that others see us alive; False where they have taken us for dead already."""
        return self.registry.hold()

    def take_place(self, *, needed: bool = True) -> None:
        """Takes an entry of the registry: ours was reaped while we live, or we got none yet.

        Args:
            needed: False to give it up where somebody is inside for long.
        """
        run = self._settled if needed else self._mutex.try_run
        enrol(self.reap_dead, run, self._enrolment.take_place)

    def detach(self) -> None:
        """Leaves the ring; nothing that was accepted depends on it.

        Where somebody is inside for long, the entry stays until this process has ended.
        """
        if self.pid == os.getpid() and self.registry.index >= 0:
            self._mutex.try_run(self._do.leave)

    def set_limits(self, limits: Limits) -> None:
        """Applies changed options, at once and for all processes; the geometry stays."""
        self.limits = limits
        limits.share(self.words)

    def recover(self) -> None:
        """Rebuilds everything derived."""
        self._mutex.log(self._mutex.run(recovery.rebuild, self._table))

    def check(self) -> list[str]:
        """The ring's own audit: every broken invariant as a sentence.

        It holds the lock while it reads everything, about 10 ms for a thousand small records.
        """
        return self._mutex.run(repair.check, self._table, self.registry)

    def repair(self) -> list[str]:
        """Drops records that are damaged, rebuilds everything derived, and says what it did.

        What is whole is kept. It holds the lock for as long as `check`.
        """
        return self._mutex.run(repair.repair, self._table, self.registry)

    def counts(self) -> Counts:
        """What is in the ring, without the lock: each number is true for some recent moment."""
        return Counts.of(self._table)

    def intact(self) -> bool:
        """Whether our objects are those that others find, and our descriptor is open."""
        return self.segment.intact()

    @property
    def passing(self) -> bool:
        """Whether this is the ring of a test run."""
        return bool(self.words[at.H_PASSING])

    def max_workers(self) -> int:
        """How many worker processes the host may have for this ring."""
        return shared_max_workers(self.words)

    def drain_timeout_s(self) -> float | None:
        """How long work may go on when no site is left; None: until it is done."""
        return shared_drain_timeout_s(self.words)

    def waiting(self) -> int:
        """How many tasks wait to be claimed now."""
        return self._table.order.waiting()

    def has_work(self) -> bool:
        """Whether a task waits or runs."""
        return bool(self.words[at.H_RUNNING] or self.waiting())

    def has_unfinished(self) -> bool:
        """Whether there is any task that has not ended, be it deferred."""
        return bool(self.words[at.H_UNFINISHED])

    def wake(self, count: int, code: int = -1) -> None:
        """Wakes up to so many idle workers, ours or those of another code."""
        self._semaphores.wake(count, code)

    def work_is_due(self, within_s: float, living: Iterable[Attachment] = ()) -> bool:
        """Whether a task that our pool would run waits, or falls due within so many seconds.

        Args:
            within_s: How far to look.
            living: Who is attached: where our site is the newest, codes without any are ours, too.
        """
        if self.words[at.H_DIRTY]:
            return True
        waiting, deferred = self.codes.cared_for(self.registry.code, living)
        if waiting or not deferred:
            return waiting
        due_ns = self.next_due_ns()
        return bool(due_ns) and due_ns <= time.time_ns() + int(within_s * 1e9)

    def unfinished(self, ids: "array[int]") -> "array[int]":
        """Return those of the ids (two words each, as from `put`) whose tasks have not finished."""
        kept = array("Q")
        for high, low in zip(ids[::2], ids[1::2], strict=True):
            slot = slot_of_id(low)
            word = self._table.offset(slot) // 8 + S_ID_HIGH
            if self._table.state(slot) in at.UNFINISHED and self.words[word] == high:
                kept.extend((high, low))
        return kept

    def busy(self, worker: Attachment) -> bool:
        """Whether a worker runs a task right now."""
        return self._table.is_run_by(worker.slot, worker.index)

    def _bury(self, index: int) -> bool:
        """Reaps an entry if it is dead and its pool can't do it with better knowledge."""
        registry = self.registry
        if index >= at.ENTRIES or registry.alive(index):
            return False
        pool = registry.pool_of(index)
        if pool >= 0 and registry.alive(pool):
            return False
        loss = Loss.POOL_DIED if registry.has_pool(index) else Loss.UNKNOWN
        commit, pid = registry.field(index, at.E_COMMIT), registry.field(index, at.E_PID)
        lost = self._reap(self._mutex.try_run, index, loss_word(loss))
        if commit >> at.ROLE_SHIFT == Role.POOL and registry.field(index, at.E_COMMIT) != commit:
            logger.error("alias=%s the pool (pid %d) died", self.alias, pid)
        return bool(lost)

    def _reap(self, run: Callable[..., int | None], index: int, loss: int) -> int:
        several = self.registry.field(index, at.E_OTHERS) != 0
        if several:
            # One by one, each in a hold of its own; the list is made outside the lock.
            for slot in recovery.owned_by(self._table, index):
                running = self._table.is_run_by(slot, index)
                if not run(self._do.settle, slot, index, loss):
                    return 0
                if running:
                    self._waiters.wake(slot)
                    log_loss(self._reader, self._table, slot)
        if lost := run(self._do.reap, index, loss, several) or 0:
            self._waiters.wake(lost)
            log_loss(self._reader, self._table, lost)
        return lost

    def _shared_mutex(self) -> Mutex:
        """This process's mutex of the segment: the first attachment makes it."""
        guard, rebuild = ByteLock(self.segment.fd, GUARD), partial(recovery.rebuild, self._table)
        made = Mutex(self._semaphores.mutex, guard, self.words, rebuild, self.segment.path)
        return self.segment.mutexes.setdefault(self.pid, made)
