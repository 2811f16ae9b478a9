"""Waiting tasks are taken out wherever they stand; running ones carry the reason to stop."""

import random
from dataclasses import replace
from typing import Any

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import TaskCancelled, TaskTimeout
from django_tasks_local.ring import Loss, Ring, loss_word
from django_tasks_local.ring.format import layout as at
from django_tasks_local.store import StopAsked, time_limit_word
from tests import rings as peers
from tests.rings import LIMITS, Rings, done, exists, put, ring_address

from .quick import STEPS_PER_MS, count_steps

MANY = replace(LIMITS, max_pending=3000, max_results=3000, shm_size=32 * 2**20)
FAR_NS = 2**62


def error_of(ring: Ring, result_id: str) -> Any:
    """What a LOST record says."""
    return ring.get(result_id).outcome()[0].rpartition(".")[2]


@pytest.mark.parametrize("due_ns", [0, FAR_NS], ids=["waiting", "deferred"])
def test_in_any_order(rings: Rings, due_ns: int) -> None:
    """First, last or in the middle: the rest stays in its order, and the ring is whole."""
    rng = random.Random(due_ns)
    ring = rings.attach(replace(LIMITS, max_pending=60, max_results=100))
    for _ in range(5):
        due = [rng.randrange(1, 9) + due_ns if due_ns else 0 for _ in range(40)]
        ids = [put(ring, priority=rng.choice((0, 0, 5)), due_ns=each) for each in due]
        gone = rng.sample(ids, rng.choice((1, 20, 40)))
        for result_id in gone:
            assert ring.cancel(result_id, running=False)[0]
            assert ring.upkeep.check() == []
            assert error_of(ring, result_id) == "TaskCancelled"
        for result_id in set(ids) - set(gone):
            assert ring.get(result_id).status.name == "READY"
            assert ring.cancel(result_id, running=True)[0]
        assert ring.counts().waiting == ring.counts().deferred == 0
        ring.upkeep.rebuild()
        assert ring.upkeep.check() == []


def test_the_order_of_the_others(ring: Ring) -> None:
    """Those before and behind run as if it had never been there."""
    ids = [put(ring, priority=priority) for priority in (0, 3, 0, 3, 0)]
    for place in (2, 1):
        assert ring.cancel(ids[place], running=True)[0]
    claims: list[Any] = [ring.claim() for _ in range(3)]
    assert [claim.result_id for claim in claims] == [ids[3], ids[0], ids[4]]
    assert ring.claim() is None


def test_what_was_allowed_since(rings: Rings) -> None:
    """A record may still be in the lane of newer sites, though its code may run it by now."""
    ring = rings.attach()
    ids = [put(ring) for _ in range(3)]
    ring.upkeep.set_runnable_up_to(ring.registry.serial)
    ids += [put(ring) for _ in range(3)]
    for result_id in (ids[1], ids[4], ids[0], ids[5]):
        assert ring.cancel(result_id, running=True)[0]
        assert ring.upkeep.check() == []
    assert ring.counts().waiting == 2


def test_large_arguments_are_recycled_like_those_of_others(rings: Rings) -> None:
    """A cancelled task is a finished record with its chains."""
    ring = rings.attach()
    result_id = put(ring, ((bytes(5000),), {}))
    assert ring.cancel(result_id, running=True)[0]
    assert ring.get(result_id).arguments() == ((bytes(5000),), {})
    assert ring.upkeep.check() == []
    while exists(ring, result_id):
        done(ring)
    assert ring.upkeep.check() == []


def test_no_hold_is_long(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of thousands that wait, one is taken out in a few steps."""
    steps = count_steps(monkeypatch)
    ring = rings.attach(MANY)
    ids = [put(ring, due_ns=FAR_NS - n if n % 2 else 0) for n in range(2000)]
    steps.most.clear()
    for result_id in random.Random(1).sample(ids, 300):
        assert ring.cancel(result_id, running=True)[0]
    assert 0 < max(steps.most.values()) < STEPS_PER_MS


def test_a_running_task_is_asked(ring: Ring) -> None:
    """Its end is refused until it tells that it was asked; the note goes with the record."""
    result_id = put(ring)
    claim: Any = ring.claim()
    assert not ring.cancel(result_id, running=False)[0]
    assert not claim.stop_asked
    assert ring.cancel(result_id, running=True) == (True, None)
    assert ring.cancel(result_id, running=True)[0]
    assert not ring.cancel(result_id, running=False)[0] or claim.stop_asked
    assert claim.stop_asked
    assert not ring.get(result_id).cancelled
    for successful in (True, False):
        with pytest.raises(StopAsked):
            ring.finish(claim, successful=successful, outcome=ring.encode("x" * 600))
    outcome = ring.encode(("TaskCancelled", "text"))
    ring.finish(claim, successful=False, outcome=outcome, cancelled=True)
    found = ring.get(result_id)
    assert (found.cancelled, found.status.name) == (True, "FAILED")
    assert ring.upkeep.check() == []
    again = put(ring)
    while ring_address(again)[0] != ring_address(result_id)[0]:
        ring.cancel(again, running=True)
        again = put(ring)
    taken: Any = ring.claim()
    assert not taken.stop_asked


@pytest.mark.parametrize("asked", [False, True])
def test_a_worker_that_dies(rings: Rings, asked: bool) -> None:
    """Killed at its limit it is told as TaskTimeout, unless it was asked to stop before."""
    ring = rings.attach()
    word = time_limit_word(1.5, 5)
    data = ring.encode(((), {}))
    result_id, _ = ring.enqueue(peers.META, data, priority=0, due_ns=0, time_limit=word)
    peer = rings.peer()
    assert peer.do(peers.claim) == result_id
    (entry,) = [each for each in ring.registry.attachments() if each.index == peer.index]
    running = ring.stops.running(entry)
    assert running is not None
    assert (running.time_limit, running.asked) == (word, False)
    if asked:
        assert ring.cancel(result_id, running=True)[0]
    assert ring.killing.note(running.run, loss_word(Loss.TIMED_OUT))
    assert ring.cancel(result_id, running=True)[0] == asked
    peer.kill()
    ring.upkeep.settle(peer.index, loss_word(Loss.SIGNAL, 9))
    assert error_of(ring, result_id) == (TaskCancelled if asked else TaskTimeout).__name__
    found = ring.get(result_id)
    assert (found.cancelled, found.loss) == (asked, None)
    assert "time limit is 1.5 s" in found.outcome()[1] or asked
    assert ring.stops.running(entry) is None


def test_ids_that_lead_nowhere(ring: Ring) -> None:
    """The same error as for a read."""
    with pytest.raises(TaskResultDoesNotExist):
        ring.cancel("nonsense", running=True)
    result_id = done(ring)
    assert ring.cancel(result_id, running=True) == (False, None)
    ring.words[at.H_RESULT_TTL] = 0


def test_what_is_evicted_at_once_was_cancelled(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canceller is told so, and has the record for its signal."""
    result_id = put(ring)

    def evict(slot: int) -> None:
        ring._mutex.run(ring._table.evict_oldest)

    monkeypatch.setattr(ring.stops, "_wake", evict)
    cancelled, found = ring.cancel(result_id, running=True)
    assert cancelled
    assert found is not None
    assert found.status.name == "FAILED"
    assert found.outcome()[0].endswith(".TaskCancelled")
    assert not exists(ring, result_id)
    assert ring.upkeep.check() == []
