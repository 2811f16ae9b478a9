"""What keeps a ring in order: for the pool above all, for sites while there is none."""

import logging
import time
from array import array
from collections.abc import Callable, Iterable
from time import sleep
from typing import Any, Final

from django_tasks_local.ring.audit import repair
from django_tasks_local.ring.format.head import S_ID_HIGH
from django_tasks_local.ring.format.ids import slot_of_id
from django_tasks_local.ring.records.loss import Loss, loss_word
from django_tasks_local.ring.records.loss_log import log_loss
from django_tasks_local.ring.records.workforce import Workforce
from django_tasks_local.ring.shm.entries import Entry, Role
from django_tasks_local.ring.shm.limits import shared_drain_timeout_s, shared_max_workers

from . import recovery
from .format import layout as at
from .losses import Losses
from .parts import Parts
from .retries import Retries
from .settling import AGAIN

# Each step in a hold of its own; the pool has other things to see to.
_STEPS_AT_ONCE: Final = 32
_LET_OTHERS_IN_S: Final = 0.0001  # a process that waits for the lock must wake up to take it

logger = logging.getLogger("django_tasks_local")


class Upkeep:
    """What a pool, a site or an operator does for the ring as a whole, and asks of it.

    Args:
        parts: The ring.
        workforce: How pools share MAX_WORKERS.
        retries: How lost tasks are tried again.

    Attributes:
        losses: The lost tasks whose ends are to be announced.
    """

    def __init__(self, parts: Parts, workforce: Workforce, retries: Retries) -> None:
        self._parts = parts
        self._words = parts.words
        self._table = parts.table
        self._registry = parts.registry
        self._mutex = parts.mutex
        self._workforce = workforce
        self._retries = retries
        self.losses = Losses(parts.table, parts.reader, parts.mutex)

    # --- what the dead leave ------------------------------------------------------------------

    def settle(self, index: int, loss: int = 0) -> int:
        """Settle what a dead process left, and return the slot of the task that it ran or 0.

        A pool does not insist here: it has signals to hear, and tries again.

        Args:
            index: The process's entry.
            loss: Why its task was lost, a `loss_word`.

        Raises:
            StoreUnavailable: Another process is frozen inside.
        """
        return self._settle(self._mutex.run, index, loss)

    def settle_dead(self) -> list[Entry]:
        """Settle all that are dead, but leave a living pool's workers to that pool.

        Those that it cannot settle because another process is inside for long are left for the
        next time.

        Returns:
            The living.
        """
        entries = list(self._registry.attachments())
        for entry in entries:
            if not entry.alive:
                self.settle_if_dead(entry.index)
        return [entry for entry in entries if entry.alive]

    def settle_runners(self) -> None:
        """Do as `settle_dead`, if any task runs: for lists, some µs for each attached process."""
        if self._words[at.H_RUNNING]:
            for index, _ in self._registry.roles():
                self.settle_if_dead(index)

    def settle_if_dead(self, index: int) -> bool:
        """Settle an entry if it is dead and its pool cannot do it with better knowledge.

        Returns:
            Whether it was.
        """
        registry = self._registry
        if index >= at.ENTRIES or registry.alive(index):
            return False
        pool = registry.pool_of(index)
        if pool >= 0 and registry.alive(pool):
            return False
        loss = Loss.POOL_DIED if registry.has_pool(index) else Loss.UNKNOWN
        if registry.is_of_earlier_boot(index):
            loss = Loss.RESTARTED
        commit, pid = registry.field(index, at.E_COMMIT), registry.field(index, at.E_PID)
        self._settle(self._mutex.try_run, index, loss_word(loss))
        settled = registry.field(index, at.E_COMMIT) != commit
        if settled and commit >> at.ROLE_SHIFT == Role.POOL:
            logger.error("alias=%s the pool (pid %d) died", self._parts.alias, pid)
        return settled

    def _settle(self, run: Callable[..., int | None], index: int, loss: int) -> int:
        operations = self._parts.operations
        seen = operations.seen(index)
        if seen[1]:
            # One by one, each in a hold of its own; the list is made outside the lock.
            for slot in recovery.owned_by(self._table, index):
                if self._retries.settle(run, slot, index, loss) is None:
                    return 0
                running = self._table.is_run_by(slot, index)
                if not _in_steps(run, operations.settle_record, slot, index, loss):
                    return 0
                if running:
                    self._tell_lost(slot)
        current = self._registry.field(index, at.E_CURRENT)
        retried = self._retries.settle(run, current, index, loss)
        if retried is None:
            return 0
        if lost := _in_steps(run, operations.settle_entry, index, loss, seen) or 0:
            self._tell_lost(lost)
        return lost or retried

    def _tell_lost(self, slot: int) -> None:
        self._parts.waiters.wake(slot)
        self.wake(1)  # a worker, to announce it
        head = self._table.head(slot)
        if head.ties_chain:  # for what may follow it
            self.wake(1, at.code_of(head.origin))
        log_loss(self._parts.reader, self._table, slot)

    # --- rebuild and repair -------------------------------------------------------------------

    def rebuild(self) -> None:
        """Rebuild everything derived."""
        self._mutex.log(self._mutex.run(recovery.rebuild, self._table))

    def check(self) -> list[str]:
        """Return every broken invariant as a sentence: the ring's own audit.

        It holds the lock while it reads everything, about 10 ms for a thousand small records.
        """
        return self._mutex.run(repair.check, self._table, self._registry)

    def repair(self) -> list[str]:
        """Drop records that are damaged, rebuild everything derived, and return what was done.

        What is whole is kept. It holds the lock for as long as `check`.
        """
        return self._mutex.run(repair.repair, self._table, self._registry)

    def reopen_semaphores(self) -> None:
        """Open those that others use now: removed ones serve until a newcomer makes new ones."""
        if self._parts.semaphores.reopen():
            self._mutex.semaphore = self._parts.semaphores.mutex

    def renew_semaphores(self) -> None:
        """Renew the semaphores: a lost wake-up, a removed name. Cheap; call it now and then."""
        self.reopen_semaphores()
        self._mutex.renew_wake_up()

    # --- what is to be done now and then ------------------------------------------------------

    def promote(self) -> None:
        """Move tasks that have fallen due into their FIFOs, and wake workers for them.

        Not where another process is inside for long; a claim does it as well. It leaves after some
        hundreds, of however many: `next_due_ns` then is in the past.
        """
        if self._words[at.H_DEFERRED]:
            for _ in range(_STEPS_AT_ONCE):
                if not self._mutex.try_run(self._table.order.promote, time.time_ns()):
                    break
                sleep(_LET_OTHERS_IN_S)
            self.top_up()

    def trim(self) -> None:
        """Evict what is beyond a MAX_RESULTS that was lowered; some of it at each call."""
        for _ in range(_STEPS_AT_ONCE):
            if not self._mutex.try_run(self._parts.operations.trim):
                break

    def wake(self, count: int, code: int = -1) -> None:
        """Wake up to so many idle workers, ours or those of another code."""
        self._parts.semaphores.wake(count, code)

    def top_up(self) -> None:
        """Replace the wake-ups that killed workers took with them."""
        self.wake(min(self._workforce.runnable(), 1024))

    def set_runnable_up_to(self, serial: int) -> None:
        """Let the workers of this process, a pool, run the tasks of sites up to `serial`."""
        self._registry.set_field(at.E_RUNNABLE_UP_TO, serial)
        # Last: a worker that may claim less must find nothing more then.
        self._parts.leadership.set_runnable_up_to(serial)
        self.top_up()

    # --- what is there ------------------------------------------------------------------------

    def is_temporary(self) -> bool:
        """Return whether this is the ring of a test run."""
        return bool(self._words[at.H_TEMPORARY])

    def max_workers(self) -> int:
        """Return how many worker processes the host may have for this ring."""
        return shared_max_workers(self._words)

    def drain_timeout_s(self) -> float | None:
        """Return how long work may go on when no site is left; None: until it is done."""
        return shared_drain_timeout_s(self._words)

    def waiting(self) -> int:
        """Return how many tasks wait to be claimed now."""
        return self._table.order.waiting()

    def has_work(self) -> bool:
        """Return whether a task waits or runs."""
        return bool(self._words[at.H_RUNNING] or self.waiting())

    def has_unfinished(self) -> bool:
        """Return whether there is any task that has not ended, be it deferred."""
        return bool(self._words[at.H_UNFINISHED])

    def is_busy(self, worker: Entry) -> bool:
        """Return whether a worker runs a task right now."""
        return self._table.is_run_by(worker.slot, worker.index)

    def next_due_ns(self) -> int:
        """Return when the next deferred task falls due (Unix ns).

        0 for none, or if it cannot be asked since another process is inside for long.
        """
        if not self._words[at.H_DEFERRED]:
            return 0
        return self._mutex.try_run(self._table.order.next_due_ns) or 0

    def work_is_due(self, within_s: float, living: Iterable[Entry] = ()) -> bool:
        """Return whether a task that our pool would run waits, or falls due within so many seconds.

        An end of a lost task that its workers have to announce counts as well.

        Args:
            within_s: How far to look.
            living: Who is attached: where our site is the newest, codes without any are ours, too.
        """
        code = self._registry.code
        if self._words[at.H_DIRTY] or (code >= 0 and self._words[at.H_UNTOLD + code]):
            return True
        waiting, deferred = self._parts.codes.cared_for(code, living)
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
            if self._table.state(slot) in at.UNFINISHED and self._words[word] == high:
                kept.extend((high, low))
        return kept


def _in_steps(run: Callable[..., int | None], operation: Callable[..., int], *args: Any) -> int:
    """Return what an operation comes to that may need several holds; 0 where ``run`` gave up."""
    while (came_of_it := run(operation, *args)) == AGAIN:
        pass
    return came_of_it or 0
