"""When a worker process is replaced: MAX_TASKS_PER_WORKER and MAX_WORKER_MEMORY."""

import logging
import math
import os
import time
from collections.abc import Callable
from random import SystemRandom
from typing import Final

from django_tasks_local.ring import Ring

from .process_memory import private_bytes, resident_bytes

logger = logging.getLogger("django_tasks_local")

# So that workers that began together do not end together.
JITTER: Final = 0.1
# A look at the memory is taken again after so many times what it cost in processor time. The time
# for which other processes had the processor says nothing about the next look.
PAUSE_FACTOR: Final = 100

# How long a worker waits for its successor at a time, which takes some milliseconds to start.
RETIRING_S: Final = 0.02


class Lifetime:
    """How long one worker serves.

    Args:
        ring: The worker's attachment.
        pool: Its pool's entry.
        call_pool: Wakes the pool, so that it looks at its workers.
    """

    def __init__(self, ring: Ring, pool: int, call_pool: Callable[[], None]) -> None:
        self._ring = ring
        self._pool = pool
        self._call_pool = call_pool
        self._tasks = 0
        self._may_have_grown = False
        self._next_look = 0.0
        # Not that of `random`, which a project may seed with the same number in each worker.
        self._jitter = SystemRandom().uniform(1 - JITTER, 1 + JITTER)
        self._most_tasks = self._most_bytes = 0
        self.is_over = False

    def is_limited(self) -> bool:
        """Return whether the options that hold now limit it at all."""
        allowance = self._ring.workforce.allowance()
        self._most_tasks = max(1, round(allowance.tasks * self._jitter)) if allowance.tasks else 0
        self._most_bytes = allowance.worker_bytes
        return self.is_over or bool(self._most_tasks or self._most_bytes)

    def ends(self, *, after_task: bool) -> bool:
        """Return whether the worker is to end now: its life is over, and a successor is there.

        Where there is no place for a successor, it comes afterwards.

        Args:
            after_task: It has run a task since the last call.
        """
        if after_task:
            self._tasks += 1
            self._may_have_grown = True
        if not self.is_over:
            self._judge()
        return self.is_over and self._ring.workforce.retire(self._pool)

    def next_look_s(self) -> float:
        """Return for how long a worker without a task can sleep until it has to be asked again."""
        if self.is_over:
            return RETIRING_S
        owed = self._most_bytes and self._may_have_grown
        return max(0.0, self._next_look - time.monotonic()) if owed else math.inf

    def _judge(self) -> None:
        if self._most_tasks and self._tasks >= self._most_tasks:
            self._end(f"it has run {self._tasks} tasks (MAX_TASKS_PER_WORKER)")
        elif self._most_bytes and self._may_have_grown and time.monotonic() >= self._next_look:
            self._look_at_memory()

    def _look_at_memory(self) -> None:
        began = time.thread_time()
        used = resident_bytes()
        if used > self._most_bytes:
            used = private_bytes()
        cost_s = time.thread_time() - began
        self._may_have_grown = False
        self._next_look = time.monotonic() + PAUSE_FACTOR * cost_s
        if used > self._most_bytes:
            self._end(f"it has {used:,} bytes of private memory (MAX_WORKER_MEMORY)")

    def _end(self, why: str) -> None:
        self.is_over = True
        logger.info("alias=%s worker pid=%d is replaced: %s", self._ring.alias, os.getpid(), why)
        self._ring.workforce.retire(self._pool)
        self._call_pool()
