"""What a script has enqueued, in order to wait for it at its end."""

import time
from array import array
from collections.abc import Callable
from typing import Final

from django_tasks_local.store import PoolState, Ring, Role
from django_tasks_local.streams import say

# Beyond this many a script forgets what is done.
REMEMBERED: Final = 20_000


class OwnTasks:
    """The tasks of one ring that this process has enqueued."""

    def __init__(self) -> None:
        self._addresses = array("Q")

    def add(self, ring: Ring, result_id: str) -> None:
        """Remembers one more."""
        self._addresses.extend(ring.address(result_id))
        if len(self._addresses) > 2 * REMEMBERED:
            self._addresses = ring.unfinished(self._addresses)

    def wait(self, alias: str, ring: Callable[[], Ring], look_after: Callable[[], None]) -> None:
        """Waits until they are done: a script that ends now would take their pool with it.

        Args:
            alias: For what it says on standard error.
            ring: The ring, which may be another one each time.
            look_after: Called while there is no pool.
        """
        mine = self._addresses
        said = False
        while (mine := ring().unfinished(mine)) and not _others_serve(ring()):
            if not said:
                said = True
                say(
                    f"django-tasks-local: waiting for {len(mine) // 2:,} tasks of "
                    f"{alias!r} that this script enqueued (Ctrl-C leaves them in the "
                    "ring, for the next process that uses it)."
                )
            if not ring().leadership.pool_alive():
                look_after()
            time.sleep(0.01)


def _others_serve(ring: Ring) -> bool:
    """Whether a web process is there to take over; another script may end before our tasks."""
    return any(
        entry.role is Role.SITE and entry.state == PoolState.SERVING and entry.alive
        for entry in ring.registry.attachments()
    )
