"""Which losses are to be announced, and who announces them."""

import threading
from typing import Any

import pytest

from django_tasks_local.exceptions import WorkerLost
from django_tasks_local.ring import Loss, Ring, Role, Share, loss_word
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records.follow_ups import FollowUps
from django_tasks_local.store import time_limit_word
from tests import rings as peers
from tests.rings import META, Rings, change_limits, done, put
from tests.support import SHORT_TIMEOUT

OURS = Share(0, 0)


def lose(rings: Rings, word: int = 0, **kwargs: Any) -> str:
    """The next task is claimed by a process that dies; its id."""
    ring, peer = rings.attach(), rings.peer(**kwargs)
    result_id: str = peer.do(peers.claim)
    peer.kill()
    ring.upkeep.settle(peer.index, word)
    return result_id


def taken(ring: Ring, share: Share = OURS) -> list[str]:
    """The ids of the losses that are given to this process."""
    return [found.result_id for found in ring.upkeep.losses.take(share)]


def test_each_loss_is_given_out_once(rings: Rings) -> None:
    """To the first process that asks, in the order of their ends, with what ended them."""
    ring, losses = rings.attach(), rings.attach().upkeep.losses
    assert not losses.may_be_there(OURS)
    ids = [put(ring), put(ring)]
    assert [lose(rings, loss_word(Loss.SIGNAL, 9)) for _ in ids] == ids
    assert losses.may_be_there(OURS)
    first, second = losses.take(OURS)
    assert [first.result_id, second.result_id] == ids
    assert isinstance(first.loss, WorkerLost)
    assert first.loss.signal == 9
    assert not losses.may_be_there(OURS)
    assert taken(ring) == []
    assert ring.get(ids[0]).loss is not None  # which changes nothing for readers
    assert ring.upkeep.check() == []


def test_a_loss_that_comes_meanwhile(rings: Rings) -> None:
    """While another is announced: it is there for the next look."""
    ring = rings.attach()
    put(ring), put(ring)
    lose(rings)
    losses = ring.upkeep.losses.take(OURS)
    next(losses)
    later = lose(rings)
    assert list(losses) == []
    assert ring.upkeep.losses.may_be_there(OURS)
    assert taken(ring) == [later]


def test_a_loss_that_is_just_being_marked(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that looks before the record is LOST waits for that, and does not say it is done."""
    ring, other = rings.attach(), rings.attach()
    lost = put(ring)
    mutex, goes_in = other.upkeep.losses._mutex, threading.Event()
    insist, end = mutex.insist, FollowUps.end
    looks: list[list[str]] = []
    looker = threading.Thread(target=lambda: looks.append(taken(other)))

    def insist_and_tell(*args: Any) -> Any:
        goes_in.set()
        return insist(*args)

    def look_before(*args: Any) -> None:
        looker.start()
        assert goes_in.wait(SHORT_TIMEOUT)
        end(*args)

    monkeypatch.setattr(mutex, "insist", insist_and_tell)
    monkeypatch.setattr(FollowUps, "end", look_before)
    assert lose(rings) == lost
    looker.join()
    assert looks == [[lost]]
    assert not ring.upkeep.losses.may_be_there(OURS)


def test_what_is_announced_elsewhere(rings: Rings) -> None:
    """What was taken out by the process that did that; what is tried again at its end."""
    ring = rings.attach()
    assert ring.cancel(put(ring), running=True)[0]
    limit = time_limit_word(None, 0, 2)
    again, _ = ring.enqueue(META, ring.encode(((), {})), priority=0, due_ns=0, time_limit=limit)
    lose(rings)
    assert ring.get(again).status.name == "READY"
    assert not ring.upkeep.losses.may_be_there(OURS)
    assert taken(ring) == []


def test_a_loss_is_for_workers_of_its_code(rings: Rings) -> None:
    """Or for those who have adopted it: others might not be able to import its task."""
    ring = rings.attach()
    other = rings.attach(path="/green/settings.py")
    lost = put(other)
    lose(rings)
    code = other.registry.code
    assert code != ring.registry.code
    assert not ring.upkeep.losses.may_be_there(OURS)
    assert taken(ring) == []
    heir = Share(0, 0, 1 << code)
    assert ring.upkeep.losses.may_be_there(heir)
    assert taken(ring, heir) == [lost]


def test_a_site_starts_a_pool_for_a_loss(rings: Rings) -> None:
    """Where the pool died with its worker, and no task waits."""
    ring = rings.attach(path="/settings.py")
    put(ring)
    assert ring.upkeep.work_is_due(1)
    lose(rings)
    assert ring.upkeep.waiting() == 0
    assert ring.upkeep.work_is_due(1)
    assert taken(ring)
    assert not ring.upkeep.work_is_due(1)


@pytest.mark.parametrize(
    ("loss", "lost", "killed"),
    [(Loss.SIGNAL, 1, 0), (Loss.DRAINED, 1, 0), (Loss.TIMED_OUT, 0, 1), (Loss.MEMORY, 0, 1)],
)
def test_kills_at_a_limit_are_no_lost_workers(
    rings: Rings, loss: Loss, lost: int, killed: int
) -> None:
    """They are counted beside them."""
    ring = rings.attach()
    put(ring)
    lose(rings, loss_word(loss))
    counts = ring.counts()
    assert (counts.lost, counts.killed) == (lost, killed)


def test_what_has_expired_was_not_evicted(rings: Rings) -> None:
    """A result that its lifetime ends counts as that."""
    ring = rings.attach(role=Role.SITE)
    done(ring)
    change_limits(ring, result_ttl_s=1e-3)
    run_out = ring.words[at.H_EXPIRED]
    while not ring.counts().expired:
        ring.expiry.sweep()
    assert run_out == 0
    assert (ring.counts().expired, ring.counts().evicted) == (1, 0)
