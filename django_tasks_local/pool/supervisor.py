"""The pool process: starts workers, buries them, keeps house, and knows when to go.

It holds no lock of the ring while it starts or waits for a child, and stays out of the ring's
slots but for what it asks of the store: whoever may be killed must not be in the way.
"""

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final

from django_tasks_local.store import Attachment, Loss, PoolState, Ring, Role, loss_word

from .code import LoadedFiles
from .ticks import until_tick_s

logger = logging.getLogger("django_tasks_local")

SHORT_TICK_S: Final = 0.05  # while it is about to leave
# How often a pool that waits for its predecessor looks whether it has gone.
TURN_S: Final = 0.01
# No site for this long: gunicorn may be between two workers, or the machine busy.
ALONE_S: Final = 1.0
# The pause after a worker that died without having claimed a task, doubled each time.
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0


@dataclass
class Child:
    """One worker process, and our end of the pipe that keeps it alive."""

    pid: int
    life: int
    started: float


class Supervisor:
    """One pool, from its place in the ring's file to its end.

    Args:
        ring: Attached as POOL.
        start_worker: Makes a worker process: given the read end of its life pipe, the bell and
            what a forked child must close, returns the pid.
        foreground: ``local_worker``: stays when no site is left.
        cleared: The newest site's serial when this process had loaded nothing yet.
        lender: The serial of the script whose piped output is ours too, 0 for none.
    """

    def __init__(
        self,
        ring: Ring,
        start_worker: Callable[[int, int, list[int]], int],
        *,
        foreground: bool,
        cleared: int,
        lender: int = 0,
    ) -> None:
        self._ring = ring
        self._foreground = foreground
        self._start_worker = start_worker
        self._files = LoadedFiles()
        self._children: dict[int, Child] = {}
        self._entries: list[Attachment] = []  # who lived when this tick began
        self._cleared = cleared
        self._lender = lender
        self._asked = False  # for a successor
        self._leaving = False
        self._stop_requests = 0
        self._alone_since: float | None = None
        self._loss: Loss | None = None  # what kills our workers, if we do it ourselves
        self._pause_until = 0.0
        self._early_deaths = 0
        self._bell, self._bell_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Serves until it is time to go. Returns when no worker is left."""
        self._take_signals()
        self._ring.registry.set_state(PoolState.STARTING)
        if not self._wait_for_turn():
            return
        self._ring.registry.set_cleared(self._cleared)
        self._ring.registry.set_state(PoolState.SERVING)
        self._ring.reap_dead()
        logger.info("alias=%s pool pid=%d serves", self._ring.alias, os.getpid())
        while not (self._leaving and not self._children):
            self._keep_house()
            self._bury_children()
            if not self._leaving:
                self._hire()
            self._ring.leadership.set_workers(self._count_workers())
            self._sleep()
        logger.info("alias=%s pool pid=%d ends", self._ring.alias, os.getpid())

    def stop(self) -> None:
        """Asks for the end: a hand-over while sites are attached, else a short drain."""
        self._stop_requests += 1

    def _take_signals(self) -> None:
        # The handlers only have to exist: the wake-up descriptor does the rest.
        signal.set_wakeup_fd(self._bell_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop if self._foreground else signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop()

    def _wait_for_turn(self) -> bool:
        """Waits for the pool's place; False where there is nothing left to wait for."""
        ring = self._ring
        while not ring.leadership.take_pool():
            self._entries = ring.reap_dead()
            if self._stop_requests or not (self._foreground or self._sites()):
                return False
            time.sleep(TURN_S)
        return True

    # --- what a tick does -----------------------------------------------------------------------

    def _keep_house(self) -> None:
        ring = self._ring
        if not self._leaving and not (ring.hold() and ring.leadership.hold_pool()):
            logger.error(
                "alias=%s pool pid=%d was taken for dead: something in it opened and closed the "
                "file of the shared memory, which drops its record locks. Its tasks run to their "
                "end, and another pool takes over.", ring.alias, os.getpid(),
            )  # fmt: skip
            self._leave()
        ring.heal()
        ring.promote()
        # Before the entries are read: the newest site is one of them, or has gone.
        newest = ring.leadership.newest_site()
        self._entries = ring.reap_dead()
        sites = self._sites()
        if not self._leaving:
            current = self._compare_code(sites, newest)
            if current and sites and (self._stop_requests or self._lender_gone(sites)):
                why = "told to stop" if self._stop_requests else "its script has ended"
                self._ask_for_successor(0, why)
            if self._successor_ready():
                self._leave()
        if self._stop_requests > 1:
            self._abandon()
        else:
            self._mind_being_alone(bool(sites))
        if self._leaving or len(self._children) > ring.max_workers():
            ring.wake(len(self._children))  # the idle ones, to see that they are to go
        ring.top_up()

    def _compare_code(self, sites: list[Attachment], newest: int) -> bool:
        """Clears the tasks of sites that attached since, or asks for a pool with their code.

        Returns:
            Whether our code is theirs.
        """
        if newest <= self._cleared:
            return True
        newcomers = [site for site in sites if site.serial > self._cleared]
        registry = self._ring.registry
        paths = (registry.path_of(site.index) for site in newcomers)
        stranger = next((path for path in paths if path != registry.path), None)
        changed = self._files.changed()
        if stranger is None and not changed:
            self._cleared = newest
            registry.set_cleared(newest)
            self._ring.top_up()
            return True
        # An older site would start a pool with its own settings. It may, where the newer ones have
        # gone: what they enqueued must not wait for ever.
        first = min((site.serial for site in newcomers), default=0)
        self._ask_for_successor(
            first, f"{changed} changed" if changed else f"settings at {stranger}"
        )
        return False

    def _ask_for_successor(self, serial: int, why: str) -> None:
        if not self._asked:
            self._asked = True
            # In the foreground it is the reason why the command ends.
            level = logging.WARNING if self._foreground else logging.INFO
            logger.log(
                level, "alias=%s pool pid=%d asks for a successor: %s",
                self._ring.alias, os.getpid(), why,
            )  # fmt: skip
        self._ring.leadership.ask_for_successor(serial)

    def _lender_gone(self, sites: list[Attachment]) -> bool:
        """Whether who reads a script's output (cron, ssh, a pipe) waits for us alone."""
        return self._lender > 0 and all(site.serial != self._lender for site in sites)

    def _successor_ready(self) -> bool:
        return any(
            entry.role is Role.POOL
            and entry.state == PoolState.STARTING
            and entry.index != self._ring.registry.index
            for entry in self._entries
        )

    def _leave(self) -> None:
        """Claims nothing more. The successor may start as soon as the place is free."""
        self._leaving = True
        self._ring.registry.set_state(PoolState.LEAVING)
        self._ring.leadership.leave_pool()

    def _mind_being_alone(self, company: bool) -> None:
        now = time.monotonic()
        ring = self._ring
        removed = not ring.intact()
        if not removed and (company or (self._foreground and not self._stop_requests)):
            self._alone_since = None
            return
        if self._alone_since is None:
            self._alone_since = now
        alone_s = now - self._alone_since
        drain_s = ring.drain_timeout_s()
        if removed and ring.passing:
            drain_s = 0.0  # the test run has ended
        elif company:
            drain_s = None  # nothing more comes through a removed ring, but what came is done
        # Nobody else can ever run what is deferred in a removed ring.
        busy = ring.has_unfinished() if removed and company else ring.has_work()
        if drain_s is not None and alone_s >= max(drain_s, ALONE_S):
            self._abandon()
        elif not (self._leaving or busy) and (alone_s >= ALONE_S or self._lender_gone([])):
            self._leave()

    def _abandon(self) -> None:
        """Leaves now, and kills what still runs."""
        if not self._leaving:
            self._leave()
        self._loss = Loss.DRAINED
        for child in self._children.values():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    # --- workers ----------------------------------------------------------------------------------

    def _hire(self) -> None:
        """Starts workers as long as a task waits and none is idle, up to MAX_WORKERS."""
        workers = self._workers()
        ours = [worker for worker in workers if worker.pool == self._ring.registry.index]
        idle = len(self._children) - sum(self._ring.busy(worker) for worker in ours)
        # One more than waits: the next task then starts without a fork before it.
        wanted = min(self._ring.waiting() + 1, self._ring.max_workers()) - idle
        others = len(workers) - len(ours)
        allowed = self._ring.max_workers() - others - len(self._children)
        if time.monotonic() < self._pause_until:
            return
        for _ in range(min(wanted, allowed)):
            self._start_child()

    def _start_child(self) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        to_close = [child.life for child in self._children.values()] + [write_end, self._bell]
        pid = self._start_worker(read_end, self._bell_end, to_close)
        os.close(read_end)
        self._children[pid] = Child(pid, write_end, time.monotonic())

    def _bury_children(self) -> None:
        for child in list(self._children.values()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what its task had started
            os.close(child.life)
            del self._children[pid]
            self._settle(child, status)

    def _settle(self, child: Child, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        if self._loss is not None:
            word = loss_word(self._loss)
        elif code < 0:
            word = loss_word(Loss.SIGNAL, -code)
        else:
            word = loss_word(Loss.EXIT, code)
        index = self._ring.registry.index
        entries = self._ring.registry.attachments()
        mine = (e for e in entries if e.pool == index and e.pid == child.pid)
        lost = sum(self._ring.reap(entry.index, word) for entry in list(mine))
        if lost:
            self._early_deaths = 0
            logger.error(
                "alias=%s worker pid=%d ended with a task in hand: %s", self._ring.alias, child.pid,
                f"signal {-code}" if code < 0 else f"exit code {code}",
            )  # fmt: skip
        elif code and time.monotonic() - child.started < LONGEST_PAUSE_S:
            self._early_deaths += 1
            pause_s = min(FIRST_PAUSE_S * 2**self._early_deaths, LONGEST_PAUSE_S)
            self._pause_until = time.monotonic() + pause_s
        else:
            self._early_deaths = 0

    def _workers(self) -> list[Attachment]:
        return [entry for entry in self._entries if entry.role is Role.WORKER]

    def _count_workers(self) -> int:
        index = self._ring.registry.index
        return len(self._children) + sum(worker.pool != index for worker in self._workers())

    def _sites(self) -> list[Attachment]:
        return [entry for entry in self._entries if entry.role is Role.SITE]

    def _sleep(self) -> None:
        """Waits for a signal, a worker's bell, the next due task or the next tick."""
        timeout_s = until_tick_s()
        if self._asked or self._alone_since is not None:
            timeout_s = SHORT_TICK_S
        if due_ns := self._ring.next_due_ns():
            timeout_s = min(timeout_s, max(0.0, (due_ns - time.time_ns()) / 1e9))
        if select.select([self._bell], [], [], timeout_s)[0]:
            with suppress(BlockingIOError):
                os.read(self._bell, 4096)
