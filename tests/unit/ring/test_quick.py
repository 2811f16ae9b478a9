"""Rule 9: nobody is inside the mutex for long, whatever the sizes."""

import os
import random
import time
from dataclasses import replace

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Limits, Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.store import Arguments
from tests import rings as peers
from tests.rings import FAR_NS, LIMITS, Rings, done, put, run

from .quick import STEPS_PER_MS, Steps, count_steps

# Room for tens of thousands of records: a step for each of them would be seen.
MANY = Limits(2, 20_000, 20_000, LIMITS.slot_size, 32 * 2**20)
SMALLER = replace(MANY, max_results=200_000, shm_size=14 * 2**20)
LARGE = 2 * 2**20


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """What is done inside from here on."""
    return count_steps(monkeypatch)


def quick(steps: Steps) -> bool:
    """Whether no hold of the mutex took more steps than there are in 1 ms; forgets them."""
    too_long = {name: most for name, most in steps.most.items() if most > STEPS_PER_MS}
    steps.most.clear()
    assert not too_long
    return True


def fragmented(ring: Ring, gap: int = 1) -> None:
    """Fills the ring with results, and evicts so many of each so many and one: no run is longer."""
    while True:
        counts = ring.counts()
        if counts.free_slots <= 4 and counts.reserved_slots == counts.slots:
            break
        done(ring)
    words, table = ring.words, ring._table
    kept = []
    for place in range(words[at.H_FINISHED]):
        if place % (gap + 1) == 0:
            kept.append(words[at.H_OLDEST])
            ring._operations.touch(words[at.H_OLDEST], words[table.commit + words[at.H_OLDEST]])
        else:
            table.evict_oldest()
    words[at.H_DIRTY] = 0


def test_a_rebuild_takes_few_steps_for_each_record(steps: Steps, rings: Rings) -> None:
    """Columns are read and written as a whole: 2 µs a record, of a million as well."""
    ring = rings.attach(replace(LIMITS, max_pending=2000, max_results=1000))
    for number in range(900):
        put(ring, priority=number % 7, due_ns=FAR_NS * 10**6 - number if number % 3 else 0)
    for _ in range(200):
        run(ring)
    before = ring.counts()
    ring.upkeep.rebuild()
    assert steps.most["rebuild"] < 900 * 12
    assert ring.upkeep.check() == []
    assert ring.counts() == before


def test_results_that_expire_together(
    steps: Steps, rings: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of them are recycled some at a time, large ones fewer."""
    ring = rings.attach(replace(MANY, result_ttl_s=1))
    for number in range(2000):
        done(ring, ((bytes(3000),), {}) if number % 50 == 0 else ((), {}))
    done(ring, ((), {}), os.urandom(LARGE))
    steps.most.clear()
    later_ns = time.time_ns() + FAR_NS
    monkeypatch.setattr("time.time_ns", lambda: later_ns)
    while ring.counts().kept:
        ring.expiry.sweep()
    assert quick(steps)
    assert ring.upkeep.check() == []


def test_a_herd(steps: Steps, rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 tasks that are due at one instant are moved some at a time, and claimed meanwhile."""
    ring = rings.attach(MANY)
    due_ns = 2**62
    for number in range(20_000):
        put(ring, due_ns=due_ns, priority=number % 3)
    assert quick(steps)
    monkeypatch.setattr("time.time_ns", lambda: due_ns)
    ring.upkeep.promote()
    claims = [ring.claim() for _ in range(3)]
    assert quick(steps)
    assert all(claims)
    assert ring.counts().deferred > 10_000


def test_a_lowered_max_results(steps: Steps, rings: Rings) -> None:
    """20,000 results are brought down to one, some at a time, whoever comes."""
    ring = rings.attach(MANY)
    for _ in range(20_000):
        done(ring)
    rings.attach(replace(MANY, max_results=1)).attachment.become(Role.SITE)
    for _ in range(3):
        done(ring)
    while ring.counts().kept > 1:
        ring.upkeep.trim()
    assert quick(steps)
    assert ring.upkeep.check() == []


@pytest.mark.parametrize("gap", [1, 7])
def test_a_large_payload_in_a_fragmented_ring(steps: Steps, rings: Rings, gap: int) -> None:
    """It is taken and freed run by run, and results make room for it some at a time."""
    ring = rings.attach(SMALLER)
    fragmented(ring, gap)
    steps.most.clear()
    arguments: Arguments = (os.urandom(LARGE),), {}
    for _ in range(2):
        done(ring, arguments, arguments)
    result_id = put(ring, arguments)
    assert ring.get(result_id).arguments() == arguments
    claim = ring.claim()
    assert claim is not None
    ring.finish(claim, successful=True, outcome=ring.encode(arguments))
    for _ in range(200):
        done(ring, outcome=b"x" * 50_000)
    assert quick(steps)
    assert ring.upkeep.check() == []


def test_large_payloads_in_a_ring_that_was_used_long(steps: Steps, rings: Rings) -> None:
    """Each free slot bears the word of another record that was recycled."""
    ring = rings.attach(SMALLER)
    rng = random.Random(1)
    for _ in range(20_000):
        done(ring, outcome=bytes(rng.randrange(100, 600)))
    for _ in range(4):
        done(ring, outcome=bytes(2 * LARGE))
    assert quick(steps)
    assert ring.upkeep.check() == []


def test_results_in_long_chains_go(steps: Steps, rings: Rings) -> None:
    """Whoever evicts them, or gives one up, frees some of their slots, and no more."""
    limits = replace(MANY, max_results=2, shm_size=240 * 2**20)
    ring = rings.attach(limits)
    huge: Arguments = (bytes(16 * 2**20),), {}
    for _ in range(2):
        done(ring, huge, huge)
    put(ring, huge)
    run(ring, outcome=ring.encode(huge))
    done(ring, huge)
    assert ring.counts().kept == 2
    rings.attach(replace(limits, max_results=1)).attachment.become(Role.SITE)
    for _ in range(2):  # two results go for one that comes
        done(ring, huge, huge)
    for _ in range(2):
        done(ring)
    while ring.words[at.H_DISCARDED]:
        ring.upkeep.trim()
    assert quick(steps)
    kept = ring.words[at.H_FINISHED_SLOTS]
    assert ring.counts().free_slots == ring.counts().reserved_slots - 1 - kept
    assert ring.upkeep.check() == []


def test_long_chains_that_were_not_finished_go(
    steps: Steps, rings: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an interrupted enqueue, of an interrupted end, and of a task lost with both."""
    limits = replace(MANY, max_results=1, shm_size=240 * 2**20)
    ring = rings.attach(limits)
    huge: Arguments = (bytes(32 * 2**20),), {}
    done(ring, huge)
    peer = rings.peer(limits, Role.SITE)
    put(ring, huge)
    peer.do(peers.claim)
    peer.kill()
    with monkeypatch.context() as patch:
        patch.setattr(ring._table.slots, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            put(ring, huge)
    put(ring)
    claim = ring.claim()
    assert claim is not None
    with monkeypatch.context() as patch:
        patch.setattr(ring._table.slots, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ring.finish(claim, successful=True, outcome=ring.encode(huge))
    ring.finish(claim, successful=True, outcome=ring.encode(None))
    ring.upkeep.settle_dead()
    assert quick(steps)
    assert ring.counts().kept == 1
    assert ring.upkeep.check() == []


def interrupted(*_: object) -> None:
    """What a signal handler may do to a copy."""
    raise KeyboardInterrupt


def test_arguments_to_drop_behind_many_results(steps: Steps, rings: Rings) -> None:
    """They are searched some at a time."""
    ring = rings.attach(replace(MANY, max_results=200_000))
    for _ in range(20_000):
        done(ring)
    for _ in range(8):
        done(ring, ((bytes(2 * LARGE),), {}))
    assert quick(steps)
    assert (ring.counts().kept, ring.counts().evicted) == (20_008, 0)
    assert ring.upkeep.check() == []


@pytest.mark.parametrize("slot_size", [LIMITS.slot_size, 2**16, 2**20])
def test_growth(steps: Steps, rings: Rings, slot_size: int) -> None:
    """Memory is taken about a MiB at a time, whatever the size of a slot."""
    ring = rings.attach(replace(MANY, slot_size=slot_size, shm_size=64 * 2**20))
    before = ring.counts().reserved_bytes
    assert before <= at.COLUMNS_AT + 3 * 2**20
    grown = []
    for _ in range(8):
        put(ring, ((bytes(3 * 2**20),), {}))
        grown.append(ring.counts().reserved_bytes)
    assert grown[-1] - before >= 20 * 2**20
    assert quick(steps)


@pytest.mark.parametrize("living", [True, False])
def test_a_full_registry(steps: Steps, rings: Rings, living: bool) -> None:
    """Places are looked for at a glance; who of 2,048 has died is asked outside."""
    ring = rings.attach()
    registry = ring.registry
    for index in range(at.ENTRIES):
        if not registry.in_use(index):
            registry.put(index, at.E_COMMIT, Role.VISITOR << at.ROLE_SHIFT | 1)
    ring.words[at.H_ENTRIES_USED] = at.ENTRIES
    ring.words[at.H_SERIAL] += 1
    if living:
        ring.segment.entries.update(dict.fromkeys(range(at.ENTRIES), os.getpid()))
        with pytest.raises(StoreUnavailable, match="2048 places"):
            rings.attach(path="/other")
    else:
        assert rings.attach(path="/other").registry.serial
    assert ring.workforce.hire(0, 2, waiting=True, strays=0)
    assert quick(steps)


def test_a_dead_process_with_many_records(steps: Steps, rings: Rings) -> None:
    """They are settled one by one, in a hold each."""
    ring = rings.attach(replace(MANY, max_results=1000))
    for _ in range(400):
        put(ring)
    peer = rings.peer(replace(MANY, max_results=1000), Role.SITE)
    for _ in range(400):
        peer.do(peers.claim)
    peer.kill()
    ring.upkeep.settle_dead()
    assert ring.counts().running == 0
    assert quick(steps)
    assert ring.upkeep.check() == []


def test_the_hot_path_takes_few_steps(steps: Steps, rings: Rings) -> None:
    """What the others are measured by."""
    ring = rings.attach(MANY)
    result_id = put(ring)
    run(ring)
    ring.get(result_id)
    assert max(steps.most.values()) < 400
