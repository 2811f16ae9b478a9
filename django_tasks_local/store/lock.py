"""The mutex of a ring: named semaphore, kernel record lock, dirty flag.

Three parts, because no single one survives everything (each fact here was measured):

- the **semaphore** lets the others queue and wakes the next one at once, but it stays locked when
  its holder is killed;
- the **guard**, a POSIX record lock on one byte far behind the end of the segment, is what
  excludes: the kernel drops it with the process, whatever killed it, and no pid, start time or
  time-out has to be believed. It has no queue, so nobody waits on it alone;
- the **dirty word** says that somebody died, or was interrupted, between two writes: whoever is
  next inside rebuilds what is derived before it does anything else.

A lost token of the semaphore costs its finder one chunk of waiting and heals at the next release;
a token too many is harmless, since the guard decides.
"""

import ctypes
import fcntl
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from os import sched_yield
from time import monotonic, sleep
from typing import Final

import posix_ipc

from django_tasks_local.exceptions import StoreUnavailable

from .layout import H_DIRTY
from .trouble import frozen, inconsistent

logger = logging.getLogger("django_tasks_local")

# Record locks on bytes that the file never has: they can't meet a real range.
GUARD: Final = 1 << 61
SUCCESSOR: Final = GUARD + 1
POOL: Final = GUARD + 2
LIVENESS: Final = 1 << 62  # + the index of the registry entry

# How long to wait for a token before asking whether its holder is dead. Shorter: more system calls
# under load; longer: a longer pause after a kill (this is nearly all of it).
CHUNK_S: Final = 0.005
# How often to look again before sleeping: who is inside leaves within 5 to 10 us, and a sleep costs
# 50. Two workers and a busy site on two cores: 19,400 tasks a second without, 21,400 with 5 to 20,
# 20,300 with 100 (medians of one run).
SPINS: Final = 10
# How long somebody may be inside before the others stop waiting for a frozen process.
FROZEN_S: Final = 30.0


class _Flock(ctypes.Structure):
    """struct flock of 64-bit Linux, glibc and musl alike."""

    _fields_ = [
        ("l_type", ctypes.c_short),
        ("l_whence", ctypes.c_short),
        ("l_start", ctypes.c_longlong),
        ("l_len", ctypes.c_longlong),
        ("l_pid", ctypes.c_int),
    ]


_UNLOCKED: Final = bytes(_Flock(fcntl.F_UNLCK))[:2]

# PyDLL keeps the GIL. fcntl.fcntl gives it up for a call of 0.3 us, and under three busy sibling
# threads takes 5 ms to get it back, with the ring locked: 5,156 us against 1.7 us (p90, measured).
_fcntl: Final = ctypes.PyDLL(None).fcntl


class ByteLock:
    """The record lock on one byte of a file; it belongs to this process and dies with it.

    It is gone as well when this process closes any descriptor of that file.

    Attributes:
        attempt: Takes the lock; returns 0 if it could, and never waits.
        release: Drops the lock; harmless where it is not held.
    """

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._question = bytes(_Flock(fcntl.F_WRLCK, 0, offset, 1, 0))
        # Built once: the hot path then makes no objects.
        lock = ctypes.byref(_Flock(fcntl.F_WRLCK, 0, offset, 1, 0))
        unlock = ctypes.byref(_Flock(fcntl.F_UNLCK, 0, offset, 1, 0))
        # No method: Python runs signal handlers when it enters a function written in Python, and
        # one that raises there would keep the lock. After a call of C it comes too late for that.
        self.attempt: Callable[[], int] = partial(_fcntl, fd, fcntl.F_SETLK, lock)
        self.release: Callable[[], object] = partial(_fcntl, fd, fcntl.F_SETLK, unlock)

    def acquire(self) -> bool:
        """Takes the lock and says whether it could; never waits."""
        return self.attempt() == 0

    def usable(self) -> bool:
        """Whether the descriptor is open at all."""
        try:
            os.fstat(self._fd)
        except OSError:
            return False
        return True

    def holder(self) -> int:
        """The pid of the *other* process that holds the lock, 0 for none.

        -1 or 0 stand for a holder in another pid namespace, hence `held`.
        """
        answer = self._query()
        return answer.l_pid if answer.l_type != fcntl.F_UNLCK else 0

    def held(self) -> bool:
        """Whether another process holds the lock (0.4 us)."""
        return bool(self._query().l_type != fcntl.F_UNLCK)

    def looks_held(self) -> bool:
        """As `held`, for who looks once a second.

        With cold caches it takes half as long, but it gives up the GIL. A closed descriptor counts
        as held, as it does for `held`.
        """
        try:
            answer = fcntl.fcntl(self._fd, fcntl.F_GETLK, self._question)
        except OSError:
            return True
        return answer[:2] != _UNLOCKED

    def _query(self) -> _Flock:
        answer = _Flock.from_buffer_copy(self._question)
        _fcntl(self._fd, fcntl.F_GETLK, ctypes.byref(answer))
        return answer


def any_held(fd: int, offset: int) -> bool:
    """Whether another process holds a lock on any byte of the file from `offset` on."""
    answer = _Flock(fcntl.F_WRLCK, 0, offset, 0, 0)
    _fcntl(fd, fcntl.F_GETLK, ctypes.byref(answer))
    return bool(answer.l_type != fcntl.F_UNLCK)


class Mutex:
    """One at a time inside the ring: of all threads of all processes of the host.

    Args:
        semaphore: The token; its value is 1 when nobody is inside.
        guard: The lock that excludes.
        words: The segment as 8-byte words.
        rebuild: Makes everything derived anew, and says what it had to drop; called inside, when
            the last one left it dirty.
        path: What to name when the lock can't be had.
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
        self._words = words
        self._rebuild = rebuild
        self._path = path
        # An RLock, so that a signal handler which comes back in is told so instead of hanging.
        self._threads = threading.RLock()
        self._inside = False

    def run[*A, R](self, function: Callable[[*A], R], *args: *A) -> R:
        """Calls `function` inside and returns what it returns.

        It blocks while others are inside (microseconds each). Any exception, one that a signal
        handler raised included, leaves the ring marked dirty if `function` had marked it, and
        the mutex free.

        Raises:
            StoreUnavailable: One process has been inside for 30 s, frozen (SIGSTOP, a debugger);
                or our descriptor was closed.
            RuntimeError: A signal handler called this while its own thread was inside.
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
            try:
                self._inside = True
                try:
                    self.semaphore.acquire(0)
                    token = True
                except (posix_ipc.BusyError, posix_ipc.SignalError):
                    token = self._wait_for_token()
                if token and self._guard.attempt():
                    self._wait_for_guard()
                if self._words[H_DIRTY]:
                    dropped = self._rebuild()
                result = function(*args)
                self._words[H_DIRTY] = 0
                return result
            except (IndexError, ValueError) as error:
                # A damaged link led out of the segment, or a damaged count below zero.
                self._words[H_DIRTY] = 1
                raise inconsistent(self._path) from error
            finally:
                # Nothing written in Python is called before the guard is free, see `ByteLock`.
                try:
                    if self.semaphore.value == 0:
                        self.semaphore.release()
                finally:
                    self._inside = False
                    self._guard.release()
                if dropped:
                    self.log(dropped)

    def log(self, dropped: list[str]) -> None:
        """Says what a rebuild had to drop; outside (rule 9): log handlers may do anything."""
        for sentence in dropped:
            logger.error("%s: %s", self._path, sentence)

    def heal(self) -> None:
        """Gives back the token that a dead holder took with it, if nobody is inside.

        Only a step of the settable clock makes this necessary: the timed wait of a semaphore goes
        by that clock, so a chunk of 5 ms that began before the step could last as long as the step.
        """
        if self.semaphore.value == 0 and not self._inside and not self._guard.held():
            self.semaphore.release()

    def _wait_for_token(self) -> bool:
        """Waits for the token; False where the guard was free and is ours: the token is lost."""
        for _ in range(SPINS):
            sched_yield()
            if self.semaphore.value:
                with suppress(posix_ipc.BusyError, posix_ipc.SignalError):
                    self.semaphore.acquire(0)
                    return True
        give_up = monotonic() + FROZEN_S
        while monotonic() < give_up:
            try:
                self.semaphore.acquire(CHUNK_S)
                return True
            except posix_ipc.SignalError:
                continue  # a handler ran; posix_ipc swallowed what it raised
            except posix_ipc.BusyError:
                if self._guard.acquire():
                    return False
                self._must_be_usable()
        raise frozen(self._guard.holder(), self._path, FROZEN_S)

    def _wait_for_guard(self) -> None:
        """Waits, token in hand, for somebody who came in without it or is just leaving."""
        give_up = monotonic() + FROZEN_S
        pause = 0.0
        self._must_be_usable()
        while not self._guard.acquire():
            if monotonic() > give_up:
                raise frozen(self._guard.holder(), self._path, FROZEN_S)
            sleep(pause)
            pause = min(pause + 0.0001, CHUNK_S)

    def _must_be_usable(self) -> None:
        if not self._guard.usable():
            raise StoreUnavailable(
                "this process's descriptor of the ring was closed",
                path=self._path,
                fix="do not close descriptors that others opened (os.closerange)",
            )
