"""Tallies: what is counted of each task, in which tally, and what the audit makes of them."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import BOUNDS_S, Loss, Ring, Role, Tally, loss_word
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format import tally
from django_tasks_local.ties import FollowUp, Ties
from tests import rings as peers
from tests.rings import FAR_NS, META, Rings, change_limits, run, tally_of


@pytest.fixture
def ring(rings: Rings) -> Iterator[Ring]:
    """A ring, whose audit finds nothing at the end."""
    made = rings.attach()
    yield made
    assert made.upkeep.check() == []


def put(ring: Ring, **kwargs: Any) -> str:
    """A task that is counted."""
    kwargs = {"priority": 0, "due_ns": 0, "tally": tally_of(ring), **kwargs}
    return ring.enqueue(META, ring.encode(((), {})), **kwargs)[0]


def put_and_run(ring: Ring) -> None:
    """One more, from its enqueue to its end."""
    put(ring)
    run(ring)


def counted(ring: Ring) -> Tally:
    """The tally of the tests' task, the only one that has a name."""
    others, own = ring.counters.read()
    assert (others.task, others.enqueued) == ("", 0)
    return own


def ended(ring: Ring) -> dict[str, int]:
    """How many attempts have ended, by outcome; those of which there are none are left out."""
    return {name: sum(ran) for name, ran in counted(ring).ran.items() if any(ran)}


def test_each_end_is_counted_as_what_it_is(ring: Ring) -> None:
    """Six outcomes of attempts, and tasks that never start."""
    for cancelled, timed_out in ((False, False), (False, True), (True, False)):
        put(ring)
        claim = ring.claim()
        assert claim is not None
        if cancelled:
            ring.cancel(claim.result_id, running=True)
        ring.finish(
            claim, successful=False, outcome=ring.encode("x"), cancelled=cancelled,
            timed_out=timed_out,
        )  # fmt: skip
    put(ring)
    run(ring)
    put(ring)
    peers.retry(ring)
    run(ring)
    assert ring.cancel(put(ring), running=False)[0]
    put(ring, due_ns=time.time_ns() + FAR_NS)
    own = counted(ring)
    assert ended(ring) == {
        "successful": 2, "failed": 1, "retried": 1, "timeout": 1, "cancelled": 1,
    }  # fmt: skip
    assert (own.enqueued, own.taken_out, sum(own.waited)) == (7, 1, 6)


@pytest.mark.parametrize(
    ("loss", "outcome"),
    [
        (loss_word(Loss.SIGNAL, 9), "lost"),
        (loss_word(Loss.TIMED_OUT), "timeout"),
        (loss_word(Loss.CANCELLED, 2), "cancelled"),
    ],
)
def test_what_a_dead_worker_leaves(rings: Rings, ring: Ring, loss: int, outcome: str) -> None:
    """It counts as that by which it ended."""
    put(ring)
    peer = rings.peer(role=Role.WORKER)
    peer.do(peers.claim)
    peer.kill()
    ring.upkeep.settle(peer.index, loss)
    assert ended(ring) == {outcome: 1}


def test_times_fall_into_buckets(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait begins when a task is due, or is to be tried again; a clock set back counts as 0."""
    now_ns = 1_700_000_000 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    put(ring, due_ns=now_ns + 100 * 10**9)
    now_ns += 102 * 10**9  # 2 s after it was due
    claim = ring.claim()
    assert claim is not None
    now_ns += 20 * 10**9
    ring.retry(claim, error=peers.ERROR, due_ns=0)
    now_ns += 1_000_000
    claim = ring.claim()
    assert claim is not None
    now_ns -= 10**9
    ring.finish(claim, successful=True, outcome=ring.encode(None))
    own = counted(ring)

    def bucket(seconds: float) -> list[int]:
        return [int(bound == seconds) for bound in (*BOUNDS_S, None)]

    assert own.waited == [a + b for a, b in zip(bucket(5), bucket(0.001), strict=True)]
    assert own.waited_ns == 2 * 10**9 + 1_000_000
    assert (own.ran["retried"], own.ran["successful"]) == (bucket(60), bucket(0.001))
    assert own.ran_ns == 20 * 10**9


def test_tasks_that_are_enqueued_together(ring: Ring) -> None:
    """They are counted one by one, however they become READY."""
    data = [ring.encode_arguments(((n,), {})) for n in range(5)]
    ring.bulk.put(META, data, priority=0, due_ns=0, tally=tally_of(ring))
    keys = [bytes(15) + bytes([n]) for n in range(5)]
    ring.bulk.put(META, data, priority=0, due_ns=0, keys=keys, tally=tally_of(ring))
    assert counted(ring).enqueued == 10


def test_what_follows_a_task(ring: Ring) -> None:
    """It counts in its own tally, by the end of the task that it follows."""
    then = ring.counters.remember(b"app:then", "app.then", "later")
    ties = Ties("", "", 0, 0, (FollowUp(b"app:then", None, -7, 0, tally=then),))
    put(ring, ties=ties)
    run(ring)
    _, follower, first = ring.counters.read()
    assert (follower.task, follower.queue, follower.enqueued) == ("app.then", "later", 1)
    assert (first.enqueued, sum(first.ran["successful"])) == (1, 1)
    claim = ring.claim()
    assert claim is not None
    assert (claim.meta, claim.head.origin & 0xFF) == (b"app:then", 93)
    ring.finish(claim, successful=False, outcome=ring.encode(None))
    _, follower, first = ring.counters.read()
    assert (sum(follower.ran["failed"]), first.enqueued) == (1, 1)


def test_what_is_not_counted(ring: Ring) -> None:
    """Tasks without a tally are counted nowhere, beside others that have one."""
    assert ring.counters.read() == [Tally("", "", 0, 0, [0] * 14, 0, none_ran(), 0)]
    put(ring)
    peers.put(ring)
    for _ in range(2):
        run(ring)
    own = counted(ring)
    assert (own.task, own.queue) == ("tests.tasks.noop", "default")
    assert (own.enqueued, sum(own.waited), ended(ring)) == (1, 1, {"successful": 1})


def none_ran() -> dict[str, list[int]]:
    return {name: [0] * tally.BUCKETS for name in tally.OUTCOMES}


def test_as_many_tallies_as_there_are(rings: Rings, ring: Ring) -> None:
    """The tasks beyond, and those with long names, share the first; others see the same."""
    remember = ring.counters.remember
    long = remember(b"long", "x" * 190, "default")
    given = {name: remember(name.encode(), name, "q") for name in map(str, range(at.TALLIES))}
    assert len(set(given.values())) == at.TALLIES - 1
    assert given[str(at.TALLIES - 1)] == long == tally.OTHERS << at.TALLY_SHIFT
    put(ring, tally=long)
    run(ring)
    first, *named = ring.counters.read()
    assert (first.enqueued, sum(first.ran["successful"])) == (1, 1)
    assert [each.task for each in named] == [*given][: len(named)]
    other = rings.attach(role=Role.VISITOR)
    assert other.counters.remember(b"", "7", "q") == given["7"]
    assert other.counters.read() == ring.counters.read()


def test_no_result_is_kept(ring: Ring) -> None:
    """A record may be evicted by its own end: it was counted before."""
    change_limits(ring, max_results=0)
    put(ring)
    run(ring)
    assert ring.counts().kept == 0
    assert ended(ring) == {"successful": 1}


@pytest.mark.parametrize("which", [tally.K_ENQUEUED, tally.K_WAITED, tally.K_RAN, tally.K_RAN_NS])
@pytest.mark.parametrize("value", [0, 5, 7, 2**64 - 1])
def test_damage_is_found_and_repaired(rings: Rings, which: int, value: int) -> None:
    """Counts that do not fit the records are named; after a repair they fit, and none is less."""
    ring = rings.attach()
    for _ in range(3):
        put(ring)
    run(ring)
    assert ring.claim() is not None
    own = counted(ring)
    number = tally.number_in(tally_of(ring))
    ring.words[tally.word_of(number, which)] = value
    if value == 2**64 - 1:
        if which in (tally.K_WAITED, tally.K_RAN):  # however long the next one takes
            for bucket in range(tally.BUCKETS):
                ring.words[tally.word_of(number, which + bucket)] = value
        with pytest.raises(StoreUnavailable):
            put_and_run(ring)
    if which != tally.K_RAN_NS or value > 7:
        assert [problem for problem in ring.upkeep.check() if "tally" in problem]
    ring.upkeep.repair()
    assert ring.upkeep.check() == []
    now = counted(ring)
    assert now.enqueued >= own.enqueued
    assert sum(now.waited) >= sum(own.waited)
    put(ring)
    run(ring)
    assert ring.upkeep.check() == []
