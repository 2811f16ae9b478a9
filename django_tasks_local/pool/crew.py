"""The worker processes of one pool: start them, wait for them, settle what they leave behind."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from django_tasks_local.ring import Loss, Ring, loss_word
from django_tasks_local.stopping import STOP_SIGNAL

from .copies import EXIT_S
from .oom import OomKills

logger = logging.getLogger("django_tasks_local")

# The pause after a worker that died without having claimed a task, doubled each time.
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0


@dataclass
class Child:
    """One worker process, and our end of the pipe that keeps it alive."""

    pid: int
    life: int
    started: float


class Crew:
    """The children of a pool's process.

    Args:
        ring: The pool's attachment.
        start_worker: Makes a worker process from the read end of its life pipe, the bell and what
            a forked child must close, and returns the pid. It may fail.
        bell: The read end of the pipe that wakes the pool; no child keeps it.
        bell_end: The pipe's write end, which every child gets.
    """

    def __init__(
        self, ring: Ring, start_worker: Callable[[int, int, list[int]], int], bell: int,
        bell_end: int,
    ) -> None:  # fmt: skip
        self._ring = ring
        self._start_worker = start_worker
        self._bell, self._bell_end = bell, bell_end
        self._children: dict[int, Child] = {}
        # Workers waited for, but not settled yet, with exit code and `loss_word`.
        self._ended: list[tuple[Child, int, int]] = []
        self._loss: Loss | None = None  # why we kill our workers, if we do
        self._pause_until = 0.0
        self._early_deaths = 0
        self._oom_kills = OomKills()
        self._succeeded: set[int] = set()  # pids of those whose successors were started

    def __len__(self) -> int:
        """Return how many workers have not ended."""
        return len(self._children)

    @property
    def settled(self) -> bool:
        """Whether the ring knows the end of every worker that has ended."""
        return not self._ended

    @property
    def paused(self) -> bool:
        """Whether the last workers died so early that the next one has to wait."""
        return time.monotonic() < self._pause_until

    def start(self) -> None:
        """Start one worker. A failure leaves no descriptor and no process behind."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            to_close = [child.life for child in self._children.values()] + [write_end, self._bell]
            pid = self._start_worker(read_end, self._bell_end, to_close)
            self._children[pid] = Child(pid, write_end, time.monotonic())
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)

    def unsucceeded(self, retiring: Iterable[int]) -> list[int]:
        """Return the pids of those that wait for a successor, and for whom none was started."""
        waiting = {pid for pid in retiring if pid in self._children}
        self._succeeded &= waiting
        return sorted(waiting - self._succeeded)

    def succeed(self, pids: Iterable[int]) -> None:
        """Note that successors of these are started."""
        self._succeeded.update(pids)

    def look_for_oom_kills(self) -> None:
        """Take in what the kernel has counted, so that a later death is not put down to it."""
        self._oom_kills.look()

    def kill_one(self, pid: int) -> None:
        """Kill one of them; why stands in the record of its task, see `Killing`."""
        # It is ours and was not waited for: nobody else has that pid.
        if pid in self._children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # and its group when it is waited for

    def kill(self, loss: Loss) -> None:
        """Kill all workers; ``loss`` says why in the records of their tasks."""
        self._loss = loss
        for child in self._children.values():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    def tell_to_stop(self, pid: int) -> None:
        """Have a worker look whether its task is to stop.

        The pid of a child, be it dead, is no other process's until we have waited for it.
        """
        if pid in self._children:
            with suppress(ProcessLookupError):
                os.kill(pid, STOP_SIGNAL)

    def reap(self) -> None:
        """Wait for workers that have ended, and settle what they left.

        Raises:
            StoreUnavailable: The ring cannot take it now. Nothing is forgotten: call again.
        """
        for child in list(self._children.values()):
            try:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
            except ChildProcessError:  # code of the project waits for every child
                pid, status = child.pid, 0
            if not pid:
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what its task had started
            os.close(child.life)
            del self._children[pid]
            code = os.waitstatus_to_exitcode(status)
            self._ended.append((child, code, self._word(code)))
        while self._ended:
            self._settle(*self._ended[0])
            del self._ended[0]

    def _word(self, code: int) -> int:
        # A worker that ended on its own just before keeps its own cause.
        if self._loss is not None and code == -signal.SIGKILL:
            return loss_word(self._loss)
        if code == -signal.SIGKILL and self._oom_kills.recently():
            return loss_word(Loss.OUT_OF_MEMORY, -code)
        return loss_word(Loss.SIGNAL, -code) if code < 0 else loss_word(Loss.EXIT, code)

    def _settle(self, child: Child, code: int, word: int) -> None:
        index = self._ring.registry.index
        entries = self._ring.registry.attachments()
        mine = (e for e in entries if e.pool == index and e.pid == child.pid)
        lost = sum(bool(self._ring.upkeep.settle(entry.index, word)) for entry in list(mine))
        if lost:  # `Upkeep.settle` has logged it, with the task's id
            self._early_deaths = 0
            return
        if code and self._loss is None:
            how = f"exit code {code}"
            if code < 0:
                how = f"signal {-code} ({signal.strsignal(-code)})"
            if code == -signal.SIGALRM:
                how += f", because its exit functions took longer than {EXIT_S:g} s"
            logger.error("alias=%s worker pid=%d ended: %s", self._ring.alias, child.pid, how)
        if code and time.monotonic() - child.started < LONGEST_PAUSE_S:
            self._early_deaths += 1
            pause_s = min(FIRST_PAUSE_S * 2 ** min(self._early_deaths, 10), LONGEST_PAUSE_S)
            self._pause_until = time.monotonic() + pause_s
        else:
            self._early_deaths = 0
