"""What fits into a ring, what is refused, and what makes room."""

import errno
import os
from dataclasses import replace
from typing import Any

import pytest

from django_tasks_local.exceptions import (
    ArgumentsDropped,
    PayloadTooLarge,
    QueueFull,
    StoreUnavailable,
)
from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from tests import rings as peers
from tests.rings import LIMITS, META, Rings, done, exists, put, ring_address, run

# One step and no growth: 200 slots.
SMALL = replace(LIMITS, shm_size=at.COLUMNS_AT + 9 * 4096 + 200 * (LIMITS.slot_size + 57))


def payload(slots: int) -> Any:
    """Arguments that need a chain of exactly so many slots."""
    return (b"x" * (LIMITS.slot_size * slots - 100),), {}


def fill(ring: Ring) -> list[str]:
    """Waiting tasks until nothing more is accepted."""
    ids = []
    for slots in (40, 20, 10, 5, 2, 0):
        while True:
            try:
                ids.append(put(ring, payload(slots) if slots else ((), {})))
            except QueueFull:
                break
    return ids


# --- limits --------------------------------------------------------------------------------


def test_max_pending_is_exact(ring: Ring) -> None:
    """The one too many is refused, with the facts; running and finished ones do not count."""
    for number in range(LIMITS.max_pending):
        put(ring, due_ns=0 if number % 2 else 2**62)
    with pytest.raises(QueueFull, match="MAX_PENDING") as caught:
        put(ring)
    assert (caught.value.waiting, caught.value.limit) == (12, 12)
    assert ring.claim() is not None
    put(ring)
    with pytest.raises(QueueFull):
        put(ring, payload(3))
    assert ring.upkeep.check() == []


def test_limits_of_the_latest_site_hold_for_all(rings: Rings) -> None:
    """A lower MAX_PENDING applies at once, in every process."""
    ring = rings.attach()
    peer = rings.peer()
    rings.attach(replace(LIMITS, max_pending=1)).attachment.become(Role.SITE)
    peer.do(peers.enqueue)
    with pytest.raises(QueueFull):
        put(ring)


def test_a_refusal_evicts_nothing(rings: Rings) -> None:
    """What can't succeed leaves everything as it was."""
    ring = rings.attach(SMALL)
    waiting = put(ring, payload(150))
    results = [done(ring) for _ in range(8)]
    before = ring.counts()
    with pytest.raises(QueueFull, match="SHM_SIZE"):
        put(ring, payload(60))
    with pytest.raises(PayloadTooLarge):
        put(ring, payload(300))
    assert ring.counts() == before
    assert all(exists(ring, each) for each in [waiting, *results])
    assert not ring.words[at.H_DIRTY]


def test_the_largest_arguments_are_what_the_error_says(rings: Rings) -> None:
    """A byte more than the limit is refused for good, the limit itself is accepted."""
    ring = rings.attach(SMALL)
    with pytest.raises(PayloadTooLarge) as caught:
        put(ring, payload(500))
    limit = caught.value.limit
    data = b"x" * (limit - len(META))
    result_id, _ = ring.enqueue(META, data, priority=0, due_ns=0)
    assert ring.get(result_id).status.name == "READY"
    assert ring.upkeep.check() == []
    with pytest.raises(PayloadTooLarge) as caught:
        ring.enqueue(META, data + b"x", priority=0, due_ns=0)
    assert caught.value.size == limit + 1
    assert caught.value.option == "SHM_SIZE"
    assert "tests.tasks.noop" in caught.value.what
    assert isinstance(caught.value, ValueError)


def test_results_make_room_for_tasks(rings: Rings) -> None:
    """The least recently used go first, and only as many as are needed."""
    ring = rings.attach(SMALL)
    results = [done(ring, outcome=payload(19)) for _ in range(8)]
    free = ring.counts().free_slots
    assert free < 50
    ring.get(results[0])
    put(ring, payload(free + 15))
    kept = [each for each in results if exists(ring, each)]
    assert kept == [results[0], *results[2:]]
    assert ring.upkeep.check() == []


def dropped(ring: Ring, result_id: str) -> bool:
    """Whether the arguments of a result are there no more."""
    try:
        ring.get(result_id).arguments()
    except ArgumentsDropped:
        return True
    return False


def test_arguments_of_results_make_room_first(rings: Rings) -> None:
    """Large arguments of tasks that have ended drive out no results, neither small nor large."""
    ring = rings.attach(SMALL)
    small = done(ring, outcome="small")
    results = [done(ring, payload(18), f"result {number}") for number in range(7)]
    before = ring.counts()
    large = put(ring, payload(before.free_slots + 30))
    assert ring.counts().evicted == 0
    assert [each for each in results if dropped(ring, each)] == results[:2]
    for number, each in enumerate(results):
        found = ring.get(each)
        assert (found.meta, found.outcome()) == (META, f"result {number}")
    assert ring.get(small).outcome() == "small"
    assert ring.get(large).arguments() == payload(before.free_slots + 30)
    assert ring.upkeep.check() == []
    ring.upkeep.rebuild()
    assert ring.upkeep.check() == []
    assert [each for each in results if dropped(ring, each)] == results[:2]


def test_arguments_go_once_and_results_after_them(rings: Rings) -> None:
    """When no finished task has arguments left to drop, results go, the oldest first."""
    ring = rings.attach(SMALL)
    results = [done(ring, payload(18), payload(2)) for _ in range(7)]
    put(ring, payload(180))
    kept = [each for each in results if exists(ring, each)]
    assert results[: -len(kept)] + kept == results
    assert 0 < len(kept) < len(results)
    assert all(dropped(ring, each) for each in kept)
    assert ring.upkeep.check() == []


def test_what_was_dropped_is_said(rings: Rings) -> None:
    """The exception has the task, the size and the way out, also for who had found it before."""
    ring = rings.attach(SMALL)
    result_id = done(ring, payload(100))
    found = ring.get(result_id)
    put(ring, payload(130))
    with pytest.raises(ArgumentsDropped, match="SHM_SIZE") as caught:
        found.arguments()
    assert caught.value.path == "tests.tasks.noop"
    assert caught.value.result_id == result_id
    assert caught.value.size == found.head.arguments_bytes
    put(ring, payload(30))  # in the place of them
    with pytest.raises(ArgumentsDropped):
        found.arguments()
    assert ring.upkeep.check() == []


def test_a_result_that_is_read_is_searched_again(rings: Rings) -> None:
    """Reading moves results; none with arguments to drop is missed, and none is cut twice."""
    ring = rings.attach(SMALL)
    results = [done(ring, payload(20), "kept") for _ in range(7)]
    put(ring, payload(ring.counts().free_slots + 30))
    for each in results[:3]:
        ring.get(each)
        assert ring.upkeep.check() == []
    put(ring, payload(70))
    assert ring.counts().evicted == 0
    assert sum(dropped(ring, each) for each in results) >= 5
    assert ring.upkeep.check() == []


def test_damage_where_arguments_are_searched(rings: Rings) -> None:
    """A list that does not come to its end is made anew; the search goes on in it."""
    for damage in (3, 2**40, 0):
        ring = rings.attach(SMALL)
        for _ in range(7):
            done(ring, payload(18))
        ring.words[ring._table.geometry.column("link") + ring.words[at.H_OLDEST]] = damage
        with pytest.raises(StoreUnavailable):
            put(ring, payload(100))
        result_id = put(ring, payload(100))
        assert ring.upkeep.check() == []
        assert run(ring) == result_id


def test_many_records_are_evicted_in_steps(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits while one large payload takes the place of a thousand small results."""
    ring = rings.attach(replace(LIMITS, max_results=5000))
    while ring.counts().free_slots or ring.counts().reserved_slots < ring.counts().slots:
        done(ring)
    kept = ring.counts().kept
    steps = []
    run_inside = ring._mutex.run

    def count_evictions(function: Any, *args: Any) -> Any:
        before = ring.counts().evicted
        result = run_inside(function, *args)
        steps.append(ring.counts().evicted - before)
        return result

    monkeypatch.setattr(ring._mutex, "run", count_evictions)
    put(ring, payload(kept // 2))
    assert 0 < max(steps) <= 100
    assert sum(steps) >= kept // 2
    monkeypatch.undo()
    assert ring.upkeep.check() == []


# --- the reserve ---------------------------------------------------------------------------


def test_a_full_ring_still_has_room_for_small_results(rings: Rings) -> None:
    """Enqueue leaves MAX_WORKERS slots, so that every running task can end."""
    ring = rings.attach(replace(SMALL, max_pending=1000))
    ids = fill(ring)
    assert ring.counts().free_slots == LIMITS.max_workers
    claims = [ring.claim() for _ in range(LIMITS.max_workers)]
    for claim in claims:
        assert claim is not None
        with pytest.raises(PayloadTooLarge, match=r"Return value of task tests\.tasks\.noop"):
            ring.finish(claim, successful=True, outcome=ring.encode(b"y" * 20_000))
    for claim in claims:
        assert claim is not None
        ring.finish(claim, successful=False, outcome=ring.encode(b"e" * 200))
    assert [ring.get(each).status.name for each in ids[:2]] == ["FAILED", "FAILED"]
    assert ring.upkeep.check() == []


def test_the_room_for_a_result_is_what_the_error_says(rings: Rings) -> None:
    """The largest result that fits now is accepted; a byte more is not, and evicts nothing."""
    ring = rings.attach(SMALL)
    kept = done(ring)
    put(ring, payload(100))
    result_id = put(ring, priority=1)
    claim = ring.claim()
    assert claim is not None
    with pytest.raises(PayloadTooLarge) as caught:
        ring.finish(claim, successful=True, outcome=b"y" * 100_000)
    limit = caught.value.limit
    assert caught.value.option == "SHM_SIZE"
    with pytest.raises(PayloadTooLarge):
        ring.finish(claim, successful=True, outcome=b"y" * (limit + 1))
    assert exists(ring, kept)
    ring.finish(claim, successful=True, outcome=ring.encode(b"y" * (limit - 30)))
    outcome = ring.get(result_id).outcome
    assert outcome is not None
    assert outcome() == b"y" * (limit - 30)
    assert ring.upkeep.check() == []


# --- growth --------------------------------------------------------------------------------


def test_memory_is_taken_before_results_are_given_up(rings: Rings) -> None:
    """Up to SHM_SIZE the ring grows; only then it evicts."""
    ring = rings.attach(replace(LIMITS, max_pending=100))
    kept = done(ring)
    put(ring, payload(1100))
    assert ring.counts().reserved_slots == 2048
    assert exists(ring, kept)
    put(ring, payload(1200))
    assert ring.counts().reserved_slots == ring.counts().slots
    assert exists(ring, kept)
    assert ring.upkeep.check() == []


def test_small_tasks_grow_the_ring_too(rings: Rings) -> None:
    """One step at a time, when the one before is used up."""
    ring = rings.attach(replace(LIMITS, max_pending=10_000))
    for _ in range(1100):
        put(ring)
    assert ring.counts().reserved_slots == 2048
    assert ring.upkeep.check() == []


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full /dev/shm from here on."""

    def fallocate(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fallocate)


def test_a_full_file_system_is_earlier_eviction(
    rings: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as results can make room, nobody notices that /dev/shm is full."""
    ring = rings.attach()
    for _ in range(8):
        done(ring, outcome=payload(100))
    no_room(monkeypatch)
    put(ring, payload(500))
    assert ring.counts().reserved_slots == 1024
    assert ring.counts().evicted > 0
    assert ring.upkeep.check() == []


def test_a_full_file_system_is_named(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the error says what to change, and nothing was evicted in vain."""
    ring = rings.attach()
    put(ring, payload(700))
    kept = done(ring)
    no_room(monkeypatch)
    with pytest.raises(StoreUnavailable, match="--shm-size"):
        put(ring, payload(700))
    assert exists(ring, kept)
    claim = ring.claim()
    assert claim is not None
    with pytest.raises(PayloadTooLarge, match="or give /dev/shm more room") as caught:
        ring.finish(claim, successful=True, outcome=b"y" * LIMITS.slot_size * 700)
    assert caught.value.option == "SHM_SIZE"
    assert caught.value.fix.startswith("give /dev/shm more room (docker run --shm-size=")
    assert caught.value.limit < LIMITS.slot_size * 700
    assert put(ring)
    assert ring.upkeep.check() == []


def test_only_a_finished_task_has_lost_its_arguments(ring: Ring) -> None:
    """Damage may give a task that runs a `due` word which says that of a finished one."""
    result_id = put(ring, payload(3))
    claim = ring.claim()
    assert claim is not None
    table, slot = ring._table, ring_address(result_id)[0]
    ring.words[table.due + slot] = claim.head.generation
    assert claim.arguments() == payload(3)
    ring.words[table.due + slot] = 0
    ring.finish(claim, successful=True, outcome=ring.encode(None))
