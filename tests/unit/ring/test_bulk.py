"""Tasks that are enqueued together in a ring: all of them or none, and nobody waits for long."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from django.tasks import TaskResultStatus

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull
from django_tasks_local.ring import Limits, Ring, Role, format_id
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records import slots
from django_tasks_local.store import Arguments
from tests import rings as peers
from tests.model.faults import Fault, attach_with_faults
from tests.rings import FAR_NS, LIMITS, META, Rings, done, exists, put

from .quick import Steps, count_steps
from .test_quick import MANY, fragmented, quick

FEW = 4


def small(number: int) -> Arguments:
    """Arguments that fit a head slot."""
    return (number,), {"text": "x"}


def large(number: int) -> Arguments:
    """Arguments that need some slots."""
    return (number, bytes([number % 251]) * (700 * (number % 3 + 1))), {}


def put_many(
    ring: Ring, arguments: Sequence[Arguments], *, keys: Sequence[bytes] = (), priority: int = 0,
    due_ns: int = 0, metadata: bytes = b"",
) -> list[str]:  # fmt: skip
    """Enqueues them together; their ids."""
    ids, held, _ = ring.bulk.put(
        META, [ring.encode_arguments(each) for each in arguments], priority=priority,
        due_ns=due_ns, metadata=metadata, keys=keys, time_limit=7,
    )  # fmt: skip
    assert not held
    return [format_id(*words) for words in ids]


def claimed(ring: Ring) -> list[tuple[str, Arguments]]:
    """What is claimed and finished until nothing waits."""
    found = []
    while (claim := ring.claim()) is not None:
        found.append((claim.result_id, claim.arguments()))
        ring.finish(claim, successful=True, outcome=ring.encode(None))
    return found


def state_of(ring: Ring) -> tuple[Any, ...]:
    """What a refusal must leave as it was."""
    counts = ring.counts()
    others = ring.registry.field(ring.registry.index, at.E_OTHERS)
    return counts.waiting, counts.deferred, counts.free_slots, counts.kept, others


@pytest.mark.parametrize("make", [small, large, lambda n: (small, large)[n % 2](n)])
@pytest.mark.parametrize("metadata", [b"", b'{"a":1}'], ids=["", "metadata"])
@pytest.mark.parametrize("due_ns", [0, FAR_NS], ids=["due", "deferred"])
def test_each_is_a_task_like_others(ring: Ring, make: Any, metadata: bytes, due_ns: int) -> None:
    """It is read and run like one that was enqueued by itself, in the order of the calls."""
    due_ns += time.time_ns() if due_ns else 0
    calls = [make(number) for number in range(10)]
    ids = put_many(ring, calls, metadata=metadata, due_ns=due_ns)
    assert len(set(ids)) == 10
    for result_id, arguments in zip(ids, calls, strict=True):
        found = ring.get(result_id)
        assert (found.status.name, found.meta, found.metadata) == ("READY", META, metadata)
        assert (found.arguments(), found.progress, found.head.time_limit) == (arguments, None, 7)
    assert ring.upkeep.check() == []
    waiting = state_of(ring)
    ring.upkeep.rebuild()
    assert state_of(ring) == waiting
    if due_ns:
        assert state_of(ring)[:2] == (0, 10)
    else:
        assert claimed(ring) == list(zip(ids, calls, strict=True))
    assert ring.registry.field(ring.registry.index, at.E_OTHERS) == 0


def test_they_take_their_places_among_others(ring: Ring) -> None:
    """By priority, and then behind what waits already."""
    first, urgent = put(ring), put(ring, priority=7)
    some = put_many(ring, [small(n) for n in range(3)])
    last = put(ring)
    more = put_many(ring, [small(n) for n in range(3)], priority=7)
    assert [each for each, _ in claimed(ring)] == [urgent, *more, first, *some, last]


def test_the_queue_is_full(ring: Ring) -> None:
    """All of them count, whatever waits already; the error says how many were to come."""
    put(ring)
    before = state_of(ring)
    with pytest.raises(QueueFull) as caught:
        put_many(ring, [small(n) for n in range(LIMITS.max_pending)])
    error = caught.value
    assert (error.waiting, error.limit, error.wanted) == (1, LIMITS.max_pending, 12)
    assert "has 1 task waiting and 12 more to come, all of them or none" in str(error)
    assert state_of(ring) == before
    assert len(put_many(ring, [small(n) for n in range(LIMITS.max_pending - 1)])) == 11
    assert ring.upkeep.check() == []


def test_one_that_never_fits(ring: Ring) -> None:
    """Nothing of the others is left either, whichever it is."""
    before = state_of(ring)
    too_large: Arguments = (bytes(10**7),), {}
    for calls in ([too_large, small(1)], [small(1), too_large]):
        with pytest.raises(PayloadTooLarge, match=r"tests\.tasks\.noop"):
            put_many(ring, calls)
        with pytest.raises(PayloadTooLarge):
            put_many(ring, [small(1)], metadata=bytes(10**7))
    assert state_of(ring)[0] == 0
    assert state_of(ring)[3:] == before[3:]
    assert ring.upkeep.check() == []


def test_no_memory_for_all(rings: Rings) -> None:
    """Each would fit, but all do not; and what has finished makes room if that is enough."""
    small_ring = Limits(2, 8, 100, 512, at.COLUMNS_AT + 9 * 4096 + 46 * 569)
    ring = rings.attach(small_ring)
    results = [done(ring) for _ in range(8)]
    with pytest.raises(QueueFull, match="SHM_SIZE allows"):
        put_many(ring, [large(2)] * 12)
    assert [ring.get(each).status.name for each in results] == ["SUCCESSFUL"] * 8
    ids = put_many(ring, [small(n) for n in range(38)])
    assert len(ids) == 38
    assert ring.counts().kept < 8
    assert ring.upkeep.check() == []
    assert len(claimed(ring)) == 38


def test_one_that_never_fits_beside_the_record_of_all(rings: Rings) -> None:
    """It is too large, though alone it would fit: a refusal as full would be one for ever."""
    ring = rings.attach(Limits(2, 8, 100, 512, at.COLUMNS_AT + 9 * 4096 + 46 * 569))
    usable = ring.counts().slots - 2 - 2
    arguments: Arguments = (bytes(usable * 512 - 100),), {}
    with pytest.raises(PayloadTooLarge, match=f"room for {(usable - 1) * 512:,}"):
        put_many(ring, [arguments])
    assert exists(ring, put(ring, arguments))
    assert ring.upkeep.check() == []


def test_what_was_given_up_is_room_for_all(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it becomes free in pieces, each in a hold of its own."""
    monkeypatch.setattr(slots, "RUNS_AT_ONCE", 1)
    ring = rings.attach(Limits(2, 1, 100, 512, at.COLUMNS_AT + 9 * 4096 + 46 * 569))
    result_id = done(ring, outcome=bytes(20 * 512))
    ring.save_metadata(result_id, b" " * 9 * 512)
    done(ring)  # evicts that: two chains, of which one is free at once
    assert ring.words[at.H_DISCARDED]
    assert len(put_many(ring, [small(n) for n in range(40)])) == 40
    assert ring.upkeep.check() == []


def test_many_for_a_visitor(rings: Rings) -> None:
    """A process that has only read so far gets a code for it."""
    rings.attach()
    peer = rings.peer(role=Role.VISITOR)
    assert len(peer.do(enqueue_together, FEW)) == FEW


def enqueue_together(mine: Any, count: int) -> list[str]:
    """Enqueues some."""
    return put_many(mine.ring, [small(n) for n in range(count)])


def test_workers_wake_up(rings: Rings) -> None:
    """One for each task, as far as there are workers."""
    ring = rings.attach()
    worker = rings.peer(role=Role.WORKER)
    worker.start(wait_for_work)
    put_many(ring, [small(n) for n in range(FEW)])
    assert worker.result()
    assert worker.do(peers.claim)


def wait_for_work(mine: Any) -> bool:
    """Waits until something waits."""
    while not mine.ring.counts().waiting:
        mine.ring.wait_for_work(5)
    return True


# --- keys ----------------------------------------------------------------------------------------


def keys_of(*numbers: int) -> list[bytes]:
    """Keys, b"" for 0."""
    return [number.to_bytes(16, "little") if number else b"" for number in numbers]


def test_keys_of_a_batch(ring: Ring) -> None:
    """They are held as those of others are; a task without one is among them."""
    ids = put_many(ring, [small(n) for n in range(4)], keys=keys_of(1, 2, 0, 3))
    assert ring.bulk.held(keys_of(3, 9, 1)) == {0: ids[3], 2: ids[0]}
    assert [found.meta for found in map(ring.get, ids)] == [META] * 4
    ring.cancel(ids[0], running=True)
    assert ring.bulk.held(keys_of(1, 2)) == {1: ids[1]}
    ring.upkeep.rebuild()
    assert ring.bulk.held(keys_of(1, 2, 3)) == {1: ids[1], 2: ids[3]}
    assert ring.upkeep.check() == []


def test_a_key_that_another_gets_meanwhile(ring: Ring) -> None:
    """That one stands for ours, which leaves nothing behind."""
    other, _ = ring.enqueue(META, b"N.", priority=0, due_ns=0, key=keys_of(2)[0])
    data = [ring.encode_arguments(large(n)) for n in range(3)]
    ids, held, _ = ring.bulk.put(META, data, priority=0, due_ns=0, keys=keys_of(1, 2, 3))
    assert held == {1: other}
    waiting = [other, format_id(*ids[0]), format_id(*ids[2])]
    assert ring.counts().waiting == 3
    assert ring.upkeep.check() == []
    assert [found.result_id for found in ring.listed(frozenset(TaskResultStatus), None)] == waiting


# --- interruptions, deaths, other threads --------------------------------------------------------


@pytest.mark.parametrize("keyed", [False, True], ids=["", "keyed"])
@pytest.mark.parametrize("make", [small, large])
def test_interrupted_at_each_write(rings: Rings, make: Any, keyed: bool) -> None:
    """All of them are there afterwards, or none, and nothing else is."""
    ring, faults = attach_with_faults(rings.name, LIMITS)
    calls = [make(number) for number in range(FEW)]
    keys = keys_of(1, 2, 3, 4) if keyed else ()
    outcomes = set()
    for write in range(1, 10_000):
        faults.arm(write)
        try:
            put_many(ring, calls, keys=keys)
            break
        except Fault:
            pass
        finally:
            faults.arm(0)
        assert ring.upkeep.check() == []
        outcomes.add(ring.counts().waiting)
        assert [arguments for _, arguments in claimed(ring)] in ([], calls)
        assert ring.bulk._unsettled == []
        assert ring.upkeep.check() == []
    assert outcomes == {0, FEW}
    assert write > 50


def test_several_threads_at_once(rings: Rings) -> None:
    """Batches do not mix, and no task gets lost between them."""
    ring = rings.attach(replace(LIMITS, max_pending=4000))
    found: list[list[str]] = []

    def enqueue() -> None:
        found.append(put_many(ring, [small(n) for n in range(500)]))

    threads = [threading.Thread(target=enqueue) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [each for batch in found for each in batch]
    assert len(set(ids)) == ring.counts().waiting == 2000
    order = [each for each, _ in claimed(ring)]
    for batch in found:
        assert [each for each in order if each in set(batch)] == batch
    assert ring.upkeep.check() == []


def die_after_the_commit(mine: Any, count: int) -> None:
    """Dies when its batch is accepted, and before any of it is READY."""
    batches = mine.ring.bulk._batches
    commit = batches.commit

    def commit_and_die(batch: Any) -> None:
        commit(batch)
        os.kill(os.getpid(), signal.SIGKILL)

    batches.commit = commit_and_die
    enqueue_together(mine, count)


def test_what_was_accepted_survives_its_process(rings: Rings) -> None:
    """Whoever settles the dead makes its tasks READY, in their order."""
    ring = rings.attach()
    peer = rings.peer()
    peer.start(die_after_the_commit, FEW)
    assert peer.wait() == -signal.SIGKILL
    ring.upkeep.settle_dead()
    assert ring.upkeep.check() == []
    assert [arguments for _, arguments in claimed(ring)] == [small(n) for n in range(FEW)]


def test_a_repair_knows_what_was_accepted(rings: Rings) -> None:
    """Also where the entry of the dead process is damaged."""
    ring = rings.attach()
    peer = rings.peer()
    peer.start(die_after_the_commit, FEW)
    assert peer.wait() == -signal.SIGKILL
    ring.registry.put(peer.index, at.E_COMMIT, 0)
    assert ring.upkeep.repair()
    assert ring.upkeep.check() == []
    assert [arguments for _, arguments in claimed(ring)] == [small(n) for n in range(FEW)]


# --- rule 9 --------------------------------------------------------------------------------------


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """What is done inside from here on."""
    return count_steps(monkeypatch)


@pytest.mark.parametrize("due_ns", [0, 2**62], ids=["due", "deferred"])
@pytest.mark.parametrize("keyed", [False, True], ids=["", "keyed"])
def test_ten_thousand_in_steps(steps: Steps, rings: Rings, due_ns: int, keyed: bool) -> None:
    """No hold of the lock takes longer than 1 ms."""
    ring = rings.attach(MANY)
    keys = [number.to_bytes(16, "little") for number in range(10_000)] if keyed else []
    ids = put_many(ring, [small(1)] * 10_000, due_ns=due_ns, keys=keys)
    assert len(ids) == 10_000
    assert quick(steps)
    assert len(ring.bulk.held(keys)) == len(keys)
    assert quick(steps)


def test_ten_thousand_that_are_given_up(steps: Steps, rings: Rings) -> None:
    """Nor if they are interrupted, when all are written."""
    ring = rings.attach(MANY)
    batches = ring.bulk._batches

    def interrupt(batch: Any) -> bool:
        raise KeyboardInterrupt

    batches.commit = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        put_many(ring, [small(1)] * 10_000)
    assert quick(steps)
    assert state_of(ring)[0] == ring.words[at.H_UNFINISHED] == 0


def test_a_batch_in_a_fragmented_ring(steps: Steps, rings: Rings) -> None:
    """Nor where no two free slots are neighbours."""
    ring = rings.attach(replace(MANY, shm_size=4 * 2**20))
    fragmented(ring)
    steps.most.clear()
    free = ring.counts().free_slots
    assert len(put_many(ring, [small(1)] * (free - 10))) == free - 10
    assert quick(steps)
