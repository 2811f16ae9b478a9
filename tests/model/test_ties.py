"""Random ends of tasks that others follow, interrupted at random, in a ring that is always full.

The model is small: a task that has ended has what follows such an end, once; others have nothing.
"""

import os
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final
from uuid import uuid4

import pytest
from django.tasks import TaskResultStatus

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull
from django_tasks_local.ring import Limits, Ring, Role, ring_name, unlink_objects
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records.listing import Listing
from django_tasks_local.ring.records.reader import STATUSES, Found
from django_tasks_local.ties import NOTHING, FollowUp, Ties
from tests import rings as peers
from tests.model.faults import Fault, attach_with_faults
from tests.rings import Peer

# 2 workers, 46 slots.
LIMITS: Final = Limits(2, 6, 40, 512, at.COLUMNS_AT + 63_096)
EXAMPLES: Final = int(os.environ.get("DTL_MODEL_EXAMPLES", "20"))
STEPS: Final = 150
GROUP, META = "g", b"tests.tasks:nothing"


class Machine:
    """One ring, and what has ended in it."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.name = ring_name("ties", uuid4().hex)
        self.ring, self.faults = attach_with_faults(self.name, LIMITS)
        self.claims: dict[str, Any] = {}
        self.ended: set[str] = set()

    def interrupted(self, operation: Callable[[], object]) -> None:
        """Does an operation, half of the time to one of its writes only."""
        self.faults.arm(self.draw.choice((0, self.draw.randint(1, 80))))
        with suppress(Fault):
            operation()
        self.faults.arm(0)

    def size(self) -> int:
        """Bytes that fit a head slot, or not."""
        return self.draw.choice((0, 0, 100, 300, 600, 1500))

    def place(self) -> int:
        """What follows."""
        return self.draw.choice((NOTHING, 0, 0, 1, 2))

    def records(self) -> list[Found]:
        """All of them."""
        return list(Listing(self.ring._table, self.ring._reader).records(list(STATUSES)))

    def enqueue(self) -> None:
        """A task with a plan of three others, or a plain one."""
        plan = tuple(
            FollowUp(
                META + b"%d" % number,
                self.ring.encode(((bytes(self.size()),), {})) if number else None,
                0, number, self.place(), self.place(),
            )
            for number in range(3)
        )  # fmt: skip
        ties = Ties(GROUP, "", self.place(), self.place(), plan)
        arguments = self.ring.encode(((bytes(self.size()),), {}))
        put = partial(self.ring.enqueue, META, arguments, priority=0, due_ns=0)
        with suppress(QueueFull, PayloadTooLarge):
            self.interrupted(partial(put, ties=self.draw.choice((None, ties))))
        self.faults.arm(0)

    def claim(self) -> None:
        """This process takes the next one."""
        if len(self.claims) < LIMITS.max_workers and (claim := self.ring.claim()) is not None:
            self.claims[claim.result_id] = claim

    def finish(self) -> None:
        """One ends, with a small error where its outcome has no room."""
        if self.claims:
            result_id = self.draw.choice(sorted(self.claims))
            self.interrupted(partial(self._finish, self.claims[result_id]))
            if self.ring.get(result_id).finished_at_ns:
                del self.claims[result_id]

    def _finish(self, claim: Any) -> None:
        outcome, successful = self.ring.encode("x" * self.size()), self.draw.random() < 0.5
        try:
            self.ring.finish(claim, successful=successful, outcome=outcome)
        except PayloadTooLarge:
            self.ring.finish(claim, successful=False, outcome=self.ring.encode("x" * 300))

    def cancel(self) -> None:
        """One that waits is taken out."""
        if waiting := [each.result_id for each in self.records() if each.state == at.READY]:
            result_id = self.draw.choice(waiting)
            self.interrupted(lambda: self.ring.cancel(result_id, running=False))

    def lose(self) -> None:
        """Another process claims one, and dies; this one settles that."""
        if not self.claims:
            peer = Peer(lambda: Ring(self.name, "ties", LIMITS, Role.WORKER))
            peer.result()
            peer.do(peers.claim)
            peer.kill()
            self.interrupted(self.ring.upkeep.settle_dead)
            self.ring.upkeep.settle_dead()

    def step(self) -> None:
        """Does one of these."""
        operations = [self.enqueue] * 5 + [self.claim, self.finish] * 4 + [self.cancel, self.lose]
        self.draw.choice(operations)()
        self.compare()

    def compare(self) -> None:
        """What follows an end is there as soon as that is, and nothing else."""
        self.ring.attachment.become(Role.SITE)  # whatever an interruption has left
        assert self.ring.upkeep.check() == []
        records = {each.result_id: each for each in self.records()}
        after: dict[str, list[bytes]] = {}
        for each in records.values():
            after.setdefault(each.ties.after, []).append(each.meta)
        for result_id, each in records.items():
            followers = after.get(result_id, [])
            if not each.finished_at_ns:
                assert followers == []
            elif result_id not in self.ended:  # since the last look: nothing was evicted since
                self.ended.add(result_id)
                successful = each.status is TaskResultStatus.SUCCESSFUL
                expected = each.ties.next(successful=successful)
                assert followers == ([expected.meta] if expected else [])
            else:
                assert len(followers) <= 1
        unfinished = [key for key, each in records.items() if not each.finished_at_ns]
        tied = [key for key in unfinished if records[key].ties.group == GROUP]
        assert sorted(self.ring.unfinished_in(GROUP)) == sorted(tied)


@pytest.mark.parametrize("seed", range(EXAMPLES))
def test_what_follows(seed: int) -> None:
    """Whatever is interrupted, each end has what follows it, and the ring has room for that."""
    machine = Machine(seed)
    try:
        for _ in range(STEPS):
            machine.step()
    finally:
        unlink_objects(machine.name)
