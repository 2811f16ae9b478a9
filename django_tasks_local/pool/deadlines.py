"""Running tasks that are to stop: told so at their limit, and their workers killed after the grace.

A worker raises the exception in its task by itself, by a timer of its own. The pool goes by numbers
in the record alone, so it acts while the worker is deep in C code, and whatever the task swallows.
"""

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from django_tasks_local.ring import Entry, Loss, Ring, Run, Running, loss_word
from django_tasks_local.store import grace_s, limit_s

from .crew import Crew

logger = logging.getLogger("django_tasks_local")

# How often a task that is to stop is told so. Its worker may have been in the middle of our code,
# where the exception must not be raised.
AGAIN_S: Final = 0.1


@dataclass
class _Task:
    """What the pool has seen of a running task. Times are those of the monotonic clock.

    Attributes:
        run: What tells it from the worker's next, and from its own next attempt.
        began_s: When it began.
        asked_s: When it was seen to be asked to stop, infinity until then.
        told_s: When its worker was told last.
    """

    run: Run
    began_s: float
    asked_s: float = math.inf
    told_s: float = -math.inf


class Deadlines:
    """The time limits of the tasks that a pool's workers run, and the requests to cancel them.

    A record says by the settable clock when its task began. It is asked only once, at the first
    sight of the task, for how long ago that is; from then on the monotonic clock counts. And a task
    that was not there at the look before, a second ago at most, has begun since: so a clock that is
    set between start and first sight shifts a limit by no more than that second.

    Args:
        ring: The pool's attachment.
        crew: Its workers.
    """

    def __init__(self, ring: Ring, crew: Crew) -> None:
        self._ring = ring
        self._crew = crew
        self._tasks: dict[int, _Task] = {}  # by the worker's entry
        self._looked_s = -math.inf
        self._next_s = math.inf

    def next_s(self) -> float:
        """Return in how many seconds there is something to be done."""
        return max(0.0, self._next_s - time.monotonic())

    def look(self, workers: Iterable[Entry]) -> None:
        """Tell tasks to stop that are to, and end those that were told for long enough."""
        now_s, tasks = time.monotonic(), {}
        self._next_s = math.inf
        for worker in workers:
            running = self._ring.stops.running(worker)
            if running is None or not (running.asked or limit_s(running.time_limit)):
                continue
            task = self._tasks.get(worker.index)
            if task is None or task.run != running.run:
                task = _Task(running.run, self._began_s(running, now_s))
            tasks[worker.index] = task
        self._tasks, self._looked_s = tasks, now_s
        for worker in workers:
            task = tasks.get(worker.index)
            running = self._ring.stops.running(worker)
            if task is not None and running is not None and running.run == task.run:
                self._see_to(worker, running, task, now_s)

    def _began_s(self, running: Running, now_s: float) -> float:
        age_s = max(0, time.time_ns() - running.started_at_ns) / 1e9
        began_s: float = max(now_s - age_s, self._looked_s)
        return began_s

    def _see_to(self, worker: Entry, running: Running, task: _Task, now_s: float) -> None:
        if running.asked:
            task.asked_s = min(task.asked_s, now_s)
        limit = limit_s(running.time_limit)
        due_s = min(task.asked_s, task.began_s + limit if limit else math.inf)
        end_s = due_s + grace_s(running.time_limit)
        if now_s >= end_s:
            self._end(worker, running)
        elif now_s >= due_s:
            if now_s >= task.told_s + AGAIN_S:
                task.told_s = now_s
                self._crew.tell_to_stop(worker.pid)
            self._next_s = min(self._next_s, end_s, task.told_s + AGAIN_S)
        else:
            self._next_s = min(self._next_s, due_s)

    def _end(self, worker: Entry, running: Running) -> None:
        # Noted first: from there on the worker can neither end this task nor begin another.
        if self._ring.killing.note(running.run, loss_word(Loss.TIMED_OUT)):
            self._crew.kill_one(worker.pid)
        else:  # it has ended; or another process is inside the ring for long
            self._next_s = min(self._next_s, time.monotonic() + AGAIN_S)
