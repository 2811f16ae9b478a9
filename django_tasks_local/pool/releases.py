"""What a pool does about the other codes in its ring: it adopts what gone releases have left."""

import logging
import time
from collections.abc import Iterable
from typing import Final

from django_tasks_local.ring import Entry, Ring, Role

logger = logging.getLogger("django_tasks_local")

# Tasks of another code that has sites and no pool: their site starts one, with pauses up to 60 s.
# If there is none after this time, the log says so.
STRANDED_S: Final = 120.0


class Releases:
    """The other codes, as the pool of one code sees them."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._adopted = 0
        self._stranded: dict[int, float] = {}  # since when; 0.0: it was logged
        self._no_place_said = False

    def adopt(self, living: list[Entry], latest: int) -> None:
        """Take over the tasks of codes whose release has gone, if our code is the newest.

        Args:
            living: The attached processes.
            latest: The serial of the latest attachment before ``living`` was read: a later site may
                have the code that is adopted, and gets its own pool.
        """
        ring, codes = self._ring, self._ring.codes
        orphans = codes.orphans(living) & ~(1 << ring.registry.code)
        if codes.heir(living) != ring.registry.code:
            orphans = 0
        for code in _numbers(orphans & ~self._adopted):
            logger.warning(
                "alias=%s unfinished tasks of the code at %s are left, but no process of it: the "
                "pool of %s runs them",
                ring.alias, codes.path(code) or "?", self._ours_beside(code),
            )  # fmt: skip
        if orphans != self._adopted or orphans:
            ring.workforce.adopt(orphans, latest)
        self._adopted = orphans
        self._mind_stranded(living)

    def _ours_beside(self, code: int) -> str:
        """Return what our code is called in a text that has named another one."""
        ring = self._ring
        # The end of a long path is all that the table of codes has of it.
        path = ring.codes.path(code)
        if path and ring.attachment.path.endswith(path):
            return "the same settings under another Python or virtual environment"
        return f"the code at {ring.attachment.path}"

    def strays(self, living: Iterable[Entry]) -> int:
        """Count living workers whose pool has died: they are dying too, but still take places."""
        pools = {entry.index for entry in living if entry.role is Role.POOL}
        return sum(e.role is Role.WORKER and e.pool not in pools for e in living)

    def wake(self, living: Iterable[Entry]) -> None:
        """Wake the workers of other codes, so that idle ones see that they must give way."""
        ours = self._ring.registry.code
        workers = [e.code for e in living if e.role is Role.WORKER and e.code not in (ours, -1)]
        for code in set(workers):
            self._ring.upkeep.wake(workers.count(code), code)

    def say_no_place(self, count: int) -> None:
        """Log once that the registry has no place for more workers."""
        if not self._no_place_said:
            self._no_place_said = True
            logger.warning(
                "alias=%s no place is left for more than %d worker processes beside the others "
                "that are attached; the pool goes on with these. Run fewer web workers, or lower "
                "MAX_WORKERS.", self._ring.alias, count,
            )  # fmt: skip

    def _mind_stranded(self, living: list[Entry]) -> None:
        codes, now = self._ring.codes, time.monotonic()
        waiting = {
            code
            for code in {entry.code for entry in living if entry.role is Role.SITE}
            if code not in (self._ring.registry.code, -1)
            and codes.has_tasks(code)
            and not codes.has_pool(code)
        }
        self._stranded = {code: self._stranded.get(code, now) for code in waiting}
        for code, since in self._stranded.items():
            if since and now - since > STRANDED_S:
                self._stranded[code] = 0.0
                logger.error(
                    "alias=%s tasks of the code at %s have waited for %d s without a pool, though "
                    "sites of it are attached: see their logs for why it does not start. This is "
                    "the pool of %s.",
                    self._ring.alias, codes.path(code) or "?", STRANDED_S, self._ours_beside(code),
                )  # fmt: skip


def _numbers(mask: int) -> list[int]:
    return [code for code in range(mask.bit_length()) if mask >> code & 1]
