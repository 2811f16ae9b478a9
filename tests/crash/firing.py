"""What an actor of the fuzzer does as a pool that fires periodic tasks."""

import random
from contextlib import suppress
from typing import Any, Final

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull
from django_tasks_local.ring import Due, Outcome, Ring
from tests.crash.ledger import TIMES, Ledger
from tests.rings import tally_of

NAMES: Final = (1, 2)


class Firer:
    """A part of `Actor`."""

    ring: Ring
    ledger: Ledger
    place: int
    rng: random.Random

    def fire(self, task: int, meta: bytes, arguments: Any, metadata: bytes) -> None:
        """Fires a later time than was settled, or settles it without a run.

        What it is for is noted before, since this process may die in the middle.
        """
        firing = self.ring.firing
        if set(firing.rows()) != set(NAMES):
            firing.adopt([(name, 1) for name in NAMES], 1)
        name = self.rng.choice(NAMES)
        row = firing.rows()[name]
        time = row.settled_ns + self.rng.choice((1, 1, 5))
        if time >= TIMES:
            return
        if self.rng.random() < 0.05:
            firing.settle(row, time)
            return
        self.ledger.mean(task, NAMES.index(name), time)
        due = Due(row, time, self.rng.random() < 0.5)
        with suppress(QueueFull, PayloadTooLarge):
            outcome = firing.fire(
                due, meta, arguments, priority=0, time_limit=0, metadata=metadata,
                tally=tally_of(self.ring),
            )  # fmt: skip
            if outcome is Outcome.FIRED:
                self.ledger.add(self.place, "fired")
                return
        self.ledger.mean_nothing(task)

    def note_time(self, task: int) -> None:
        """A task has been started: no other has been for the same time."""
        before = self.ledger.take_time(task)
        if before is not None:
            self.ledger.violation(f"task {task} runs for a time, as {before} does, or for none")
