"""The tasks that a script has enqueued, so that it can wait for them at its end."""

import time
from array import array
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from django_tasks_local.exceptions import counted
from django_tasks_local.ring import PoolState, Ring, Role
from django_tasks_local.streams import say

# Beyond this many, a script forgets the tasks that are done. Where few are, it looks again when it
# has twice as many as were left: so each task costs the same, however many are unfinished.
REMEMBERED: Final = 20_000


class OwnTasks:
    """The tasks of one ring that this process has enqueued."""

    def __init__(self) -> None:
        self._ids = array("Q")  # two words each: text would take four times the memory
        self._limit = REMEMBERED
        self._last_due_ns = 0

    def add(self, ring: Ring, id_words: Iterable[int], due_ns: int) -> None:
        """Remember tasks, two words for each, which fall due at ``due_ns`` (0: now)."""
        if due_ns > self._last_due_ns:
            self._last_due_ns = due_ns
        self._ids.extend(id_words)
        if len(self._ids) > 2 * self._limit:
            before, self._ids = self._ids, array("Q")  # to which other threads add meanwhile
            left = ring.upkeep.unfinished(before)
            self._ids.extend(left)
            self._limit = max(REMEMBERED, len(left))

    def wait(self, alias: str, ring: Callable[[], Ring], look_after: Callable[[], None]) -> None:
        """Wait until the tasks are done: a script that ends now would take their pool with it.

        Args:
            alias: For the message on standard error.
            ring: Returns the ring, which may be another one each time.
            look_after: Called while there is no pool.
        """
        mine = ring().upkeep.unfinished(self._ids)
        said = False
        place = 0
        while True:
            # One by one: once each task has been seen to have ended, all have. So a look costs the
            # same however many there are.
            while place < len(mine) and not ring().upkeep.unfinished(mine[place : place + 2]):
                place += 2
            if place >= len(mine) or _others_serve(ring()):
                return
            if not said:
                said = True
                self._say(alias, len(mine) // 2)
            if not ring().leadership.pool_alive():
                look_after()
            time.sleep(0.01)

    def _say(self, alias: str, count: int) -> None:
        them = "it" if count == 1 else "them"
        say(
            f"django-tasks-local: waiting for {counted(count, 'task')} of {alias!r} that this "
            f"script enqueued{self._until()} (Ctrl-C leaves {them} in the ring, for the next "
            "process that uses it)."
        )

    def _until(self) -> str:
        """Return what to say about tasks that are not due yet."""
        if self._last_due_ns <= time.time_ns():
            return ""
        moment = datetime.fromtimestamp(self._last_due_ns // 10**9).astimezone()
        return f", the last of which is due at {moment:%Y-%m-%d %H:%M:%S %Z}"


def _others_serve(ring: Ring) -> bool:
    """Return whether a web process can take over; another script may end before our tasks."""
    return any(
        entry.role is Role.SITE and entry.state == PoolState.SERVING and entry.alive
        for entry in ring.registry.attachments()
    )
