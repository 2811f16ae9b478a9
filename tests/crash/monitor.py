"""The fuzzer's watch, in each of its processes: that nobody else is inside, and no wait is long."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from django_tasks_local.ring import recovery
from django_tasks_local.ring.shm.mutex import Mutex
from django_tasks_local.ring.shm.segment import Segment
from tests.crash.evidence import evidence
from tests.crash.ledger import INSIDE, PLACE_WORDS, STOPS, Ledger

# No wait of a process that nobody stopped may be longer. Several stops of the longest kind can fall
# into one wait, and ten processes share two cores; a ring that hangs, hangs for ever.
PAUSE_BOUND_S: Final = 5.0


class Monitor:
    """Watches, from inside the mutex, that nobody else is inside."""

    def __init__(self, ledger: Ledger, place: int) -> None:
        self._ledger = ledger
        self._place = place
        self._local = threading.local()
        self._rebuild = recovery.rebuild
        self._lose = recovery.mark_lost
        self._rebuilt = False
        self._told = False
        self.segment: Segment | None = None

    def install(self) -> None:
        """Puts this between the callers and the store's own functions, in this process."""
        monitor = self

        def rebuild(*args: Any) -> Any:
            monitor._rebuilt = True
            return monitor.inside(monitor._rebuild, args)

        def lose(table: Any, slot: int, *args: Any) -> None:
            monitor._ledger.lose(monitor._place, table.head(slot).id_high)
            monitor._ledger.add(monitor._place, "lost")
            monitor._lose(table, slot, *args)

        for name, original in _ORIGINAL_WAYS_IN.items():
            setattr(Mutex, name, self._watched(original))
        recovery.rebuild = rebuild  # type: ignore[assignment]
        recovery.mark_lost = lose  # type: ignore[assignment]

    def _watched(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def enter(mutex: Mutex, function: Callable[..., Any], *args: Any) -> Any:
            return self.enter(original, mutex, function, args)

        return enter

    def enter(
        self,
        original: Callable[..., Any],
        mutex: Mutex,
        function: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> Any:
        """One of the mutex's ways in, with the wait measured."""
        ledger, place = self._ledger, self._place
        stops = ledger.stops
        began_ns = time.monotonic_ns()

        def inside() -> Any:
            waited_ns = time.monotonic_ns() - began_ns
            rebuilt, self._rebuilt = self._rebuilt, False
            ledger.add(place, "entries")
            if rebuilt:
                ledger.add(place, "rebuilds")
            # A wait while somebody, this process perhaps, was stopped says nothing of the ring.
            if ledger.stops == stops and stops % 2 == 0:
                ledger.note_wait(place, "waits", waited_ns)
                if rebuilt:
                    ledger.note_wait(place, "waits_after_death", waited_ns)
            if waited_ns > PAUSE_BOUND_S * 1e9 and ledger.field(place, STOPS) == own_stops:
                ledger.violation(f"waited {waited_ns / 1e9:.1f} s to get inside")
            return self.inside(function, args)

        own_stops = ledger.field(place, STOPS)
        return original(mutex, inside)

    def inside(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Calls `function` with this place marked as being inside."""
        if getattr(self._local, "inside", False):
            return function(*args)
        ledger, place = self._ledger, self._place
        try:
            self._local.inside = True
            if ledger.field(place, INSIDE):
                ledger.violation("two threads of one process are inside")
            ledger.set_field(place, INSIDE, threading.get_native_id())
            self._look_around("on the way in")
            result = function(*args)
            self._look_around("on the way out")
            return result
        finally:
            self._local.inside = False
            ledger.words[place * PLACE_WORDS + INSIDE] = 0  # no call: see `ByteLock.release`

    def _look_around(self, when: str) -> None:
        ledger = self._ledger
        for other in range(ledger.places):
            # Marks of the dead stay, and who takes the place of a dead one takes back its mark
            # before it counts as living: hence the second look at the mark.
            if (
                other != self._place
                and ledger.field(other, INSIDE)
                and ledger.lives(other)
                and ledger.field(other, INSIDE)
            ):
                ledger.violation(f"place {other} is inside too, {when}")
                if not self._told:
                    self._told = True
                    ledger.violation(evidence(ledger, self.segment, self._place, other))


def remove_monitor() -> None:
    """Give the store's own functions back to a child of this process."""
    for name, original in _ORIGINAL_WAYS_IN.items():
        setattr(Mutex, name, original)
    recovery.rebuild, recovery.mark_lost = _ORIGINALS


_ORIGINAL_WAYS_IN = {name: getattr(Mutex, name) for name in ("run", "try_run", "insist")}
_ORIGINALS = recovery.rebuild, recovery.mark_lost
