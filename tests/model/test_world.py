"""The model's world is the ring's own: else tests of the model could pass and show nothing."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import uuid4

import pytest

from django_tasks_local.ring import Ring, Role, ring_name, unlink_objects
from tests import rings as peers
from tests.model.faults import Fault, attach_with_faults
from tests.model.model import LOST, READY, RUNNING
from tests.model.world import SECOND_NS, Clock, Look
from tests.rings import LIMITS, Peer, put, run


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The time, which stands still."""
    made = Clock()
    yield made
    made.close()


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a ring."""
    made = ring_name("world", uuid4().hex)
    yield made
    unlink_objects(made)


def test_every_time_in_the_ring_is_the_clocks(name: str, clock: Clock) -> None:
    """Enqueuing, claiming, finishing, losing and falling due go by the clock of the test."""
    ring = Ring(name, "world", LIMITS, Role.SITE)
    done = put(ring)
    clock.now_ns += SECOND_NS
    assert run(ring) == done
    found = ring.get(done)
    assert found.enqueued_at_ns == clock.now_ns - SECOND_NS
    assert (found.started_at_ns, found.finished_at_ns) == (clock.now_ns, clock.now_ns)

    deferred = put(ring, due_ns=clock.now_ns + SECOND_NS)
    assert ring.claim() is None
    assert not ring.upkeep.work_is_due(0.5)
    clock.now_ns += SECOND_NS
    assert ring.upkeep.work_is_due(0)
    ring.upkeep.promote()
    assert ring.upkeep.waiting() == 1

    peer = Peer(lambda: Ring(name, "world", LIMITS, Role.WORKER))
    peer.result()
    assert peer.do(peers.claim) == deferred
    peer.kill()
    clock.now_ns += SECOND_NS
    ring.upkeep.settle_dead()
    assert ring.get(deferred).finished_at_ns == clock.now_ns


def test_the_look_sees_what_is_there(name: str) -> None:
    """Statuses and the queue, read without using the ring."""
    ring = Ring(name, "world", LIMITS, Role.SITE)
    first, second, third = put(ring), put(ring), put(ring)
    peer = Peer(lambda: Ring(name, "world", LIMITS, Role.WORKER))
    peer.result()
    assert peer.do(peers.claim) == first
    look = Look(ring)
    assert look.found_states() == {first: RUNNING, second: READY, third: READY}
    assert look.queue() == [second, third]
    peer.kill()
    ring.upkeep.settle_dead()
    assert look.found_states()[first] == LOST
    assert look.recency() == [first]


def test_the_look_counts_what_an_interrupted_end_has_chained(name: str) -> None:
    """Wherever it was interrupted: a RUNNING record's slots are those that are not free."""
    ring, faults = attach_with_faults(name, LIMITS)
    look, result_id = Look(ring), put(ring, ((bytes(5000),), {}))
    claim: Any = ring.claim()
    others = ring.counts().free_slots + look.slots(result_id)
    counted: set[int] = set()
    for writes in count(1):
        faults.arm(writes)
        with suppress(Fault):
            ring.finish(claim, successful=True, outcome=ring.encode(bytes(18_000)))
        faults.arm(0)
        assert ring.upkeep.check() == []
        if look.found_states()[result_id] != RUNNING:
            break
        counted.add(look.slots(result_id))
        assert ring.counts().free_slots + look.slots(result_id) == others
    assert counted == {1 + 10, 1 + 10 + 36}


def test_every_write_can_be_interrupted(name: str) -> None:
    """The first write of an operation raises where it is told to, and so does a later one."""
    ring, faults = attach_with_faults(name, LIMITS)
    for writes in (1, 5):
        faults.arm(writes)
        with pytest.raises(Fault):
            put(ring)
    ring.upkeep.rebuild()
    assert ring.upkeep.check() == []
