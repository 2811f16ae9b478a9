"""Which result was used last, and which one goes first."""

from collections import OrderedDict
from dataclasses import replace
from itertools import count

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from tests import rings as peers
from tests.model.faults import Fault, attach_with_faults
from tests.rings import LIMITS, Rings, done, exists, put, run


def kept(ring: Ring, ids: list[str]) -> list[str]:
    """Those that are still there, without using them."""
    return [each for each in ids if exists(ring, each)]


def test_beyond_max_results_the_oldest_goes(ring: Ring) -> None:
    """Exactly MAX_RESULTS are kept."""
    ids = [done(ring) for _ in range(LIMITS.max_results + 3)]
    assert kept(ring, ids) == ids[3:]
    assert ring.counts().evicted == 3


def test_reading_makes_a_result_the_most_recent(ring: Ring) -> None:
    """It survives those that were read before it."""
    ids = [done(ring) for _ in range(LIMITS.max_results)]
    for each in (ids[0], ids[3], ids[0]):
        ring.get(each)
    more = [done(ring) for _ in range(LIMITS.max_results - 2)]
    assert kept(ring, ids + more) == [ids[0], ids[3], *more]


def test_reading_in_another_process_counts(rings: Rings) -> None:
    """Recency is the ring's, not a process's."""
    ring = rings.attach()
    ids = [done(ring) for _ in range(LIMITS.max_results)]
    assert rings.peer().do(peers.status_of, ids[0]) == "SUCCESSFUL"
    done(ring)
    assert kept(ring, ids) == [ids[0], *ids[2:]]


def test_reading_the_most_recent_one_writes_nothing(ring: Ring) -> None:
    """Polls of one result cost no lock."""
    result_id = done(ring)
    tick = ring.words[at.H_TICK]
    ring.get(result_id)
    assert ring.words[at.H_TICK] == tick


def test_waiting_and_running_tasks_are_never_evicted(ring: Ring) -> None:
    """However many results come."""
    waiting, running = put(ring, priority=-5), put(ring, priority=50)
    claim = ring.claim()
    assert claim is not None
    assert claim.result_id == running
    for _ in range(3 * LIMITS.max_results):
        done(ring)
    assert kept(ring, [waiting, running]) == [waiting, running]
    ring.finish(claim, successful=True, outcome=ring.encode(1))
    assert ring.get(running).status.name == "SUCCESSFUL"


def test_a_lower_limit_applies_step_by_step(rings: Rings) -> None:
    """MAX_RESULTS may change while the ring is in use: the site that came last decides."""
    ring = rings.attach()
    ids = [done(ring) for _ in range(8)]
    rings.attach(replace(LIMITS, max_results=2)).attachment.become(Role.SITE)
    ids.append(done(ring))
    assert kept(ring, ids) == ids[2:]  # two go for each that comes
    ring.upkeep.trim()
    assert kept(ring, ids) == ids[-2:]
    assert ring.upkeep.check() == []


def test_an_interrupted_end_leaves_at_most_one_too_many(rings: Rings) -> None:
    """Whatever write is interrupted: the next end evicts it, or the pool, once a second."""
    ring, faults = attach_with_faults(rings.name, LIMITS)
    for _ in range(LIMITS.max_results):
        done(ring)
    seen = set()
    for write in count(1):
        put(ring)
        claim = ring.claim()
        assert claim is not None
        faults.arm(write)
        try:
            ring.finish(claim, successful=True, outcome=ring.encode(1))
        except Fault:
            faults.arm(0)
            assert ring.upkeep.check() == []
            seen.add(ring.counts().kept)
            ring.upkeep.trim()
            assert ring.counts().kept == LIMITS.max_results
            if ring.counts().running:
                ring.finish(claim, successful=True, outcome=ring.encode(1))
        else:
            break
        assert ring.counts().kept == LIMITS.max_results
    faults.arm(0)
    assert seen == {LIMITS.max_results, LIMITS.max_results + 1}


def test_an_evicted_result_does_not_exist(ring: Ring) -> None:
    """Its slot serves another record, and its id leads nowhere."""
    ids = [done(ring) for _ in range(LIMITS.max_results + 1)]
    with pytest.raises(TaskResultDoesNotExist, match="evicted"):
        ring.get(ids[0])


def test_a_chained_result_goes_with_all_its_slots(ring: Ring) -> None:
    """Arguments and outcome."""
    free = ring.counts().free_slots
    result_id = put(ring, ((b"x" * 3000,), {}))
    run(ring, b"y" * 4000)
    assert ring.counts().free_slots < free - 10
    for _ in range(LIMITS.max_results):
        done(ring)
    assert not exists(ring, result_id)
    used = free - ring.counts().free_slots
    assert (
        used
        == ring.words[at.H_FINISHED_SLOTS]
        == ring._table.slots_of(ring.words[at.H_OLDEST]) * LIMITS.max_results
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 7)), max_size=40))
def test_it_is_least_recently_used(rings: Rings, steps: list[int | None]) -> None:
    """Over any reads and ends it keeps what an OrderedDict would keep; a rebuild agrees."""
    ring = rings.attach()
    model: OrderedDict[str, None] = OrderedDict()
    while ring.counts().kept:
        ring._mutex.run(ring._table.evict_oldest)
    for step in steps:
        if step is None or step >= len(model):
            model[done(ring)] = None
            if len(model) > LIMITS.max_results:
                model.popitem(last=False)
        else:
            result_id = list(model)[step]
            ring.get(result_id)
            model.move_to_end(result_id)
        if step == 7:
            ring.upkeep.rebuild()
    assert ring.upkeep.check() == []
    order = []
    while ring.words[at.H_OLDEST]:
        head = ring._table.head(ring.words[at.H_OLDEST])
        order.append((head.id_high, head.id_low))
        ring._mutex.run(ring._table.evict_oldest)
    assert order == [peers.ring_address(each)[1:] for each in model]
