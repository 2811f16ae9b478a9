"""An exception at the n-th write to the ring, as a signal handler could raise it."""

import os
import signal
from typing import Any

from django_tasks_local.ring import Limits, Ring, Role
from django_tasks_local.ring.shm.segment import attach_segment
from tests import rings as peers


class Fault(BaseException):
    """What interrupts."""


class Faults:
    """Counts writes down to the one that raises."""

    def __init__(self) -> None:
        self._left = 0

    def arm(self, writes: int) -> None:
        """The write after that many raises; 0: none."""
        self._left = writes

    def count(self) -> None:
        """Called before each write."""
        if self._left:
            self._left -= 1
            if not self._left:
                raise Fault


class View:
    """A memoryview whose assignments count."""

    def __init__(self, view: memoryview, faults: Faults) -> None:
        self._view = view
        self._faults = faults

    def __len__(self) -> int:
        return len(self._view)

    def __getitem__(self, key: Any) -> Any:
        return self._view[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._faults.count()
        self._view[key] = value


def attach_with_faults(name: str, limits: Limits, writes: int = 0) -> tuple[Ring, Faults]:
    """An attachment of this process whose writes can be made to raise, its own first of all."""
    faults = Faults()
    segment: Any = attach_segment(name, limits.geometry)
    segment.words = View(segment.words, faults)
    segment.bytes = View(segment.bytes, faults)
    faults.arm(writes)
    try:
        ring = Ring(name, "model", limits, Role.SITE)
    except Fault:
        ring = Ring(name, "model", limits, Role.SITE)
    faults.arm(0)
    return ring, faults


def half_an_enqueue(mine: Any, size: int) -> None:
    """Dies in the middle of the copy, outside the lock."""
    mine.ring._table.slots.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    peers.put(mine.ring, ((bytes(size),), {}))
