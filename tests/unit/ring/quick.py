"""How much is done inside the mutex, counted and not timed.

A clock would show what else the machine does. So every access to the segment is counted, with what
it costs beside: one step is one access to a word with the bytecode around it, 0.15 µs.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest

from django_tasks_local.ring.shm import segment
from django_tasks_local.ring.shm.mutex import Mutex
from django_tasks_local.ring.shm.registry import Registry

STEPS_PER_MS: Final = 6_000
# What a step's time suffices for.
COPIED: Final = 1024  # bytes: a slice, a few GiB a second, into Python's numbers a tenth of that
SEARCHED: Final = 2048  # bytes of the free map
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
        found = self._view[key]
        self._steps.taken += 1 + (found.nbytes / COPIED if isinstance(key, slice) else 0)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        self._view[key] = value
        self._steps.taken += 1 + (
            memoryview(value).nbytes / COPIED if isinstance(key, slice) else 0
        )


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
            steps.taken += 1 + ((end if found < 0 else found) - start) / SEARCHED
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

    def counted(mutex: Mutex, first: bool, function: Callable[..., Any], args: Any) -> Any:
        return once(mutex, first, steps.hold, (function, args))

    monkeypatch.setattr(segment, "Segment", Counted)
    monkeypatch.setattr(Mutex, "_once", counted)
    monkeypatch.setattr(Registry, "alive", counted_alive)
    return steps
