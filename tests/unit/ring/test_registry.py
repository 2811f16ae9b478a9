"""Who is attached, who lives, and what is done with the leavings of the dead."""

import os
from typing import Any

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Entry, Loss, PoolState, Ring, Role, loss_word
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm.lock import LIVENESS, ByteLock
from django_tasks_local.store import Arguments
from tests import rings as peers
from tests.rings import Rings, put
from tests.support import wait_for

LARGE: Arguments = ((b"x" * 2000,), {})


def entry_of(ring: Ring, index: int) -> Entry:
    return next(each for each in ring.registry.attachments() if each.index == index)


def sees(mine: Any, index: int) -> bool:
    alive: bool = mine.ring.registry.alive(index)
    return alive


def begin_large(mine: Any) -> None:
    """Stops in the middle of a large enqueue, outside the lock."""

    def stuck(*_: Any) -> None:
        os.kill(os.getpid(), 9)

    mine.ring._table.slots.write = stuck
    put(mine.ring, LARGE)


# --- entries -------------------------------------------------------------------------------


def test_an_entry_says_who_is_attached(rings: Rings) -> None:
    """Role, pid, serial and settings path of every process, for the commands and the pool."""
    ring = rings.attach(path="/srv/site/settings.py")
    peer = rings.peer(role=Role.WORKER, pool=ring.registry.index)
    ours, theirs = entry_of(ring, ring.registry.index), entry_of(ring, peer.index)
    assert (ours.role, ours.pid) == (Role.SITE, os.getpid())
    assert (theirs.role, theirs.pid) == (Role.WORKER, peer.pid)
    assert ring.registry.path_of(ours.index) == "/srv/site/settings.py"
    assert ring.registry.path_of(theirs.index) == ""
    assert (ours.pool, theirs.pool) == (-1, ours.index)
    assert ours.serial < theirs.serial
    assert 0 < ours.since_ns < theirs.since_ns
    assert ours.alive
    assert theirs.alive


def test_a_long_path_keeps_its_end(rings: Rings) -> None:
    """The end of a path tells two sites apart, its beginning seldom does."""
    path = "/ü" * 300 + "/settings.py"
    ring = rings.attach(path=path)
    kept = ring.registry.path_of(ring.registry.index)
    assert kept.endswith("/ü/ü/settings.py")
    assert len(kept.encode()) <= at.PATH_BYTES + 2  # a cut character becomes a sign of three bytes


def test_a_new_role_has_a_new_serial(rings: Rings) -> None:
    """A pool clears tasks up to a serial: who becomes a site later is newer than the pool."""
    ring = rings.attach(role=Role.VISITOR)
    before = ring.registry.serial
    assert ring.leadership.newest_site() == 0
    ring.attachment.become(Role.SITE)
    assert ring.registry.serial > before
    assert ring.leadership.newest_site() == ring.registry.serial
    assert entry_of(ring, ring.registry.index).role is Role.SITE


def test_a_pools_words_are_read_by_others(rings: Rings) -> None:
    """State and clearance of a pool steer its workers and successors."""
    peer = rings.peer()
    ring = rings.attach(role=Role.POOL)
    ring.registry.set_state(PoolState.SERVING)
    ring.upkeep.set_runnable_up_to(41)
    assert peer.do(pool_words, ring.registry.index) == (PoolState.SERVING, (0, 41, 0))


def pool_words(mine: Any, index: int) -> tuple[int, at.Share]:
    registry = mine.ring.registry
    return registry.state(index), registry.share(index)


def test_an_unknown_role_reads_as_visitor(ring: Ring) -> None:
    """Damage must not break the commands that show it."""
    entry = at.REGISTRY_AT + ring.registry.index * at.ENTRY_WORDS
    ring.words[entry] |= 99 << at.ROLE_SHIFT
    assert entry_of(ring, ring.registry.index).role is Role.VISITOR


# --- life and death ------------------------------------------------------------------------


def test_life_and_death_are_seen_at_once(rings: Rings) -> None:
    """The kernel drops a dead process's lock, whatever killed it; no pid is asked."""
    ring = rings.attach()
    first, second = rings.peer(), rings.peer()
    assert ring.registry.alive(first.index)
    assert second.do(sees, first.index)
    assert second.do(sees, ring.registry.index)
    first.kill()
    assert not ring.registry.alive(first.index)
    assert not second.do(sees, first.index)
    assert second.do(sees, second.index)


def test_a_frozen_process_lives(rings: Rings) -> None:
    """A stopped process keeps its locks: it is not settled, however long it takes."""
    ring = rings.attach()
    peer = rings.peer()
    peer.stop()
    ring.upkeep.settle_dead()
    assert entry_of(ring, peer.index).alive
    peer.resume()
    assert peer.do(peers.enqueue)


def test_a_detached_process_leaves_nothing(rings: Rings) -> None:
    """Its entry is free at once, and detaching twice is harmless."""
    ring = rings.attach()
    peer = rings.peer()
    result_id = peer.do(peers.enqueue)
    peer.do(peers.detach)
    peer.do(peers.detach)
    assert [each.index for each in ring.registry.attachments()] == [ring.registry.index]
    assert ring.get(result_id).status.name == "READY"


def test_a_process_with_work_in_hand_does_not_free_its_entry(rings: Rings) -> None:
    """One that detaches while its task runs is settled later: the task is not forgotten."""
    ring = rings.attach()
    peer = rings.peer()
    result_id = put(ring)
    assert peer.do(peers.claim) == result_id
    peer.do(peers.detach)
    assert entry_of(ring, peer.index).alive
    peer.kill()
    assert ring.get(result_id).status.name == "FAILED"


def test_a_process_that_copies_does_not_free_its_entry(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread detaches while one copies its arguments: they would be freed under it."""
    slots = ring._table.slots
    write = slots.write

    def slow(*args: Any) -> None:
        ring.attachment.detach()
        write(*args)

    monkeypatch.setattr(slots, "write", slow)
    result_id = put(ring, LARGE)
    assert ring.get(result_id).arguments() == LARGE
    assert ring.upkeep.check() == []
    ring.attachment.detach()
    assert not list(ring.registry.attachments())


def test_an_entry_is_reused_only_after_it_was_reaped(rings: Rings) -> None:
    """Else the next owner would inherit the dead one's tasks."""
    ring = rings.attach()
    result_id = put(ring)
    peer = rings.peer()
    peer.do(peers.claim)
    peer.kill()
    other = rings.peer()
    assert other.index != peer.index
    ring.upkeep.settle_dead()
    assert ring.get(result_id).status.name == "FAILED"
    assert rings.peer().index == peer.index


# --- settling ------------------------------------------------------------------------------


def test_a_dead_ones_task_is_lost(rings: Rings) -> None:
    """It is FAILED with a WorkerLost that says what is known, and it is never run again."""
    ring = rings.attach()
    result_id = put(ring)
    peer = rings.peer()
    peer.do(peers.claim)
    peer.kill()
    slot = ring.upkeep.settle(peer.index, loss_word(Loss.SIGNAL, 9))
    assert slot == peers.ring_address(result_id)[0]
    found = ring.get(result_id)
    assert found.status.name == "FAILED"
    path, text = found.outcome()
    assert path == "django_tasks_local.exceptions.WorkerLost"
    assert f"process {peer.pid} was killed by SIGKILL" in text
    assert ring.claim() is None
    assert ring.counts().lost == 1
    assert ring.upkeep.check() == []


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (loss_word(Loss.EXIT, 3), "ended with exit code 3"),
        (loss_word(Loss.EXIT, 113), "lost the ring"),
        (loss_word(Loss.SIGNAL, 250), "killed by signal 250"),
        (loss_word(Loss.DRAINED), "DRAIN_TIMEOUT"),
        (loss_word(Loss.POOL_DIED), "together with its pool"),
        (loss_word(Loss.DAMAGED), "found its record damaged"),
        (loss_word(Loss.UNKNOWN), " died"),
        (99 << 32, " died"),
    ],
)
def test_the_loss_is_told_in_words(rings: Rings, word: int, text: str) -> None:
    """Every cause that the pool can know has its sentence; an unknown one does no harm."""
    ring = rings.attach()
    result_id = put(ring)
    peer = rings.peer()
    peer.do(peers.claim)
    peer.kill()
    ring.upkeep.settle(peer.index, word)
    outcome = ring.get(result_id).outcome
    assert text in outcome()[1]


def test_the_living_are_not_reaped(rings: Rings) -> None:
    """Neither others nor we ourselves, nor an entry that nobody has."""
    ring = rings.attach()
    result_id = put(ring)
    peer = rings.peer()
    peer.do(peers.claim)
    assert ring.upkeep.settle(peer.index) == 0
    assert ring.upkeep.settle(ring.registry.index) == 0
    assert ring.upkeep.settle(at.ENTRIES - 1) == 0
    assert ring.get(result_id).status.name == "RUNNING"


def test_reading_finds_the_death(rings: Rings) -> None:
    """A reader is told that the worker died, also where no pool looks after the ring."""
    ring = rings.attach()
    result_id = put(ring)
    peer = rings.peer()
    peer.do(peers.claim)
    peer.kill()
    assert ring.get(result_id).status.name == "FAILED"
    assert ring.upkeep.check() == []


def test_a_living_pool_buries_its_own_workers(rings: Rings) -> None:
    """It knows the signal or exit code; others leave the worker to it until it dies itself."""
    ring = rings.attach()
    pool = rings.peer(role=Role.POOL)
    worker = rings.peer(role=Role.WORKER, pool=pool.index)
    result_id = put(ring)
    worker.do(peers.claim)
    worker.kill()
    ring.upkeep.settle_dead()
    assert ring.get(result_id).status.name == "RUNNING"
    pool.kill()
    found = ring.get(result_id)
    assert "together with its pool" in found.outcome()[1]


def test_half_an_enqueue_is_freed(rings: Rings) -> None:
    """A process that died while it copied its arguments had not been told of any task."""
    ring = rings.attach()
    free = ring.counts().free_slots
    peer = rings.peer()
    peer.start(begin_large)
    assert peer.wait() == -9
    assert ring.counts().free_slots < free
    assert ring.upkeep.check() == []
    ring.upkeep.settle_dead()
    assert ring.counts().free_slots == free
    assert ring.upkeep.check() == []
    assert ring.claim() is None


def test_a_process_that_ran_several_tasks_loses_them_all(rings: Rings) -> None:
    """A worker runs one at a time, but an interruption may leave more: none is forgotten."""
    ring = rings.attach()
    ids = [put(ring) for _ in range(3)]
    peer = rings.peer()
    assert [peer.do(peers.claim) for _ in ids] == ids
    peer.kill()
    ring.upkeep.settle_dead()
    assert [ring.get(each).status.name for each in ids] == ["FAILED"] * 3
    assert ring.upkeep.check() == []


def test_reaping_twice_is_harmless(rings: Rings) -> None:
    """Two processes may find the same death."""
    ring = rings.attach()
    put(ring)
    peer = rings.peer()
    peer.do(peers.claim)
    peer.kill()
    assert ring.upkeep.settle(peer.index) != 0
    assert ring.upkeep.settle(peer.index) == 0


# --- room ----------------------------------------------------------------------------------


def test_a_full_registry_says_what_to_do(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process too many gets a clear error; those that are in go on."""
    monkeypatch.setattr(at, "ENTRIES", 3)
    ring = rings.attach()
    peer = rings.peer()
    rings.peer()
    late = rings.late_peer()
    with pytest.raises(StoreUnavailable, match="All 3 places"):
        late.result()
    assert put(ring)
    assert peer.do(peers.enqueue)
    assert ring.upkeep.check() == []


def test_an_entry_that_somebody_is_taking_is_left_to_him(rings: Rings) -> None:
    """A newcomer takes the lock first and commits the entry last."""
    ring = rings.attach()
    peer = rings.peer()
    peer.do(take_liveness, peer.index + 1)
    late = rings.peer()
    assert late.index == peer.index + 2
    assert ring.upkeep.check() == []


def take_liveness(mine: Any, index: int) -> None:
    assert ByteLock(mine.ring.segment.fd, LIVENESS + index).acquire()
    mine.ring.words[at.H_ENTRIES_USED] = index + 1


def test_a_role_can_be_given_up(ring: Ring) -> None:
    """A visitor keeps no pool alive."""
    ring.attachment.become(Role.VISITOR)
    assert entry_of(ring, ring.registry.index).role is Role.VISITOR


def test_the_dead_make_room(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it refuses anybody, a full registry settles the dead."""
    monkeypatch.setattr(at, "ENTRIES", 3)
    ring = rings.attach()
    result_id = put(ring)
    rings.peer()
    peer = rings.peer()
    peer.do(peers.claim)
    peer.kill()
    assert rings.peer().index == peer.index
    assert ring.get(result_id).status.name == "FAILED"


def test_a_forked_child_registers_anew(rings: Rings) -> None:
    """The kernel gives a child none of its parent's record locks."""
    ring = rings.attach()
    children = [rings.peer() for _ in range(3)]
    indices = {ring.registry.index, *(child.index for child in children)}
    assert len(indices) == 4
    children[0].kill()
    wait_for(lambda: not ring.registry.alive(children[0].index))
    assert ring.registry.alive(children[1].index)
