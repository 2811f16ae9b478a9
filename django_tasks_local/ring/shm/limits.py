"""The options that a ring needs, and those of them that all its processes share.

All but SLOT_SIZE, SHM_SIZE and SYNC stand in the header, put there by the site process that came
last: they hold at once and for all, a pool that started under others included.
"""

from dataclasses import dataclass
from typing import Final

from django_tasks_local.ring.format import layout as at

# What MAX_WORKERS may be at most, see ``options``.
MOST_WORKERS: Final = 1024
# What an optional word is a multiple of. No power of 2 is one, so no flip of a single bit turns one
# value into another, or makes a limit where there was none.
_CHECK: Final = 31


@dataclass(frozen=True, slots=True)
class Limits:
    """See the table of options for their meaning, defaults and bounds."""

    max_workers: int
    max_results: int
    max_pending: int
    slot_size: int
    shm_size: int
    drain_timeout_s: float | None = None
    result_ttl_s: float | None = None
    failure_ttl_s: float | None = None
    max_tasks_per_worker: int | None = None
    max_worker_memory: int | None = None
    max_task_memory: int | None = None
    sync: bool = False  # of this process alone: each waits for what it has done itself

    @property
    def geometry(self) -> at.Geometry:
        """The segment that SLOT_SIZE and SHM_SIZE ask for."""
        return at.Geometry.fitting(self.slot_size, self.shm_size)

    def share(self, words: memoryview) -> None:
        """Make these limits those of all attached processes."""
        words[at.H_MAX_RESULTS] = self.max_results
        words[at.H_MAX_PENDING] = self.max_pending
        # 0 stands for None: until it is done.
        drain_s = self.drain_timeout_s
        words[at.H_DRAIN_MS] = 0 if drain_s is None else 1 + int(drain_s * 1000)
        words[at.H_RESULT_TTL] = _word_of_seconds(self.result_ttl_s)
        words[at.H_FAILURE_TTL] = _word_of_seconds(self.failure_ttl_s)
        words[at.H_MAX_TASKS] = _CHECK * (self.max_tasks_per_worker or 0)
        words[at.H_WORKER_MEMORY] = _CHECK * (self.max_worker_memory or 0)
        words[at.H_TASK_MEMORY] = _CHECK * (self.max_task_memory or 0)
        # Last, since 0 here says that nobody has shared any: who dies half-way leaves it at that.
        words[at.H_MAX_WORKERS] = self.max_workers


def shared_max_workers(words: memoryview) -> int:
    """Return MAX_WORKERS as the ring's processes share it; a damaged word gives a small number."""
    return min(words[at.H_MAX_WORKERS], MOST_WORKERS)


def shared_drain_timeout_s(words: memoryview) -> float | None:
    """Return DRAIN_TIMEOUT as the ring's processes share it."""
    word: int = words[at.H_DRAIN_MS]
    return (word - 1) / 1000 if word else None


def shared_optional(words: memoryview, which: int) -> int:
    """Return the value of an option that may be None, 0 for None; a damaged word is None, too."""
    value, rest = divmod(words[which], _CHECK)
    return 0 if rest else value


def _word_of_seconds(seconds: float | None) -> int:
    return 0 if seconds is None else _CHECK * max(1, round(seconds * 1000))
