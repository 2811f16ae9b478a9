"""Unique tasks in a ring: the hash table of their keys, and who holds a key for how long."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull
from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import META_AT
from django_tasks_local.store import Arguments, KeyTaken
from tests import rings as peers
from tests.rings import FAR_NS, LIMITS, META, Peer, Rings, ring_address
from tests.support import wait_for

KEY = b"k" * 16
SMALL: Arguments = (1,), {}
LARGE: Arguments = (bytes(3000),), {}


def put(
    ring: Ring, key: bytes = KEY, arguments: Any = SMALL, metadata: bytes = b"", due_ns: int = 0
) -> str:
    """Enqueues a unique task; its id."""
    data = ring.encode(arguments)
    return ring.enqueue(META, data, priority=0, due_ns=due_ns, metadata=metadata, key=key)[0]


def holder_of(ring: Ring, key: bytes = KEY) -> str:
    """The id of the task that has a key, "" if that is free."""
    try:
        put(ring, key)
    except KeyTaken as taken:
        return taken.result_id
    return ""


def numbered(number: int) -> bytes:
    """A key of which the bits that choose a bucket are those of a number."""
    return number.to_bytes(16, "little")


@pytest.mark.parametrize("arguments", [SMALL, LARGE], ids=["inline", "chained"])
@pytest.mark.parametrize("metadata", [b"", b"{}"], ids=["", "metadata"])
@pytest.mark.parametrize("due_ns", [0, FAR_NS], ids=["due", "deferred"])
def test_the_second_is_refused(ring: Ring, arguments: Any, metadata: bytes, due_ns: int) -> None:
    """It stores nothing, and names the first."""
    due_ns += time.time_ns() if due_ns else 0
    result_id = put(ring, KEY, arguments, metadata, due_ns)
    free = ring.counts().free_slots
    for other in (SMALL, LARGE):
        with pytest.raises(KeyTaken) as caught:
            put(ring, KEY, other)
        assert caught.value.result_id == result_id
    assert ring.counts().free_slots == free
    put(ring, b"l" * 16)
    found = ring.get(result_id)
    assert (found.meta, found.metadata, found.arguments()) == (META, metadata, arguments)
    assert ring.upkeep.check() == []


def finish(ring: Ring, successful: bool = True) -> None:
    """Runs the next task."""
    claim = ring.claim()
    assert claim is not None
    ring.finish(claim, successful=successful, outcome=ring.encode(None))


def fail(ring: Ring) -> None:
    """Runs the next task, which fails."""
    finish(ring, successful=False)


def cancel(ring: Ring) -> None:
    """Takes the task out that has the key."""
    ring.cancel(holder_of(ring), running=True)


@pytest.mark.parametrize("arguments", [SMALL, LARGE], ids=["inline", "chained"])
@pytest.mark.parametrize("end", [finish, fail, cancel])
def test_the_end_frees_the_key(ring: Ring, arguments: Any, end: Callable[[Ring], Any]) -> None:
    """It is held while the task waits and runs, and no longer."""
    first = put(ring, KEY, arguments)
    assert holder_of(ring) == first
    end(ring)
    second = put(ring)
    assert second != first
    assert ring.claim() is not None
    assert holder_of(ring) == second
    assert ring.upkeep.check() == []


def test_tasks_without_a_key_are_not_unique(ring: Ring) -> None:
    """They stay what they were."""
    put(ring)
    data = ring.encode(SMALL)
    ids = {ring.enqueue(META, data, priority=0, due_ns=0)[0] for _ in range(3)}
    assert len(ids) == 3
    assert ring.words[at.H_KEYED] == 1


def test_refusals_hold_no_key(ring: Ring) -> None:
    """Neither of a full queue nor of arguments that are too large."""
    with pytest.raises(PayloadTooLarge):
        put(ring, KEY, ((bytes(10**7),), {}))
    for number in range(LIMITS.max_pending):
        put(ring, numbered(number))
    for arguments in (SMALL, LARGE):
        with pytest.raises(QueueFull, match="12 tasks waiting"):
            put(ring, KEY, arguments)
    assert holder_of(ring, numbered(3))
    finish(ring)
    assert holder_of(ring) == ""
    assert ring.upkeep.check() == []


# --- the hash table ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_table_of_keys(rings: Rings, data: st.DataObject) -> None:
    """Whatever comes and goes, each key leads to its record; those with equal bits, too."""
    ring = rings.attach()
    table = ring._table
    held: dict[bytes, str] = {}

    def taken(key: bytes) -> None:
        slot = table.keys.find(key)
        assert (slot != 0) == (key in held)
        assert not slot or slot == ring_address(held[key])[0]

    keys = st.integers(0, 40).map(numbered) | st.integers(0, 3).map(lambda n: numbered(n << 64))
    for key in data.draw(st.lists(keys, max_size=80)):
        if key in held:
            assert ring.cancel(held.pop(key), running=True)[0]
        elif len(held) < LIMITS.max_pending:
            held[key] = put(ring, key)
        assert ring.words[at.H_KEYED] == len(held)
        for each in (*held, key):
            taken(each)
    assert ring.upkeep.check() == []
    ring.upkeep.rebuild()
    for key in held:
        taken(key)
    assert ring.upkeep.check() == []
    for result_id in held.values():
        ring.cancel(result_id, running=True)


def test_it_is_as_quick_with_many(rings: Rings) -> None:
    """No bucket is long, however many keys there are, also when most of them have gone."""
    ring = rings.attach(replace(LIMITS, max_pending=2000))
    ids = [put(ring, os.urandom(16)) for _ in range(2000)]

    def longest() -> int:
        keys = ring._table.keys
        return max(len(list(keys.bucket(n))) for n in range(ring.words[at.H_KEYED]))

    assert longest() < 12
    for result_id in ids[: -len(ids) // 8]:
        ring.cancel(result_id, running=True)
    assert longest() < 12
    assert ring.upkeep.check() == []


@pytest.mark.parametrize("byte", [0, 4])
@pytest.mark.parametrize("bit", [0, 3, 7])
def test_a_damaged_table_is_found_and_rebuilt(ring: Ring, byte: int, bit: int) -> None:
    """The audit names what is wrong; the repair makes it right, and no key is lost."""
    ids = [put(ring, numbered(number)) for number in range(5)]
    place = ring._table.geometry.column("keys") * 8
    for word in range(5):
        before = ring._bytes[place + 8 * word + byte]
        ring._bytes[place + 8 * word + byte] = before ^ 1 << bit
        if ring.upkeep.check():
            ring.upkeep.repair()
        assert ring.upkeep.check() == []
        assert [holder_of(ring, numbered(number)) for number in range(5)] == ids


def test_a_record_with_a_damaged_key_can_end(ring: Ring) -> None:
    """It is found in whatever bucket it is, given up when it is claimed, and holds no key then."""
    ids = [put(ring, os.urandom(16)) for _ in range(6)]
    slot = ring_address(ids[0])[0]
    ring._bytes[ring._table.offset(slot) + META_AT] ^= 0xFF
    assert any(f"slot {slot}" in problem for problem in ring.upkeep.check())
    claim = ring.claim()  # the first is damaged
    assert claim is not None
    assert claim.result_id == ids[1]
    assert ring.words[at.H_KEYED] == 5


# --- several processes ---------------------------------------------------------------------------


def put_in_threads(mine: Any, count: int) -> list[str]:
    """Enqueues the same task in so many threads at once; the ids that they get."""
    barrier, found = threading.Barrier(count), []

    def enqueue() -> None:
        barrier.wait()
        try:
            found.append(put(mine.ring))
        except KeyTaken as taken:
            found.append(taken.result_id)

    threads = [threading.Thread(target=enqueue) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_sixteen_threads_in_four_processes(rings: Rings) -> None:
    """One of them enqueues, and the others are told its id."""
    ring = rings.attach()
    others = [rings.peer() for _ in range(4)]
    for _ in range(20):
        for other in others:
            other.start(put_in_threads, 4)
        ids = Counter(result_id for other in others for result_id in other.result())
        assert list(ids.values()) == [16]
        assert ring.counts().waiting == 1
        finish(ring)
    assert ring.upkeep.check() == []


@pytest.mark.parametrize("with_pool", [False, True], ids=["no pool", "its pool lives"])
def test_a_killed_worker_holds_no_key(rings: Rings, with_pool: bool) -> None:
    """The key is free at once; a pool that lives has its turn first, and need not take it."""
    ring = rings.attach()
    pool = rings.peer(role=Role.POOL).index if with_pool else -1
    worker = rings.peer(role=Role.WORKER, pool=pool)
    first = put(ring)
    assert worker.do(peers.claim) == first
    assert holder_of(ring) == first
    worker.kill()
    second = put(ring)
    assert ring.get(first).loss is not None
    assert holder_of(ring) == second
    assert ring.upkeep.check() == []


def die_before_the_end(mine: Any) -> None:
    """Takes its own task's key, and dies at once."""
    put(mine.ring)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_site_leaves_its_task(rings: Rings) -> None:
    """Which waits, and holds its key."""
    ring = rings.attach()
    site: Peer = rings.peer()
    site.start(die_before_the_end)
    wait_for(lambda: ring.counts().waiting == 1)
    site.kill()
    assert holder_of(ring) != ""
    assert ring.counts().waiting == 1
