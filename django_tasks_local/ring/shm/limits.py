"""The options that a ring needs, and those of them that all its processes share.

MAX_WORKERS, MAX_RESULTS, MAX_PENDING and DRAIN_TIMEOUT stand in the header, put there by the site
process that came last: they hold at once and for all, a pool that started under others included.
"""

from dataclasses import dataclass
from typing import Final

from django_tasks_local.ring.format import layout as at

# What MAX_WORKERS may be at most, see ``options``.
MOST_WORKERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """See the table of options for their meaning, defaults and bounds."""

    max_workers: int
    max_results: int
    max_pending: int
    slot_size: int
    shm_size: int
    drain_timeout_s: float | None = None

    @property
    def geometry(self) -> at.Geometry:
        """The segment that SLOT_SIZE and SHM_SIZE ask for."""
        return at.Geometry.fitting(self.slot_size, self.shm_size)

    def share(self, words: memoryview) -> None:
        """Makes these limits those of all attached processes."""
        words[at.H_MAX_RESULTS] = self.max_results
        words[at.H_MAX_PENDING] = self.max_pending
        # 0 stands for None: until it is done.
        drain_s = self.drain_timeout_s
        words[at.H_DRAIN_MS] = 0 if drain_s is None else 1 + int(drain_s * 1000)
        # Last, since 0 here says that nobody has shared any: who dies half-way leaves it at that.
        words[at.H_MAX_WORKERS] = self.max_workers


def shared_max_workers(words: memoryview) -> int:
    """MAX_WORKERS as the ring's processes share it; a damaged word starts no storm of processes."""
    return min(words[at.H_MAX_WORKERS], MOST_WORKERS)


def shared_drain_timeout_s(words: memoryview) -> float | None:
    """DRAIN_TIMEOUT as the ring's processes share it."""
    word: int = words[at.H_DRAIN_MS]
    return (word - 1) / 1000 if word else None
