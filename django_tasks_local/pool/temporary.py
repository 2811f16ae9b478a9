"""Remove a test run's ring, and end its pool and workers."""

import logging
import os
import signal
import time
from contextlib import suppress
from typing import Final

from django_tasks_local.ring import Ring, Role, unlink_objects

from .launcher import collect_ended_pools, started

logger = logging.getLogger("django_tasks_local")

# If a pool has not ended by then, another process has stopped it (SIGSTOP).
LIMIT_S: Final = 10.0
LOOK_S: Final = 0.005


def remove(ring: Ring) -> None:
    """Remove a test run's ring, stop what still runs there, and wait for the end of its processes.

    No site of this process may look after the ring any more, or the site would make a new one.
    """
    assert ring.upkeep.is_temporary()
    unlink_objects(ring.name)
    asked: set[int] = set()
    give_up = time.monotonic() + LIMIT_S
    while processes := _processes(ring):
        for pid in {pid for pid, role in processes if role is Role.POOL} - asked:
            asked.add(pid)
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)  # faster than its own look, within a second
        if time.monotonic() > give_up:
            logger.warning(
                "alias=%s these processes of the test run have not ended: %s. If they are open in "
                "a test database, it cannot be destroyed.",
                ring.alias, ", ".join(str(pid) for pid, _ in processes),
            )  # fmt: skip
            break
        time.sleep(LOOK_S)
        collect_ended_pools()
    ring.attachment.detach()


def _processes(ring: Ring) -> set[tuple[int, Role]]:
    """Return pid and role of the living pools and workers, including those that are starting."""
    attached = {
        (entry.pid, entry.role)
        for entry in ring.registry.attachments()
        if entry.alive and entry.role in (Role.POOL, Role.WORKER)
    }
    return attached | {(pid, Role.POOL) for pid, alias in started.items() if alias == ring.alias}
