"""The mutex of a ring: kernel record lock, named semaphore, dirty flag.

Three parts, because no single one survives everything (each fact here was measured):

- the **guard**, a POSIX record lock on one byte far behind the end of the segment, is what
  excludes: the kernel drops it with the process, whatever killed it, and no pid, start time or
  time-out has to be believed. It has no queue, so nobody waits on it alone;
- the **semaphore** is where those wait who find the guard taken. They say so in QUEUED, and who
  leaves after that wakes one of them. Where nobody waits, nobody touches it;
- the **dirty word** says that a process died, or was interrupted, between two writes: the
  process that is next inside rebuilds what is derived before it does anything else.

A wake-up that is lost, with a process that was killed inside or on its way out, costs one chunk of
waiting; one too many is harmless, since the guard decides.

There are three manners of going in, by what depends on it: `run` for what the caller asked for,
`try_run` for what may be left out or done later, `insist` for what would be lost. A thread that
waits for another process holds nothing that other threads of its own need.
"""

import logging
import os
import struct
import sys
import threading
from collections.abc import Callable
from enum import Enum, auto
from os import sched_yield
from time import monotonic
from typing import Any, Final

import posix_ipc

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.interruptions import raise_swallowed
from django_tasks_local.ring.format import layout as at

from . import patience
from .errors import frozen, inconsistent
from .lock import ByteLock
from .patience import Patience, Sighting

logger = logging.getLogger("django_tasks_local")

# How often to look again before sleeping: who is inside leaves within 5 to 10 µs, and a sleep costs
# 50. Two workers and a busy site on two cores: 19,400 tasks a second without, 21,400 with 5 to 20,
# 20,300 with 100 (medians of one run).
SPINS: Final = 10
# The chunks of who goes on waiting for a frozen process, perhaps for hours.
LONG_CHUNK_S: Final = 0.1


class Notice(str):
    """What a rebuild has to say that is no damage."""

    __slots__ = ()


class _Manner(Enum):
    """What becomes of a call that finds another process inside."""

    NEEDED = auto()  # an error once that process counts as frozen
    OPTIONAL = auto()  # given up after one chunk
    INSISTING = auto()  # goes on waiting


# What stands for a result where another process is inside.
_KEPT_OUT: Final = object()


class Mutex:
    """One at a time inside the ring: of all threads of all processes of the host.

    Args:
        guard: The lock that excludes.
        semaphore: The wake-ups of those that wait for it.
        words: The segment as 8-byte words.
        rebuild: Rebuilds everything derived, and says what it had to drop; called inside, when
            the last one left it dirty, or the host was restarted.
        path: What to name when the lock cannot be had.
    """

    def __init__(
        self,
        guard: ByteLock,
        semaphore: posix_ipc.Semaphore,
        words: memoryview,
        rebuild: Callable[[], list[str]],
        path: str,
    ) -> None:
        self.semaphore = semaphore
        self._guard = guard
        self._attempt = guard.attempt
        self._release = guard.release
        self._words = words
        self._rebuild = rebuild
        self._path = path
        # An RLock, so that a signal handler which comes back in is told so instead of hanging.
        self._threads = threading.RLock()
        self._inside = False
        # Who kept a thread of ours out, and whether it is called frozen: the others need not find
        # that out again, each for itself, as long as nothing moves.
        self._stuck: tuple[Sighting, bool] | None = None

    def run[*A, R](self, function: Callable[[*A], R], *args: *A) -> R:
        """Call `function` inside and return what it returns.

        It blocks while others are inside (microseconds each). Any exception, one that a signal
        handler raised included, leaves the ring marked dirty if `function` had marked it, and
        the mutex free.

        Raises:
            StoreUnavailable: One process has been inside for 30 s, frozen (SIGSTOP, a debugger);
                or our descriptor was closed.
            RuntimeError: A signal handler called this while its own thread was inside.
        """
        result: Any = self._once(function, args)
        if result is _KEPT_OUT:
            result = self._wait(_Manner.NEEDED, function, args)
        return result  # type: ignore[no-any-return]

    def try_run[*A, R](self, function: Callable[[*A], R], *args: *A) -> R | None:
        """Do as `run`, but give up after a chunk, 5 ms, and return None.

        For what is no harm to leave out, or is tried again later.
        """
        result: Any = self._once(function, args)
        if result is _KEPT_OUT:
            result = self._wait(_Manner.OPTIONAL, function, args)
        return result  # type: ignore[no-any-return]

    def insist[*A, R](self, function: Callable[[*A], R], *args: *A) -> R:
        """Do as `run`, but wait for as long as it takes, and log once for whom.

        For a worker and its pool: nobody else can store the outcome of a task, and running tasks
        end with their pool.
        """
        result: Any = self._once(function, args)
        if result is _KEPT_OUT:
            result = self._wait(_Manner.INSISTING, function, args)
        return result  # type: ignore[no-any-return]

    def _once(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Go in and return what `function` returns, or `_KEPT_OUT` if another process is inside."""
        # `with` on a lock of C is safe against exceptions from signal handlers; a Python-level
        # __enter__ is not, which is why this takes a function and is no context manager.
        with self._threads:
            if self._inside:
                raise RuntimeError(
                    "A signal handler used a task backend while its own thread was inside "
                    "the ring. Set a flag in the handler and use the backend later."
                )
            dropped = None
            kept_out = False
            try:
                self._inside = True
                if self._attempt() and not self._spin():
                    kept_out = True
                    return _KEPT_OUT
                self._stuck = None
                if self._words[at.H_DIRTY]:
                    dropped = self._rebuild()
                result = function(*args)
                self._words[at.H_DIRTY] = 0
                return result
            except (IndexError, OverflowError, ValueError, struct.error) as error:
                # A damaged link led out of the ring, or a damaged count out of its range.
                self._words[at.H_DIRTY] = 1
                raise inconsistent(self._path) from error
            finally:
                self._inside = False
                if not kept_out:
                    # Nothing written in Python is called before the guard is free, see `ByteLock`.
                    self._release()
                    if self._words[at.H_QUEUED]:
                        self._wake_next()
                    if dropped:
                        self.log(dropped)

    def _wait(self, manner: _Manner, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Do as `_once`, when others have left; return None where `manner` says to give up.

        Raises:
            StoreUnavailable: As `run`.
        """
        waiting = _Waiting()
        while True:
            # Before the guard is tried: who leaves after that sees it. And each time: who wakes one
            # of several has cleared it.
            self._words[at.H_QUEUED] = 1
            result = self._once(function, args)
            if result is not _KEPT_OUT:
                return result
            if self._gives_up(waiting, manner):
                return None
            self._sleep(waiting.chunk_s)

    def _wake_next(self) -> None:
        self._words[at.H_QUEUED] = 0
        if self.semaphore.value == 0:
            self.semaphore.release()

    def log(self, dropped: list[str]) -> None:
        """Log what a rebuild had to drop; outside (rule 9), since log handlers may do anything."""
        for sentence in dropped:
            level = logging.WARNING if isinstance(sentence, Notice) else logging.ERROR
            logger.log(level, "%s: %s", self._path, sentence)

    def renew_wake_up(self) -> None:
        """Replace a wake-up that was lost with a dead process, if nobody is inside.

        Only a step of the settable clock makes this necessary: the timed wait of a semaphore goes
        by that clock, so a chunk of 5 ms that began before the step could last as long as the step.
        """
        if self._words[at.H_QUEUED] and not self._inside and not self._guard.held():
            self._wake_next()

    def look(self) -> Sighting | None:
        """Return which other process is inside, None for none (1 µs)."""
        return look_inside(self._guard, self._words)

    def _spin(self) -> bool:
        for _ in range(SPINS):
            sched_yield()
            if not self._attempt():
                return True
        return False

    def _sleep(self, chunk_s: float) -> None:
        """Wait for a wake-up, for one chunk."""
        until = monotonic() + chunk_s
        # Signals that come faster than chunks end must not keep it from ending.
        while (left_s := until - monotonic()) > 0:
            try:
                self.semaphore.acquire(left_s)
                return
            except posix_ipc.SignalError:
                pass  # in place of what the handler raised
            except posix_ipc.BusyError:
                return
            # Nothing is held here. Of what handlers raise, this is how a task hears that it is to
            # stop; KeyboardInterrupt comes through.
            raise_swallowed(sys._getframe())

    def _gives_up(self, waiting: "_Waiting", manner: _Manner) -> bool:
        if not self._guard.usable():
            if manner is _Manner.OPTIONAL:
                return True
            raise StoreUnavailable(
                "this process's descriptor of the ring was closed",
                path=self._path,
                fix="do not close descriptors that others opened (os.closerange)",
            )
        seen = self.look()
        has_waited = waiting.is_over()
        is_frozen = waiting.patience.ends(seen)
        if seen is None:
            return manner is _Manner.OPTIONAL and has_waited
        stuck = self._stuck
        known = stuck is not None and stuck[0] == seen
        # A chunk all the same: it may have been continued this moment.
        is_frozen = is_frozen or (stuck == (seen, True) and has_waited)
        if manner is _Manner.OPTIONAL:
            if known or has_waited:
                self._stuck = stuck if known else (seen, False)
                return True
        elif is_frozen:
            error = frozen(seen.pid, self._path, patience.FROZEN_S)
            self._stuck = (seen, True)
            if manner is _Manner.NEEDED:
                raise error
            if waiting.chunk_s != LONG_CHUNK_S:
                waiting.chunk_s = LONG_CHUNK_S
                logger.error("pid=%d waits until it can go on: %s", os.getpid(), error)
        return False


class _Waiting:
    """One thread that was kept out."""

    def __init__(self) -> None:
        self.patience = Patience()
        self.chunk_s = patience.CHUNK_S
        self._until = monotonic() + patience.CHUNK_S

    def is_over(self) -> bool:
        """Return whether one chunk has passed."""
        return monotonic() >= self._until


def look_inside(guard: ByteLock, words: memoryview) -> Sighting | None:
    """Return which other process is inside a ring, None for none."""
    pid = guard.holder()
    if pid is None:
        return None
    return Sighting(pid, words[at.H_UNFINISHED : at.H_SERIAL + 1].tobytes())
