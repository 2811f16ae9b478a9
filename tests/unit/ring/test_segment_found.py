"""Rings that are found half-made, in another layout, of other sizes, or left by the dead."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import (
    ring_exists,
    ring_is_attached,
    sweep_temporary,
    unlink_objects,
    unlink_unattached,
)
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm import removal, segment
from django_tasks_local.ring.shm.lock import any_held
from tests import rings as peers
from tests.rings import (
    LIMITS,
    OTHER_SIZES,
    Rings,
    done,
    exists,
    leave_behind,
    path_of,
    put,
    refused,
    write_word,
)
from tests.support import kill, wait_for


def settle_all(mine: Any) -> None:
    mine.ring.upkeep.settle_dead()


# --- half-made rings -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100, at.PAGE - 1, at.PAGE, 10 * at.PAGE])
def test_an_interrupted_layout_is_started_again(rings: Rings, size: int) -> None:
    """The magic is written last: a segment without it was never used."""
    path_of(rings).write_bytes(bytes(size))
    path_of(rings).chmod(0o600)
    ring = rings.attach()
    assert put(ring)
    assert ring.upkeep.check() == []


def test_two_processes_make_one_ring(rings: Rings) -> None:
    """Both attach at once, and find each other."""
    made = [rings.peer() for _ in range(4)]
    ids = [peer.do(peers.enqueue) for peer in made]
    assert [peer.do(peers.status_of, ids[0]) for peer in made] == ["READY"] * 4


# --- other layouts, other sizes ------------------------------------------------------------


def test_an_older_layout_with_work_in_it_is_refused(rings: Rings) -> None:
    """An upgrade never strands a waiting task silently."""
    leave_behind(rings, peers.enqueue)
    write_word(rings, at.H_VERSION, at.VERSION + 1)
    error = refused(rings)
    assert "1 unfinished" in str(error)
    assert "destroy" in str(error)


def test_an_older_layout_that_somebody_uses_is_refused(rings: Rings) -> None:
    """A process of the older release may be about to enqueue."""
    rings.peer()
    write_word(rings, at.H_VERSION, at.VERSION + 1)
    refused(rings)


def test_an_idle_older_layout_is_made_anew(rings: Rings, caplog: pytest.LogCaptureFixture) -> None:
    """Without unfinished work and without processes there is nothing to lose but results."""
    leave_behind(rings, peers.enqueue, claim_and_finish, settle_all)
    write_word(rings, at.H_VERSION, at.VERSION + 1)
    ring = rings.attach()
    assert "kept results are dropped" in caplog.text
    assert ring.counts().kept == 0
    assert put(ring)


def claim_and_finish(mine: Any) -> None:
    peers.finish(mine, peers.claim(mine) or "")


def test_other_sizes_apply_when_the_ring_is_idle(
    rings: Rings, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody attached, nothing unfinished: the ring is laid out as the options now say."""
    leave_behind(rings, peers.enqueue, claim_and_finish)
    ring = rings.attach(OTHER_SIZES)
    assert ring.segment.geometry == OTHER_SIZES.geometry
    assert "replaced, kept results are dropped" in caplog.text


@pytest.mark.parametrize("busy", ["attached", "waiting"])
def test_other_sizes_wait_while_the_ring_is_in_use(
    rings: Rings, caplog: pytest.LogCaptureFixture, busy: str
) -> None:
    """The header wins, with a warning, and nothing is lost."""
    peer = rings.peer()
    result_id = peer.do(peers.enqueue)
    if busy == "attached":
        peer.do(claim_and_finish)
    else:
        peer.kill()
    ring = rings.attach(OTHER_SIZES)
    assert ring.segment.geometry == LIMITS.geometry
    assert "old sizes" in caplog.text
    assert exists(ring, result_id)


def test_a_dirty_ring_is_never_taken_for_idle(rings: Rings) -> None:
    """Its count of unfinished tasks can't be trusted before a rebuild."""
    peer = rings.peer()
    result_id = peer.do(peers.enqueue)
    peer.kill()
    write_word(rings, at.H_UNFINISHED, 0)
    write_word(rings, at.H_DIRTY, 1)
    ring = rings.attach(OTHER_SIZES)
    assert ring.segment.geometry == LIMITS.geometry
    assert ring.get(result_id).status.name == "READY"


def test_the_same_sizes_warn_of_nothing(rings: Rings, caplog: pytest.LogCaptureFixture) -> None:
    """Limits may change at any time; only sizes are laid out."""
    rings.peer().kill()
    with caplog.at_level(logging.INFO):
        rings.attach(replace(LIMITS, max_pending=99, max_results=5))
    assert not caplog.records


# --- asking, sweeping ----------------------------------------------------------------------


def test_asking_attaches_nothing(rings: Rings) -> None:
    """Whether a ring exists and is in use can be asked without making it."""
    assert not ring_exists(rings.name)
    assert not ring_is_attached(rings.name)
    assert not ring_exists(rings.name)
    peer = rings.peer()
    assert ring_exists(rings.name)
    assert ring_is_attached(rings.name)
    peer.kill()
    wait_for(lambda: not ring_is_attached(rings.name))
    assert ring_exists(rings.name)


def test_asking_keeps_our_own_locks(rings: Rings) -> None:
    """Closing any descriptor of the segment would have others take us for dead."""
    ring = rings.attach()
    peer = rings.peer()
    assert ring_is_attached(rings.name)
    sweep_temporary()
    assert peer.do(alive, ring.registry.index)


def alive(mine: Any, index: int) -> bool:
    return bool(mine.ring.registry.alive(index))


def test_a_dead_test_runs_ring_is_swept(rings: Rings) -> None:
    """The next test run removes what a killed one left; rings of others stay."""
    temporary = Rings()
    peer = temporary.peer(temporary=True)
    rings.peer().kill()
    sweep_temporary()
    assert ring_exists(temporary.name)
    kill(peer.pid)
    peer.wait()
    sweep_temporary()
    assert not ring_exists(temporary.name)
    assert ring_exists(rings.name)


def test_sweeping_passes_over_what_is_no_ring(rings: Rings) -> None:
    """Whatever bears such a name is left alone."""
    path_of(rings).write_bytes(b"12345")
    sweep_temporary()
    assert path_of(rings).read_bytes() == b"12345"
    path_of(rings).unlink()


def test_removing_twice_is_harmless(rings: Rings) -> None:
    """Two commands may destroy the same ring at once."""
    ring = rings.attach()
    done(ring)
    unlink_objects(rings.name)
    unlink_objects(rings.name)
    assert not ring_exists(rings.name)


@pytest.mark.parametrize("look", [ring_is_attached, unlink_unattached])
def test_nobody_attaches_while_a_descriptor_is_about_to_be_closed(
    rings: Rings, monkeypatch: pytest.MonkeyPatch, look: Callable[[str], object]
) -> None:
    """To close it would drop the record locks of a thread that has just attached."""
    rings.peer()
    seen: list[bool] = []

    def ask(fd: int, offset: int) -> bool:
        seen.append(segment._attaching.locked())
        return any_held(fd, offset)

    monkeypatch.setattr(removal, "any_held", ask)
    look(rings.name)
    assert seen == [True]
    assert not segment._attaching.locked()


def test_what_is_somebody_elses_is_not_removed(rings: Rings) -> None:
    """A directory in its place, as another user's file: it is said, and nothing is claimed."""
    path_of(rings).mkdir()
    try:
        for remove in (unlink_objects, unlink_unattached):
            with pytest.raises(StoreUnavailable, match=str(path_of(rings))):
                remove(rings.name)
        sweep_temporary()
        assert path_of(rings).is_dir()
    finally:
        path_of(rings).rmdir()
