"""Enqueue, claim, finish, and looking at what is there."""

import os
from dataclasses import replace
from typing import Any

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import HEAD_BYTES
from django_tasks_local.ring.records.claim import RingClaim
from tests import rings as peers
from tests.rings import LIMITS, META, Rings, done, exists, put, ring_address, run

# One step and no growth: 200 slots.
SMALL = replace(LIMITS, shm_size=at.COLUMNS_AT + 9 * 4096 + 200 * (LIMITS.slot_size + 57))
STEP_BYTES = at.STEP_SLOTS * LIMITS.slot_size


def payload(slots: int) -> Any:
    """Arguments that need a chain of exactly so many slots."""
    return (b"x" * (LIMITS.slot_size * slots - 100),), {}


# --- payloads ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 20, 24, 25, 100, 256, 257, 5000, 300_000])
@pytest.mark.parametrize("slot_size", [LIMITS.slot_size, 1024, 65536])
def test_payloads_of_every_size(rings: Rings, size: int, slot_size: int) -> None:
    """Arguments and return values come back as they were, inline or chained."""
    ring = rings.attach(replace(LIMITS, slot_size=slot_size, shm_size=8 * 2**20))
    arguments = ((os.urandom(size),), {"n": size})
    outcome = os.urandom(size)
    result_id = put(ring, arguments)
    assert ring.get(result_id).arguments() == arguments
    claim = ring.claim()
    assert claim is not None
    assert claim.meta == META
    assert claim.enqueued_at_ns == ring.get(result_id).enqueued_at_ns
    assert claim.arguments() == arguments
    ring.finish(claim, successful=True, outcome=ring.encode(outcome))
    found = ring.get(result_id)
    assert found.outcome() == outcome
    assert found.arguments() == arguments
    assert found.meta == META
    assert ring.upkeep.check() == []


def test_a_fragmented_ring_takes_large_payloads(rings: Rings) -> None:
    """Slots that lie apart are chained in whatever pieces there are."""
    ring = rings.attach(replace(SMALL, max_pending=1000, max_results=1000))
    ids = [put(ring) for _ in range(60)]
    while len(ids) > 30:
        run(ring)
        ids.pop(0)
    large = os.urandom(LIMITS.slot_size * 60)
    result_id = put(ring, ((large,), {}), priority=9)
    assert ring.upkeep.check() == []
    assert ring.get(result_id).arguments() == ((large,), {})
    run(ring, large)
    outcome = ring.get(result_id).outcome
    assert outcome() == large
    assert ring.upkeep.check() == []


def test_what_was_left_by_the_last_record_is_not_seen(ring: Ring) -> None:
    """A recycled head slot starts with every word of its own."""
    ring.words[at.H_CURSOR] = 1
    first = put(ring)
    slot = ring_address(first)[0]
    offset = ring._table.offset(slot)
    run(ring)
    ring._mutex.run(ring._table.evict_oldest)
    ring.segment.bytes[offset : offset + LIMITS.slot_size] = b"\xff" * LIMITS.slot_size
    ring.words[at.H_CURSOR] = slot
    second = put(ring)
    assert ring_address(second)[0] == slot
    found = ring.get(second)
    assert (found.started_at_ns, found.finished_at_ns, found.progress) == (0, 0, None)
    claim = ring.claim()
    assert claim is not None
    ring.finish(claim, successful=True, outcome=ring.encode("new"))
    assert ring.upkeep.check() == []


# --- interruptions of an enqueue or an end -------------------------------------------------


def test_an_interrupted_copy_is_taken_back(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a large enqueue leaves no task and no slot behind."""
    before = ring.counts()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ring._table.slots, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(ring, payload(5))
    assert ring.counts() == before
    assert ring.upkeep.check() == []


def test_an_interruption_before_anything_was_taken_leaves_nothing(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to give back then."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    before = ring.counts()
    monkeypatch.setattr(ring._operations, "begin_chained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(ring, payload(5))
    assert ring.counts() == before


def test_what_comes_too_late_changes_nothing(ring: Ring) -> None:
    """Between a look and the lock a record may be finished or evicted by others."""
    result_id = put(ring)
    claim = ring.claim()
    assert claim is not None
    ring.finish(claim, successful=True, outcome=ring.encode(b"y" * 2000))
    slot = ring_address(result_id)[0]
    newest = done(ring)
    for operation, arguments in (
        (ring._operations.drop_outcome_chain, (claim,)),
        (ring._operations.mark_lost, (claim,)),
        (ring._operations.touch, (slot, claim.word)),
    ):
        ring._mutex.run(operation, *arguments)
    assert ring.get(result_id).status.name == "SUCCESSFUL"
    assert exists(ring, newest)
    assert ring.upkeep.check() == []


def test_a_task_that_others_took_for_dead_is_not_published(
    rings: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever lost his record locks is told so; what he was writing is gone."""
    peer = rings.peer()
    ring = rings.attach()
    with pytest.raises(StoreUnavailable, match="taken for dead"):
        peer.do(lose_locks_while_copying, ring.registry.index)
    assert ring.upkeep.check() == []


def lose_locks_while_copying(mine: Any, other: int) -> None:
    ring = mine.ring
    write = ring._table.slots.write

    def slow(*args: Any) -> None:
        write(*args)
        # What another process would do that finds the lock of this one gone.
        ring.segment.entries.clear()
        ring.upkeep.settle(ring.registry.index)
        ring.registry.index = other

    ring._table.slots.write = slow
    put(ring, payload(3))


def test_a_second_attempt_to_finish_gives_back_the_first_ones_slots(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end that was interrupted while it copied its result is begun anew."""
    result_id = put(ring)
    claim = ring.claim()
    assert claim is not None
    free = ring.counts().free_slots
    write = ring._table.slots.write

    def interrupted(*_: Any) -> None:
        monkeypatch.setattr(ring._table.slots, "write", write)
        raise KeyboardInterrupt

    monkeypatch.setattr(ring._table.slots, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ring.finish(claim, successful=True, outcome=b"y" * 3000)
    assert ring.counts().free_slots < free
    assert ring.upkeep.check() == []
    ring.finish(claim, successful=True, outcome=ring.encode(1))
    assert ring.counts().free_slots == free
    assert ring.get(result_id).status.name == "SUCCESSFUL"
    assert ring.upkeep.check() == []


# --- whose task it is ----------------------------------------------------------------------


def test_a_worker_that_lost_its_descriptor_ends(rings: Rings) -> None:
    """A task closed all descriptors: the process may be taken for dead, so it writes nothing."""
    ring = rings.attach()
    result_id = put(ring)
    peer = rings.peer(role=Role.WORKER)
    peer.do(peers.claim)
    peer.start(close_and_finish, result_id)
    assert peer.wait() == 113
    assert ring.get(result_id).status.name == "FAILED"
    assert ring.upkeep.check() == []


def close_and_finish(mine: Any, result_id: str) -> None:
    os.close(mine.ring.segment.fd)
    mine.claims[result_id].report(1, 2, "nowhere")
    peers.finish(mine, result_id)


def test_a_worker_that_was_taken_for_dead_ends(rings: Rings) -> None:
    """Its task is LOST already when it comes with the result: the result is not stored."""
    ring = rings.attach()
    for function in (settled_and_finish, finish_and_settled):
        result_id = put(ring)
        peer = rings.peer(role=Role.WORKER)
        peer.do(peers.claim)
        peer.start(function, result_id)
        assert peer.wait() == 113
        assert ring.get(result_id).status.name == "FAILED"
    assert ring.upkeep.check() == []


def settled(mine: Any) -> None:
    """What another process would do that finds the locks of this one gone."""
    mine.ring.segment.entries.clear()
    mine.ring.upkeep.settle(mine.ring.registry.index)


def settled_and_finish(mine: Any, result_id: str) -> None:
    settled(mine)
    peers.finish(mine, result_id)


def finish_and_settled(mine: Any, result_id: str) -> None:
    """In the moment between looking and storing."""
    RingClaim.close = lambda _: settled(mine)  # type: ignore[method-assign, assignment]
    peers.finish(mine, result_id)


def test_a_child_that_comes_back_from_a_task_ends(rings: Rings) -> None:
    """The task forked and did not exit: only the parent finishes it."""
    ring = rings.attach()
    result_id = put(ring)
    peer = rings.peer(role=Role.WORKER)
    peer.do(peers.claim)
    assert peer.do(fork_and_finish, result_id) == 113
    assert ring.get(result_id).status.name == "SUCCESSFUL"


def fork_and_finish(mine: Any, result_id: str) -> int:
    child = os.fork()
    if child == 0:
        peers.finish(mine, result_id, "child")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    peers.finish(mine, result_id, "parent")
    return os.waitstatus_to_exitcode(status)


def test_a_task_is_claimed_once(rings: Rings) -> None:
    """Several processes claim at the same time; each task goes to one of them."""
    ring = rings.attach(replace(LIMITS, max_pending=1000, max_results=1000))
    ids = [put(ring) for _ in range(300)]
    workers = [rings.peer(role=Role.WORKER) for _ in range(3)]
    for worker in workers:
        worker.start(work_all)
    ran = [each for worker in workers for each in worker.result()]
    assert sorted(ran) == sorted(ids)
    assert ring.counts().kept == 300
    assert ring.upkeep.check() == []


def work_all(mine: Any) -> list[str]:
    ran = []
    while (result_id := peers.claim(mine)) is not None:
        peers.finish(mine, result_id)
        ran.append(result_id)
    return ran


def test_a_damaged_task_is_not_run(ring: Ring, caplog: pytest.LogCaptureFixture) -> None:
    """It is never unpickled; the next one is claimed, and the ring stays sound but for it."""
    broken, whole = put(ring), put(ring)
    ring.segment.bytes[ring._table.offset(ring_address(broken)[0]) + HEAD_BYTES + 3] ^= 1
    claim = ring.claim()
    assert claim is not None
    assert claim.result_id == whole
    assert "cannot run" in caplog.text
    with pytest.raises(StoreUnavailable):
        ring.get(broken)
