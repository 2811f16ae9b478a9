"""Waiting for the end of a task: asleep on its commit word, woken by the process that ends it.

Linux's futex compares a 32-bit word and puts its caller to sleep in one step, so no end can come
between the look and the sleep. The upper half of a commit word holds the state and changes with
every end: it serves as the futex itself. So an end has nothing to write for those who wait, and
wakes only those who wait for this very task.

WAITED in the header is the moment until which a process may be waiting; an end before it costs a
system call, any other one load and a comparison. A moment and not a count: what a killed process
leaves passes by itself. It is a hint (rule 11): where it is lost, its waiter wakes up later, by its
own time-out.
"""

import ctypes
import errno
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from ctypes import c_int, c_long, c_uint32, c_void_p
from functools import cache
from types import BuiltinFunctionType
from typing import Any, Final

from django_tasks_local.ring.format import layout as at

from .entries import WAITS, Role
from .registry import Registry
from .segment import Segment

# Not FUTEX_PRIVATE_FLAG: the kernel is to find the waiters of other processes.
FUTEX_WAIT: Final = 0
FUTEX_WAKE: Final = 1
EVERYBODY: Final = 2**31 - 1
# The number of the system call, where a word has 64 bits. Other machines poll.
SYS_FUTEX: Final = {"x86_64": 202, "aarch64": 98}
# For so long a waiter may be on its way into the kernel, on a machine that is busy with others.
ON_THE_WAY_NS: Final = 500_000_000
# Where there is no futex: the pauses between two looks.
FIRST_PAUSE_S: Final = 0.0005
LONGEST_PAUSE_S: Final = 0.02

_HIGH_HALF: Final = 4 if sys.byteorder == "little" else 0


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", c_long), ("nanoseconds", c_long))


class Waiters:
    """Who waits for the ends of a segment's tasks, and how they are woken."""

    def __init__(self, segment: Segment, registry: Registry) -> None:
        self._segment = segment
        self._registry = registry
        self._waits: Counter[str] = Counter()  # how often this worker's task waits, by its id
        self._words = segment.words
        self._commit = segment.geometry.column("commit")

    def wait(self, slot: int, word: int, timeout_s: float) -> None:
        """Sleep until the record in `slot` has ended, or has left the slot.

        It may return early: at a signal, or when the record has changed since it was seen.

        Args:
            slot: Its head slot, below RESERVED.
            word: Its commit word as it was seen.
            timeout_s: For how long at most.
        """
        # The kernel reads the commit word after a full memory barrier, and the process that ends a
        # task looks at WAITED after it has left the mutex, which is one too: so one of the two sees
        # the other.
        timeout_ns = int(timeout_s * 1e9)
        self._words[at.H_WAITED] = time.time_ns() + timeout_ns + ON_THE_WAY_NS
        # gevent's sleep lets other greenlets run, and the futex would stop them all.
        if type(time.sleep) is BuiltinFunctionType and (futex := _wait_call()) is not None:
            spec = _TimeSpec(*divmod(timeout_ns, 1_000_000_000))
            if futex(self._address(slot), FUTEX_WAIT, word >> 32, ctypes.byref(spec)) == 0:
                return
            if ctypes.get_errno() in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
                return
        self._poll(slot, word, timeout_s)

    def wake(self, slot: int) -> None:
        """Wake those who wait for what was in `slot`; outside the mutex (1 µs)."""
        futex = _wake_call()
        if futex is not None:
            futex(self._address(slot), FUTEX_WAKE, EVERYBODY, None)

    def begin_in_task(self, task_id: str, max_workers: int) -> bool:
        """Note that this worker's task waits for others (in the lock).

        Returns:
            False where that would leave no worker whose task does not wait. Nothing is noted then.
        """
        if task_id not in self._waits:
            # One that was killed while its task waited counts no more, though its entry is there.
            waiting = sum(
                entry.role is Role.WORKER and entry.waits and entry.alive
                for entry in self._registry.attachments()
                if entry.index != self._registry.index
            )
            if waiting + 1 >= max_workers:
                return False
            self._registry.mark(WAITS, True)
            self._waits.clear()  # of a task that has ended
        self._waits[task_id] += 1
        return True

    def end_in_task(self, task_id: str) -> None:
        """Note that it waits no longer (in the lock); one that has ended changes nothing."""
        if task_id in self._waits:
            self._waits[task_id] -= 1
            if not self._waits[task_id]:
                self.end_task()

    def end_task(self) -> None:
        """Note that this worker's task has ended, and all waits in its name (in the lock)."""
        self._waits.clear()
        self._registry.mark(WAITS, False)

    def _poll(self, slot: int, word: int, timeout_s: float) -> None:
        commit, until, pause_s = self._commit + slot, time.monotonic() + timeout_s, FIRST_PAUSE_S
        while (left_s := until - time.monotonic()) > 0 and self._words[commit] == word:
            time.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)

    def _address(self, slot: int) -> int:
        return self._segment.address + (self._commit + slot) * 8 + _HIGH_HALF


def _prototype(library: Any) -> Callable[..., int] | None:
    """Return ``futex(address, operation, value, timeout)`` of a library, if it has it."""
    number = SYS_FUTEX.get(os.uname().machine)
    if number is None or sys.maxsize < 2**32:
        return None
    syscall = library(None, use_errno=True).syscall
    syscall.argtypes = c_long, c_void_p, c_int, c_uint32, c_void_p, c_void_p, c_uint32
    syscall.restype = c_long
    return lambda address, operation, value, timeout: syscall(
        number, address, operation, value, timeout, None, 0
    )


@cache
def _wait_call() -> Callable[..., int] | None:
    return _prototype(ctypes.CDLL)  # without the GIL


@cache
def _wake_call() -> Callable[..., int] | None:
    return _prototype(ctypes.PyDLL)  # with it: it does not block, and to get it back takes longer
