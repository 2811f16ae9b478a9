"""A site starts pools: one at a time, and after each that did not start a longer pause."""

import logging
from typing import Final

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring

from . import project
from .launcher import start_pool
from .project import Preparation
from .slow_start import SlowStart
from .spec import PoolSpec

logger = logging.getLogger("django_tasks_local")

# The pause after a pool that did not start; it doubles each time, up to a minute.
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0


class Starts:
    """What one site has started, and starts."""

    def __init__(self) -> None:
        self._slow_start = SlowStart()

    def start(self, ring: Ring, spec: PoolSpec, *, is_server: bool, is_guest: bool) -> None:
        """Start a pool unless one is on its way, or the last one failed too recently.

        Args:
            ring: The ring.
            spec: How the site uses it.
            is_server: Whether the site serves requests.
            is_guest: Whether it is a pool or a worker itself.
        """
        leadership = ring.leadership
        if leadership.successor_alive():
            self._slow_start.look(ring)
            return
        if not leadership.reserve_start(FIRST_PAUSE_S, LONGEST_PAUSE_S):
            return
        is_script = not (is_server or is_guest)
        # A script's pool may outlive it, but must not keep readers of its output waiting.
        output_owner = ring.registry.serial if is_script and project.output_is_piped() else 0
        try:
            preparation = Preparation.of_this_process(
                spec.namespace, ring.attachment.path,
                output_owner=output_owner, provisional=is_script,
            )  # fmt: skip
            start_pool(ring, preparation)
        except (StoreUnavailable, OSError, ValueError) as error:
            logger.error("alias=%s no pool can be started: %s", spec.alias, error)
