"""What an actor of the fuzzer does to fail attempts, and what must hold of those that failed."""

import random
import time
from typing import Any, Final

from django_tasks_local.attempts import KEPT_ERRORS
from django_tasks_local.exceptions import TaskTimeout
from django_tasks_local.ring import Ring, retries
from django_tasks_local.store import StopAsked
from tests.crash.ledger import RETRIED, Ledger

LOST: Final = ("WorkerLost", "MemoryExceeded", TaskTimeout.__name__)
# So that what was lost is tried again within a round.
PAUSE_S: Final = 0.02


def lost_attempts(task: int) -> int:
    """How often a task may be tried where its worker dies."""
    return 4 if task % 5 == 0 else 0


def be_impatient() -> None:
    """What was lost is tried again soon; for a process of the fuzzer's own."""
    retries.FIRST_PAUSE_S = retries.LONGEST_PAUSE_S = PAUSE_S  # type: ignore[misc, assignment]


class Retrier:
    """A part of `Actor`."""

    ring: Ring
    ledger: Ledger
    place: int
    rng: random.Random

    def started(self, task: int, claim: Any) -> None:
        """Every attempt that was noted is counted: none is left out, no two run at a time."""
        before = self.ledger.start(task, self.place)
        counted = len(claim.past.workers) if claim.past else 0
        if before > counted:
            self.ledger.violation(
                f"task {task} was started {before} times before, and {counted} are counted"
            )

    def fails(self, task: int, claim: Any) -> bool:
        """Fails the attempt now and then; whether the task is tried again."""
        if self.rng.random() < 0.7:
            return False
        self.ledger.note(task, RETRIED, self.place)
        due_ns = time.time_ns() + self.rng.randrange(40_000_000) if self.rng.random() < 0.3 else 0
        text = f"task {task} {'x' * self.rng.choice((0, 30, 700, 3000))}"
        try:
            retried = self.ring.retry(claim, error=("app.Busy", text), due_ns=due_ns)
        except StopAsked:
            return False
        if retried:
            self.ledger.add(self.place, "retried")
        return retried

    def compare_past(self, task: int, past: Any) -> None:
        """One error for each attempt that failed, up to ten, and each of this task."""
        if past is None:
            return
        if not (self.ledger.noted(task, RETRIED) or lost_attempts(task)):
            self.ledger.violation(f"task {task} was tried again")
        if len(past.errors) != min(len(past.workers), KEPT_ERRORS):
            self.ledger.violation(
                f"task {task} has {len(past.errors)} errors of {len(past.workers)} attempts"
            )
        for path, text in past.errors:
            lost = path.endswith(LOST) and lost_attempts(task)
            begins, told = f"task {task} ", text.partition("\n")[0]  # of what was cut
            own = told.startswith(begins) or begins.startswith(told)
            if not (lost or (path == "app.Busy" and own)):
                self.ledger.violation(f"task {task} shows the error of another: {path}: {text}")
