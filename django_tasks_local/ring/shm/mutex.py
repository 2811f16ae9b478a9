"""The mutex of a ring: named semaphore, kernel record lock, dirty flag.

Three parts, because no single one survives everything (each fact here was measured):

- the **semaphore** lets the others queue and wakes the next one at once, but it stays locked when
  its holder is killed;
- the **guard**, a POSIX record lock on one byte far behind the end of the segment, is what
  excludes: the kernel drops it with the process, whatever killed it, and no pid, start time or
  time-out has to be believed. It has no queue, so nobody waits on it alone;
- the **dirty word** says that a process died, or was interrupted, between two writes: the
  process that is next inside rebuilds what is derived before it does anything else.

A lost token of the semaphore costs its finder one chunk of waiting and heals at the next release;
a token too many is harmless, since the guard decides.

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
from contextlib import suppress
from enum import Enum, auto
from os import sched_yield
from time import monotonic, sleep
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


class _KeptOut(Enum):
    """What was not to be had."""

    TOKEN = auto()
    GUARD = auto()


# Names of their own: they are compared on the hot path.
_NO_TOKEN: Final = _KeptOut.TOKEN
_NO_GUARD: Final = _KeptOut.GUARD


class Mutex:
    """One at a time inside the ring: of all threads of all processes of the host.

    Args:
        semaphore: The token; its value is 1 when nobody is inside.
        guard: The lock that excludes.
        words: The segment as 8-byte words.
        rebuild: Rebuilds everything derived, and says what it had to drop; called inside, when
            the last one left it dirty, or the host was restarted.
        path: What to name when the lock cannot be had.
    """

    def __init__(
        self,
        semaphore: posix_ipc.Semaphore,
        guard: ByteLock,
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
        result: Any = self._once(True, function, args)
        if result is _NO_TOKEN or result is _NO_GUARD:
            result = self._wait(_Manner.NEEDED, result is _NO_GUARD, function, args)
        return result  # type: ignore[no-any-return]

    def try_run[*A, R](self, function: Callable[[*A], R], *args: *A) -> R | None:
        """Do as `run`, but give up after a chunk, 5 ms, and return None.

        For what is no harm to leave out, or is tried again later.
        """
        result: Any = self._once(True, function, args)
        if result is _NO_TOKEN or result is _NO_GUARD:
            result = self._wait(_Manner.OPTIONAL, result is _NO_GUARD, function, args)
        return result  # type: ignore[no-any-return]

    def insist[*A, R](self, function: Callable[[*A], R], *args: *A) -> R:
        """Do as `run`, but wait for as long as it takes, and log once for whom.

        For a worker and its pool: nobody else can store the outcome of a task, and running tasks
        end with their pool.
        """
        result: Any = self._once(True, function, args)
        if result is _NO_TOKEN or result is _NO_GUARD:
            result = self._wait(_Manner.INSISTING, result is _NO_GUARD, function, args)
        return result  # type: ignore[no-any-return]

    def _once(self, first: bool, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Go in, unless another process is inside, and call `function`.

        Args:
            first: Takes the token; else that is in hand already, or waiting for it was in vain.
            function: What is called inside.
            args: Its arguments.

        Returns:
            What `function` returned, or else what was not to be had: `_NO_TOKEN`, `_NO_GUARD`.
        """
        # `with` on a lock of C is safe against exceptions from signal handlers; a Python-level
        # __enter__ is not, which is why this takes a function and is no context manager.
        with self._threads:
            if self._inside:
                raise RuntimeError(
                    "A signal handler used a task backend while its own thread was inside "
                    "the ring. Set a flag in the handler and use the backend later."
                )
            dropped = None
            kept_out: _KeptOut | None = None
            try:
                self._inside = True
                if first:
                    try:
                        self.semaphore.acquire(0)
                    except (posix_ipc.BusyError, posix_ipc.SignalError):
                        kept_out = self._spin_for_token()
                if kept_out or (self._attempt() and not self._spin_for_guard()):
                    kept_out = kept_out or _NO_GUARD
                    return kept_out
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
                # Nothing written in Python is called before the guard is free, see `ByteLock`.
                if kept_out is not None:
                    self._inside = False
                else:
                    try:
                        if self.semaphore.value == 0:
                            self.semaphore.release()
                    finally:
                        self._inside = False
                        self._release()
                    if dropped:
                        self.log(dropped)

    def _wait(
        self, manner: _Manner, token: bool, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> Any:
        waiting = _Waiting(token)
        while self._turn(waiting, manner):
            result = self._once(False, function, args)
            if result is not _NO_GUARD:
                return result
        return None

    def log(self, dropped: list[str]) -> None:
        """Log what a rebuild had to drop; outside (rule 9), since log handlers may do anything."""
        for sentence in dropped:
            level = logging.WARNING if isinstance(sentence, Notice) else logging.ERROR
            logger.log(level, "%s: %s", self._path, sentence)

    def renew_token(self) -> None:
        """Give back the token that a dead holder took with it, if nobody is inside.

        Only a step of the settable clock makes this necessary: the timed wait of a semaphore goes
        by that clock, so a chunk of 5 ms that began before the step could last as long as the step.
        """
        if self.semaphore.value == 0 and not self._inside and not self._guard.held():
            self.semaphore.release()

    def look(self) -> Sighting | None:
        """Return which other process is inside, None for none (1 µs)."""
        return look_inside(self._guard, self._words)

    def _spin_for_token(self) -> _KeptOut | None:
        for _ in range(SPINS):
            sched_yield()
            if self.semaphore.value:
                with suppress(posix_ipc.BusyError, posix_ipc.SignalError):
                    self.semaphore.acquire(0)
                    return None
        return _NO_TOKEN

    def _spin_for_guard(self) -> bool:
        """Wait for the guard, token in hand: the process that leaves drops the guard last."""
        for _ in range(SPINS):
            sched_yield()
            if not self._guard.attempt():
                return True
        return False

    def _wait_for_token(self, chunk_s: float) -> bool:
        until = monotonic() + chunk_s
        # Signals that come faster than chunks end must not keep it from ending.
        while (left_s := until - monotonic()) > 0:
            try:
                self.semaphore.acquire(left_s)
                return True
            except posix_ipc.SignalError:
                pass  # in place of what the handler raised
            except posix_ipc.BusyError:
                break
            # Nothing is held here. Of what handlers raise, this is how a task hears that it is to
            # stop; KeyboardInterrupt comes through.
            raise_swallowed(sys._getframe())
        return False

    def _turn(self, waiting: "_Waiting", manner: _Manner) -> bool:
        """Wait for a chunk, holding nothing but perhaps the token; return False to give up.

        Raises:
            StoreUnavailable: As `run`.
        """
        try:
            if self._gives_up(waiting, manner):
                self._give_back(waiting)
                return False
            if waiting.token:
                sleep(min(waiting.pause_s, waiting.chunk_s))
                waiting.pause_s += 0.0001
            else:
                # Without one after this chunk, the guard is tried all the same: where that is
                # free, the token died with its holder.
                waiting.token = self._wait_for_token(waiting.chunk_s)
        except BaseException:
            self._give_back(waiting)
            raise
        return True

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

    def _give_back(self, waiting: "_Waiting") -> None:
        if waiting.token and self.semaphore.value == 0:
            self.semaphore.release()
        waiting.token = False


class _Waiting:
    """One thread that was kept out."""

    def __init__(self, token: bool) -> None:
        self.patience = Patience()
        self.token = token
        self.chunk_s = patience.CHUNK_S
        self.pause_s = 0.0
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
