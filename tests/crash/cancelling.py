"""What an actor of the fuzzer does to cancel tasks, and to end those that others have cancelled."""

import random
from contextlib import suppress
from typing import Any

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.ring import Ring
from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.store import StopAsked
from tests.crash.ledger import CANCELLED, NEXT, Ledger


class Canceller:
    """A part of `Actor`."""

    ring: Ring
    ledger: Ledger
    place: int
    rng: random.Random

    def _end(self, claim: Any, error: tuple[str, str], *, cancelled: bool) -> None:
        try:
            self.ring.finish(
                claim, successful=False, outcome=self.ring.encode(error), cancelled=cancelled
            )
        except StopAsked:
            self._end(claim, ("was", "cancelled"), cancelled=True)

    def cancel(self) -> None:
        """Cancels some task; it is noted before, since this process may die in the middle."""
        task = self.any_task()
        halves = self.ledger.id_of(task) if task >= 0 else None
        if halves is None:
            return
        self.ledger.note(task, CANCELLED, self.place)
        with suppress(TaskResultDoesNotExist):
            result_id = format_id(*halves)
            if self.ring.cancel(result_id, running=self.rng.random() < 0.8)[0]:
                self.ledger.add(self.place, "cancelled")
                found = self.ring.get(result_id)
                if found.finished_at_ns and not found.cancelled:
                    self.ledger.violation(f"task {task} was cancelled, and is {found.status}")

    def any_task(self) -> int:
        """A task that somebody enqueued, or tried to; -1 for none."""
        place = self.rng.randrange(self.ledger.places)
        many = self.ledger.field(place, NEXT)
        # Mostly a new one: the old ones are evicted.
        back = min(int(self.rng.expovariate(0.05)), many - 1)
        return place * self.ledger.tasks_each + many - 1 - back if many else -1
