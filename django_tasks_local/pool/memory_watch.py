"""MAX_TASK_MEMORY: the pool looks at the memory of workers that run tasks, and kills."""

import time
from collections.abc import Iterable
from typing import Final

from django_tasks_local.ring import Entry, Loss, Ring, loss_word

from .crew import Crew
from .process_memory import private_bytes, resident_bytes

# A look is taken again after so many times as long as it took: where large workers share much of
# their memory, each costs an exact look, and the pool has other things to do. It is once a second
# as long as a look takes less than 0.1 s.
PAUSE_FACTOR: Final = 9


class MemoryWatch:
    """A pool's look at what its workers' tasks take.

    Args:
        ring: The pool's attachment.
        crew: Its workers.
    """

    def __init__(self, ring: Ring, crew: Crew) -> None:
        self._ring = ring
        self._crew = crew
        self._next_look = 0.0

    def look(self, workers: Iterable[Entry]) -> None:
        """Kill each worker whose task takes too much; the task is FAILED with `MemoryExceeded`."""
        limit = self._ring.workforce.allowance().task_bytes
        began = time.monotonic()
        if not limit or began < self._next_look:
            return
        for worker in workers:
            self._look_at(worker, limit)
        now = time.monotonic()
        self._next_look = now + PAUSE_FACTOR * (now - began)

    def _look_at(self, worker: Entry, limit: int) -> None:
        # Before the memory is measured: what is measured is that task's, if it still runs after.
        run = self._ring.killing.run_of(worker)
        if run is None or resident_bytes(worker.pid) <= limit:
            return
        used = private_bytes(worker.pid)
        if used <= limit:
            return
        if self._ring.killing.note(run, loss_word(Loss.MEMORY, used // 1024, limit)):
            self._crew.kill_one(worker.pid)
