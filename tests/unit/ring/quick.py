"""How much is done inside the mutex, counted and not timed.

A clock would show what else the machine does. So every access to the segment is counted, with what
it costs beside: one step is one access to a word with the bytecode around it.

Calibrated against the CPU time of each hold of `test_quick.py`, once, apart from the tests: where
much is done, 0.08 to 0.2 µs a step (CPython 3.13; 0.23 where it was the first to touch the memory).
"""

from collections.abc import Callable
from typing import Any, Final

import pytest

from django_tasks_local.ring.shm import segment
from django_tasks_local.ring.shm.mutex import Mutex
from django_tasks_local.ring.shm.registry import Registry

STEPS_PER_MS: Final = 5_000
# What a step's time suffices for.
COPIED: Final = 1024  # bytes: a slice, a few GiB a second
MADE_NUMBERS: Final = 64  # bytes of a slice that becomes Python's numbers: 19 ns each
SEARCHED: Final = 64  # bytes of the free map, for neighbours: up to 2 ns each
SEARCHED_FOR_ONE: Final = 8192  # for a single slot
CLEARED: Final = 512  # bytes of new memory
SYSTEM_CALL: Final = 5


class Steps:
    """The steps taken so far, and the most in one hold of the mutex by what was called there."""

    def __init__(self) -> None:
        self.taken = 0.0
        self.most: dict[str, float] = {}

    def hold(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Calls `function`, which is inside."""
        before = self.taken
        try:
            return function(*args)
        finally:
            name = function.__name__
            self.most[name] = max(self.most.get(name, 0), self.taken - before)


class CountedView:
    """A memoryview that counts its accesses."""

    def __init__(self, view: memoryview, steps: Steps) -> None:
        self._view = view
        self._steps = steps

    def __len__(self) -> int:
        return len(self._view)

    def __getitem__(self, key: Any) -> Any:
        self._steps.taken += 1
        found = self._view[key]
        return CountedSlice(found, self._steps) if isinstance(key, slice) else found

    def __setitem__(self, key: Any, value: Any) -> None:
        self._view[key] = value
        self._steps.taken += 1 + (
            memoryview(value).nbytes / COPIED if isinstance(key, slice) else 0
        )


class CountedSlice:
    """A part of such a memoryview, which counts what becomes of it."""

    def __init__(self, view: memoryview, steps: Steps) -> None:
        self._view = view
        self._steps = steps

    def __len__(self) -> int:
        return len(self._view)

    def __buffer__(self, flags: int) -> memoryview:
        self._steps.taken += self._view.nbytes / COPIED
        return self._view

    def tobytes(self) -> bytes:
        """Copies it."""
        return bytes(self)

    def tolist(self) -> list[int]:
        """Makes numbers of it."""
        self._steps.taken += self._view.nbytes / MADE_NUMBERS
        return self._view.tolist()


def count_steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Counts for all segments that this process attaches to from here on."""
    steps = Steps()
    real = segment.Segment

    class Counted(real):  # type: ignore[misc,valid-type]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.words: Any = CountedView(self.words, steps)
            self.bytes: Any = CountedView(self.bytes, steps)

        def find(self, data: bytes, start: int, end: int) -> int:
            found: int = super().find(data, start, end)
            searched = (end if found < 0 else found) - start
            steps.taken += 1 + searched / (SEARCHED if len(data) > 1 else SEARCHED_FOR_ONE)
            return found

        def reserve(self, first: int, end: int) -> None:
            super().reserve(first, end)
            for _, length in self.geometry.ranges(first, end):
                steps.taken += 10 + length / CLEARED

    alive = Registry.alive

    def counted_alive(registry: Registry, index: int) -> bool:
        steps.taken += SYSTEM_CALL
        return alive(registry, index)

    once = Mutex._once

    def counted(mutex: Mutex, function: Callable[..., Any], args: Any) -> Any:
        return once(mutex, steps.hold, (function, args))

    monkeypatch.setattr(segment, "Segment", Counted)
    monkeypatch.setattr(Mutex, "_once", counted)
    monkeypatch.setattr(Registry, "alive", counted_alive)
    return steps
