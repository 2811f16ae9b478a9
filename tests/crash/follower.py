"""What an actor of the fuzzer does to have tasks followed by others, and what must hold then."""

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.ring import Ring
from django_tasks_local.store import time_limit_word
from django_tasks_local.ties import FollowUp, Ties
from tests.crash.ledger import STARTED, Ledger
from tests.crash.retrier import lost_attempts


class Follower:
    """A part of `Actor`."""

    ring: Ring
    ledger: Ledger
    place: int
    rng: random.Random
    tally: Callable[[], int]

    def ties_to(self, task: int, follower: int, meta: bytes, arguments: Any) -> Ties | None:
        """Ties of a task that another one follows, however it ends; None now and then."""
        if follower < 0:
            return None
        self.ledger.follow(task, follower)
        limit, priority = time_limit_word(None, 0, lost_attempts(follower)), self.rng.choice((0, 7))
        return Ties(
            "fuzz", "", 0, 0, (FollowUp(meta, arguments, priority, limit, tally=self.tally()),)
        )

    def follows(self, task: int, claim: Any) -> None:
        """A follow-up is running: the task that it follows has ended."""
        if not claim.ties.after:
            return
        number = int(claim.result_id.replace("-", ""), 16)
        self.ledger.accepted(task, number >> 64, number & 0xFFFFFFFFFFFFFFFF)
        with suppress(TaskResultDoesNotExist):
            if not self.ring.get(claim.ties.after).finished_at_ns:
                self.ledger.violation(f"task {task} follows one that has not ended")


def judge_follow_ups(ledger: Ledger, lost: set[int]) -> None:
    """Each task that has ended was followed, but for those that were lost before they were seen."""
    tasks = ledger.wanted_tasks()
    known = {halves[0] for task in tasks if (halves := ledger.id_of(task))}
    missing = [
        task
        for task in tasks
        if ledger.id_of(task)
        and (follower := ledger.follower_of(task)) is not None
        and not ledger.noted(follower, STARTED)
    ]
    unseen = lost - known
    if len(missing) > len(unseen):
        ledger.violation(
            f"nothing has followed the tasks {missing}; {len(unseen)} were lost unseen"
        )
