"""Looking into a ring without its lock, and taking its names away."""

import os
import signal
from typing import Any

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Look, Ring, ring_exists, unlink_unattached
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm import segment
from tests import rings as peers
from tests.crash.steps import in_child
from tests.rings import Rings, done, put, run
from tests.support import shm_objects, wait_for


def look(rings: Rings) -> Look:
    """A look at a ring that must be there."""
    found = Look.into(rings.name, "unit")
    assert found is not None
    return found


def from_outside(rings: Rings, see: Any) -> None:
    """Calls `see` in a process that is not attached to the ring."""

    def body() -> None:
        segment._segments.clear()
        see(look(rings))

    in_child(body)


def objects_of(rings: Rings) -> set[str]:
    """What lies in /dev/shm of this ring."""
    return {name for name in shm_objects() if rings.name[1:] in name}


def test_looking_makes_nothing(rings: Rings) -> None:
    """Where there is no ring there is none afterwards, nor one half made."""
    assert Look.into(rings.name, "unit") is None
    assert not objects_of(rings)
    path = peers.path_of(rings)
    path.touch(mode=0o600)
    assert Look.into(rings.name, "unit") is None
    assert path.stat().st_size == 0


def test_looking_leaves_no_trace(rings: Rings) -> None:
    """No entry in the registry, no semaphore, no word changed, and no lock needed."""
    ring = rings.attach()
    put(ring)
    done(ring, outcome="x" * 3000)
    assert ring.claim()
    for name in objects_of(rings) - {f"{rings.name[1:]}s"}:
        os.unlink(f"/dev/shm/{name}")
    before = bytes(ring.segment.bytes)

    def see(found: Look) -> None:
        assert [task.result_id for task, lives in found.running() if lives]
        assert [entry.pid for entry in found.attached()] == [ring.attachment.pid]
        assert found.counts() == ring.counts()

    from_outside(rings, see)
    assert bytes(ring.segment.bytes) == before
    assert objects_of(rings) == {f"{rings.name[1:]}s"}


def test_who_does_not_let_go_is_named(rings: Rings) -> None:
    """A process that is stopped inside; nobody, where it moves or is outside."""
    rings.attach()
    peer = rings.peer()
    assert look(rings).stuck_inside() is None
    peer.start(stop_inside)
    os.waitpid(peer.pid, os.WUNTRACED)
    from_outside(rings, lambda found: same(found.stuck_inside(), peer.pid))
    assert look(rings).stuck_inside() == peer.pid
    peer.resume()
    peer.result()
    assert look(rings).stuck_inside() is None


def stop_inside(mine: Any) -> None:
    mine.ring._mutex.run(lambda: os.kill(os.getpid(), signal.SIGSTOP))


def same(found: object, expected: object) -> None:
    assert found == expected


def test_the_running_tasks_are_listed(rings: Rings) -> None:
    """Those of all processes, with a word on who has died; nothing is settled on the way."""
    ring = rings.attach()
    ids = [put(ring) for _ in range(4)]
    living, dead = rings.peer(), rings.peer()
    living.do(peers.claim)
    dead.do(peers.claim)
    dead.kill()
    listed = [(task.result_id, lives) for task, lives in look(rings).running()]
    assert listed == [(ids[0], True), (ids[1], False)]
    assert ring.counts().running == 2


def test_failures_are_counted(rings: Rings) -> None:
    """Those that have failed and those that were lost, among all that have ended."""
    ring = rings.attach()
    for successful in (True, False, True):
        put(ring)
        run(ring, outcome=("builtins.ValueError", "ValueError"), successful=successful)
    put(ring)
    dead = rings.peer()
    dead.do(peers.claim)
    dead.kill()
    assert look(rings).failures() == 1
    ring.upkeep.settle_dead()
    assert (look(rings).failures(), ring.counts().kept) == (2, 4)


@pytest.mark.parametrize("error", [TaskResultDoesNotExist, StoreUnavailable("damaged")])
def test_what_cannot_be_read_is_not_listed(
    rings: Rings, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    """It ended meanwhile, for the list is read without the lock; or it is damaged."""
    ring = rings.attach()
    put(ring)
    assert ring.claim()
    found = look(rings)

    def cannot(*_: object) -> None:
        raise error

    monkeypatch.setattr(found._reader, "find", cannot)
    assert list(found.running()) == []


@pytest.mark.parametrize(
    ("word", "value", "text"),
    [
        (at.H_MAGIC, 77, "is not a ring"),
        (at.H_MAGIC, 0, "is not a ring"),
        (at.H_VERSION, 77, "layout is version"),
        (at.H_SLOTS, 77, "header is damaged"),
    ],
)
def test_what_cannot_be_looked_at(
    ring: Ring, rings: Rings, word: int, value: int, text: str
) -> None:
    """It says why, and leaves that as it is."""
    ring.words[word] = value

    def see() -> None:
        segment._segments.clear()
        with pytest.raises(StoreUnavailable, match=text):
            Look.into(rings.name, "unit")

    in_child(see)
    assert ring.segment.intact()


# --- removal -------------------------------------------------------------------------------


def test_a_ring_in_use_is_not_removed(rings: Rings) -> None:
    """Every process that is attached keeps it, one that is stopped inside as well."""
    rings.attach().attachment.detach()
    peer = rings.peer()
    assert not unlink_unattached(rings.name)
    peer.start(stop_inside)
    os.waitpid(peer.pid, os.WUNTRACED)
    assert not unlink_unattached(rings.name)
    in_child(lambda: (segment._segments.clear(), same(unlink_unattached(rings.name), False)))
    peer.kill()
    in_child(lambda: (segment._segments.clear(), same(unlink_unattached(rings.name), True)))
    assert not ring_exists(rings.name)
    assert unlink_unattached(rings.name)


def test_who_uses_the_lock_to_enter_is_seen(rings: Rings) -> None:
    """Between the look and the removal nobody can take a place in the registry."""
    ring = rings.attach()
    ring.attachment.detach()

    def attach_while_inside() -> peers.Peer:
        peer = rings.late_peer()
        wait_for(lambda: not peer.busy() or peer.pid)
        assert peer.busy(for_s=0.05)
        return peer

    peer = ring._mutex.run(attach_while_inside)
    assert peer.result() >= 0
    assert not unlink_unattached(rings.name)
