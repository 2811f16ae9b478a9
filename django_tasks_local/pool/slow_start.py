"""A pool that takes long to import the project: its site logs it, once."""

import logging
import time
from typing import Final

from django_tasks_local.ring import PoolState, Ring, Role

logger = logging.getLogger("django_tasks_local")

# How long a pool may import the project before its site logs it.
SLOW_START_S: Final = 30.0


class SlowStart:
    """What one site has logged about the pools of its code."""

    def __init__(self) -> None:
        self._said_of = -1  # the serial of a pool

    def look(self, ring: Ring) -> None:
        """Log a warning if the pool that is on its way has been starting for long."""
        for entry in ring.registry.attachments():
            importing = entry.role is Role.POOL and entry.state == PoolState.IMPORTING
            took_s = (time.time_ns() - entry.since_ns) / 1e9
            if (
                importing and entry.alive and entry.code == ring.registry.code
                and took_s > SLOW_START_S and entry.serial != self._said_of
            ):  # fmt: skip
                self._said_of = entry.serial
                logger.warning(
                    "alias=%s the pool (pid %d) has been importing the project for %.0f s, and "
                    "tasks wait for it. If it hangs, `py-spy dump --pid %d` shows where; killed, "
                    "it is started again.", ring.alias, entry.pid, took_s, entry.pid,
                )  # fmt: skip
