"""Random ends of tasks that others follow, interrupted at random, in a ring that is always full.

The model is small: a task that has ended has what follows such an end, once; others have nothing.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final
from uuid import uuid4

import pytest
from django.tasks import TaskResultStatus
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull
from django_tasks_local.ring import Limits, Role, ring_name, unlink_objects
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records.listing import Listing
from django_tasks_local.ring.records.reader import STATUSES, Found
from django_tasks_local.ties import NOTHING, FollowUp, Ties
from tests import rings as peers
from tests.model.draws import interruptions
from tests.model.faults import Fault, attach_with_faults
from tests.rings import Peer

# 2 workers, 46 slots.
LIMITS: Final = Limits(2, 6, 40, 512, at.COLUMNS_AT + 63_096)
EXAMPLES: Final = int(os.environ.get("DTL_MODEL_EXAMPLES", "25"))
pytestmark = pytest.mark.time_limit(420 + EXAMPLES)

META: Final = b"tests.tasks:nothing"
sizes = st.sampled_from([0, 0, 100, 300, 600, 1500])
places = st.sampled_from([NOTHING, 0, 0, 1, 2])


class TiesMachine(RuleBasedStateMachine):
    """One ring, and its tasks by their ids: of which each has said what follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.name = ring_name("ties", uuid4().hex)
        self.claims: dict[str, Any] = {}
        self.ended: set[str] = set()
        self.peers: list[Peer] = []

    @initialize()
    def attach(self) -> None:
        self.ring, self.faults = attach_with_faults(self.name, LIMITS)

    def teardown(self) -> None:
        for peer in self.peers:
            peer.kill()
        unlink_objects(self.name)

    def interrupted(self, writes: int, operation: Callable[[], object]) -> bool:
        """Does an operation; True where it was interrupted at the given write."""
        self.faults.arm(writes)
        try:
            operation()
        except Fault:
            return True
        finally:
            self.faults.arm(0)
        return False

    def records(self) -> list[Found]:
        """All of them."""
        return list(Listing(self.ring._table, self.ring._reader).records(list(STATUSES)))

    @rule(data=st.data(), size=sizes, fault=interruptions, plain=st.booleans())
    def enqueue(self, data: st.DataObject, size: int, fault: int, plain: bool) -> None:
        """A task with a plan of up to three others, each with arguments of some size."""
        plan = tuple(
            FollowUp(
                META + b"%d" % number,
                self.ring.encode(((os.urandom(data.draw(sizes)),), {})) if number else None,
                0, number, data.draw(places), data.draw(places),
            )
            for number in range(3)
        )  # fmt: skip
        ties = Ties("g", "", data.draw(places), data.draw(places), plan)
        arguments = self.ring.encode(((os.urandom(size),), {}))
        put = partial(self.ring.enqueue, META, arguments, priority=0, due_ns=0)
        with suppress(QueueFull, PayloadTooLarge):
            self.interrupted(fault, partial(put, ties=None if plain else ties))

    @precondition(lambda self: len(self.claims) < 2)
    @rule()
    def claim(self) -> None:
        """This process takes the next one."""
        claim = self.ring.claim()
        if claim is not None:
            self.claims[claim.result_id] = claim

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), size=sizes, successful=st.booleans(), fault=interruptions)
    def finish(self, data: st.DataObject, size: int, successful: bool, fault: int) -> None:
        """It ends, with a small error where its outcome has no room."""
        result_id = data.draw(st.sampled_from(sorted(self.claims)))
        claim = self.claims[result_id]

        def operation() -> None:
            try:
                self.ring.finish(claim, successful=successful, outcome=self.ring.encode("x" * size))
            except PayloadTooLarge:
                self.ring.finish(claim, successful=False, outcome=self.ring.encode("x" * 300))

        self.interrupted(fault, operation)
        if self.ring.get(result_id).finished_at_ns:
            del self.claims[result_id]

    @rule(data=st.data(), fault=interruptions)
    def cancel(self, data: st.DataObject, fault: int) -> None:
        """One that waits is taken out."""
        waiting = [each for each in self.records() if each.state == at.READY]
        if waiting:
            result_id = data.draw(st.sampled_from(waiting)).result_id
            self.interrupted(fault, lambda: self.ring.cancel(result_id, running=False))

    @precondition(lambda self: not self.claims)
    @rule(fault=interruptions)
    def lose(self, fault: int) -> None:
        """Another process claims one, and dies; this one settles that."""
        peer = Peer(lambda: type(self.ring)(self.name, "ties", LIMITS, Role.WORKER))
        peer.result()
        peer.do(peers.claim)
        peer.kill()
        self.interrupted(fault, self.ring.upkeep.settle_dead)
        self.ring.upkeep.settle_dead()

    @invariant()
    def what_follows(self) -> None:
        """What follows an end is there as soon as that is, and nothing else."""
        self.ring.attachment.become(Role.SITE)  # whatever an interruption has left
        assert self.ring.upkeep.check() == []
        records = {each.result_id: each for each in self.records()}
        after: dict[str, list[Found]] = {}
        for each in records.values():
            after.setdefault(each.ties.after, []).append(each)
        for result_id, each in records.items():
            followers = after.get(result_id, [])
            if not each.finished_at_ns:
                assert followers == []
                continue
            successful = each.status is TaskResultStatus.SUCCESSFUL
            expected = each.ties.next(successful=successful)
            if result_id not in self.ended:  # since the last look: it cannot be evicted again yet
                self.ended.add(result_id)
                wanted = [expected.meta] if expected else []
                assert [found.meta for found in followers] == wanted
            assert len(followers) <= (expected is not None)
        unfinished = [key for key, each in records.items() if not each.finished_at_ns]
        tied = [key for key in unfinished if records[key].ties.group == "g"]
        assert sorted(self.ring.unfinished_in("g")) == sorted(tied)


TestTies = TiesMachine.TestCase
TestTies.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=30, deadline=None, phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
