"""When results of a ring expire, and how their memory comes back."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.ring import Limits, Ring
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records import expiry
from tests import rings as peers
from tests.model.world import SECOND_NS, Clock
from tests.rings import FAR_NS, LIMITS, Rings, done, exists, put, run

BOTH = replace(LIMITS, result_ttl_s=10, failure_ttl_s=20.5)


@pytest.fixture
def clock() -> Iterator[Clock]:
    """A clock that the test sets."""
    made = Clock()
    yield made
    made.close()


def failed(ring: Ring) -> str:
    """A task that has failed; its result id."""
    put(ring)
    return run(ring, ("app.Error", "text"), successful=False)


def lost(rings: Rings, ring: Ring) -> str:
    """A task whose worker has died; its result id."""
    result_id = put(ring)
    peer = rings.peer()
    assert peer.do(peers.claim) == result_id
    peer.kill()
    ring.upkeep.settle_dead()
    return result_id


def share(mine: Any, limits: Limits) -> None:
    """A site with these options has come."""
    mine.ring.attachment.set_limits(limits)


def readable(ring: Ring, result_id: str) -> bool:
    """Whether a result can be read."""
    try:
        ring.get(result_id)
    except TaskResultDoesNotExist:
        return False
    return True


def test_an_expired_result_takes_no_metadata(rings: Rings, clock: Clock) -> None:
    """As it cannot be read either; the block that it has goes with it."""
    ring = rings.attach(BOTH)
    free = ring.counts().free_slots
    result_id = done(ring)
    ring.save_metadata(result_id, b"{}")
    clock.now_ns += 10 * SECOND_NS
    with pytest.raises(TaskResultDoesNotExist, match="RESULT_TTL"):
        ring.save_metadata(result_id, b'{"late":1}')
    ring.expiry.sweep()
    assert ring.counts().free_slots == free
    assert ring.upkeep.check() == []


def test_each_end_has_its_lifetime(rings: Rings, clock: Clock) -> None:
    """RESULT_TTL counts for what succeeded, FAILURE_TTL for what failed or was lost, to the ns."""
    ring = rings.attach(BOTH)
    successes, failures = [done(ring)], [failed(ring), lost(rings, ring)]
    ended_ns = clock.now_ns
    clock.now_ns = ended_ns + 10 * SECOND_NS - 1
    assert all(readable(ring, each) for each in successes + failures)
    clock.now_ns += 1
    assert not readable(ring, successes[0])
    with pytest.raises(TaskResultDoesNotExist, match=r"it has expired, 10 s .*\(RESULT_TTL\)"):
        ring.get(successes[0])
    clock.now_ns = ended_ns + 20_500_000_000 - 1
    assert all(readable(ring, each) for each in failures)
    clock.now_ns += 1
    assert not any(readable(ring, each) for each in failures)
    with pytest.raises(TaskResultDoesNotExist, match=r"it has expired, 20.5 s .*\(FAILURE_TTL\)"):
        ring.get(failures[0])


def test_one_lifetime_does_not_stand_for_the_other(rings: Rings, clock: Clock) -> None:
    """FAILURE_TTL None is no limit, whatever RESULT_TTL is, and the other way round."""
    ring = rings.attach(replace(LIMITS, result_ttl_s=1))
    success, failure = done(ring), failed(ring)
    clock.now_ns += FAR_NS
    assert (readable(ring, success), readable(ring, failure)) == (False, True)
    ring.attachment.set_limits(replace(LIMITS, failure_ttl_s=1))
    assert (readable(ring, success), readable(ring, failure)) == (True, False)


def test_what_has_not_ended_never_expires(rings: Rings, clock: Clock) -> None:
    """Waiting, deferred and running tasks stay, through sweeps too."""
    ring = rings.attach(BOTH)
    unfinished = [put(ring) for _ in range(3)] + [put(ring, due_ns=clock.now_ns + 2 * FAR_NS)]
    claim = ring.claim()
    done(ring)
    clock.now_ns += FAR_NS
    ring.expiry.sweep()
    assert claim is not None
    assert all(readable(ring, each) for each in unfinished)
    assert ring.counts().kept == 0


def test_reading_does_not_prolong(rings: Rings, clock: Clock) -> None:
    """A result that is read each second expires all the same."""
    ring = rings.attach(BOTH)
    result_id = done(ring)
    for _ in range(9):
        clock.now_ns += SECOND_NS
        assert readable(ring, result_id)
    clock.now_ns += SECOND_NS
    assert not readable(ring, result_id)


def test_a_lifetime_holds_at_once_for_all(rings: Rings, clock: Clock) -> None:
    """The options of the site that came last hold for processes that came before it."""
    ring = rings.attach(LIMITS)
    result_id = done(ring)
    clock.now_ns += 11 * SECOND_NS
    assert readable(ring, result_id)
    peer = rings.peer(BOTH)
    peer.do(share, BOTH)
    assert not readable(ring, result_id)
    peer.do(share, LIMITS)
    assert readable(ring, result_id)


def test_a_clock_that_is_set_back(rings: Rings, clock: Clock) -> None:
    """Results last longer then; nothing fails, and nothing is lost."""
    ring = rings.attach(BOTH)
    result_id = done(ring)
    clock.now_ns -= 100 * SECOND_NS
    earlier = done(ring)
    ring.expiry.sweep()
    assert readable(ring, result_id)
    clock.now_ns = 5 * SECOND_NS  # just after 1970: before any lifetime
    ring.expiry.sweep()
    assert readable(ring, result_id)
    clock.now_ns = 1_700_000_000 * SECOND_NS
    ring.expiry.sweep()
    assert (readable(ring, result_id), exists(ring, earlier)) == (True, False)


def test_a_sweep_recycles_what_has_expired(rings: Rings, clock: Clock) -> None:
    """Small and large, whatever their place in the order of use; the ring stays sound."""
    ring = rings.attach(BOTH)
    old = [done(ring), done(ring, ((bytes(5000),), {}), "a" * 3000), failed(ring)]
    free = ring.counts().free_slots
    clock.now_ns += 6 * SECOND_NS
    young = [done(ring), done(ring)]
    readable(ring, old[0])  # the most recently used now
    clock.now_ns += 5 * SECOND_NS
    ring.expiry.sweep()
    assert [exists(ring, each) for each in old + young] == [False, False, True, True, True]
    assert ring.upkeep.check() == []
    assert ring.counts().free_slots > free
    assert (ring.counts().expired, ring.counts().evicted) == (2, 0)
    clock.now_ns += FAR_NS
    ring.expiry.sweep()
    assert ring.counts().kept == 0
    assert ring.upkeep.check() == []


def test_a_sweep_goes_round(rings: Rings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look goes over some slots, and the next one goes on behind them."""
    monkeypatch.setattr(expiry, "LOOKED_AT_ONCE", 300)
    ring = rings.attach(replace(BOTH, max_results=1000, max_pending=1000))
    ids = [done(ring) for _ in range(900)]
    clock.now_ns += FAR_NS
    left = [ring.counts().kept]
    while left[-1] and len(left) < 20:
        ring.expiry.sweep()
        left.append(ring.counts().kept)
    assert len(left) > 3
    assert left[-1] == 0
    assert not any(exists(ring, each) for each in ids)


def test_a_sweep_of_nothing_takes_no_lock(
    rings: Rings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it where nothing has expired."""
    ring = rings.attach(BOTH)
    done(ring)
    entered: list[object] = []
    monkeypatch.setattr(ring._mutex, "try_run", lambda *args: entered.append(args))
    ring.expiry.sweep()
    assert entered == []
    clock.now_ns += FAR_NS
    ring.expiry.sweep()
    assert len(entered) == 1


def test_a_record_that_goes_before_its_sweep(rings: Rings, clock: Clock) -> None:
    """A slot that was given to another task between look and eviction is left alone."""
    ring = rings.attach(BOTH)
    old = done(ring)
    clock.now_ns += FAR_NS
    expired = ring.expiry._look(clock.now_ns)
    ring._mutex.run(ring._table.evict_oldest)
    while not exists(ring, old):
        new = put(ring)
        if peers.ring_address(new)[0] == expired[0][0]:
            break
        run(ring)
    assert ring._mutex.run(ring.expiry._evict, expired) is False
    assert ring.upkeep.check() == []


@pytest.mark.parametrize("bit", range(64))
def test_a_flipped_bit_makes_no_lifetime(rings: Rings, bit: int) -> None:
    """Damage to the header lets results last longer, and never drops them."""
    ring = rings.attach(LIMITS)
    result_id = done(ring)
    ring.words[at.H_RESULT_TTL] ^= 1 << bit
    assert readable(ring, result_id)
    ring.expiry.sweep()
    assert exists(ring, result_id)


def test_the_text_for_what_is_gone(rings: Rings, clock: Clock) -> None:
    """Once a result is recycled nobody knows why: the text has all that may be true."""
    ring = rings.attach(BOTH)
    result_id = done(ring)
    clock.now_ns += FAR_NS
    ring.expiry.sweep()
    with pytest.raises(TaskResultDoesNotExist) as caught:
        ring.get(result_id)
    for word in ("never made here", "MAX_RESULTS", "RESULT_TTL", "FAILURE_TTL"):
        assert word in str(caught.value)


def test_the_longest_lifetime_fits_the_header(rings: Rings, clock: Clock) -> None:
    """A hundred years, and a millisecond."""
    limits: Limits = replace(LIMITS, result_ttl_s=3_155_760_000, failure_ttl_s=0.001)
    ring = rings.attach(limits)
    success, failure = done(ring), failed(ring)
    clock.now_ns += 3_155_760_000 * SECOND_NS - 1
    assert (readable(ring, success), readable(ring, failure)) == (True, False)
    clock.now_ns += 1
    assert not readable(ring, success)
