"""Waiting on a commit word: by futex, and by polling where there is none."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records.claim import RingClaim
from django_tasks_local.ring.shm import waiters
from django_tasks_local.ring.shm.entries import WAITS
from tests import rings as peers
from tests.rings import LIMITS, Rings, put
from tests.support import LONG_TIMEOUT, SHORT_TIMEOUT, wait_for

HERE_IT_WORKS = waiters._wait_call() is not None


@pytest.fixture(params=["futex", "no such call", "gevent"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With a futex, on a machine without one, and where a sleep has to let others run."""
    if request.param == "no such call":
        monkeypatch.setattr(waiters, "_wait_call", lambda: None)
        monkeypatch.setattr(waiters, "_wake_call", lambda: None)
    if request.param == "gevent":
        real = time.sleep

        def cooperative(seconds: float) -> None:
            real(seconds)

        monkeypatch.setattr(time, "sleep", cooperative)
    return str(request.param)


def in_thread(function: Callable[..., Any], *args: Any) -> threading.Thread:
    """Starts a thread; returns it."""
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


def asleep(ring: Ring) -> bool:
    """Whether somebody has announced that he waits."""
    return bool(ring.words[at.H_WAITED])


def test_another_process_ends_the_task(rings: Rings, ring: Ring, way: str) -> None:
    """A wait ends with the task, though another process has claimed and finished it meanwhile."""
    result_id = put(ring)
    waiting = in_thread(ring.wait_for_change, ring.get(result_id), LONG_TIMEOUT)
    wait_for(lambda: asleep(ring))
    peer = rings.peer()
    peer.do(peers.finish, peer.do(peers.claim))
    waiting.join(SHORT_TIMEOUT)
    assert not waiting.is_alive()


def test_a_worker_that_died(rings: Rings, ring: Ring) -> None:
    """Who settles a dead worker's task wakes those who wait for it."""
    result_id = put(ring)
    peer = rings.peer()
    peer.do(peers.claim)
    waiting = in_thread(ring.wait_for_change, ring.get(result_id), LONG_TIMEOUT)
    wait_for(lambda: asleep(ring))
    peer.kill()
    ring.upkeep.settle_dead()
    waiting.join(SHORT_TIMEOUT)
    assert not waiting.is_alive()


def test_what_has_changed_is_not_waited_for(ring: Ring, way: str) -> None:
    """A record that was seen READY and has ended since ends the wait at once."""
    found = ring.get(put(ring))
    peers.run(ring)
    ring.wait_for_change(found, LONG_TIMEOUT)
    ring.wait_for_change(ring.get(found.result_id), LONG_TIMEOUT)  # nor what was seen finished


def test_the_time_is_up(ring: Ring, way: str) -> None:
    """A wait lasts as long as it was told."""
    found = ring.get(put(ring))
    began = time.monotonic()
    ring.wait_for_change(found, 0.05)
    assert 0.04 < time.monotonic() - began < SHORT_TIMEOUT


def test_an_end_that_nobody_waits_for(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes no system call, nor does one after a killed waiter's time has passed."""
    woken: list[int] = []
    monkeypatch.setattr(waiters.Waiters, "wake", lambda self, slot: woken.append(slot))
    peers.done(ring)
    ring.words[at.H_WAITED] = time.time_ns() - 1
    peers.done(ring)
    assert not woken
    ring.words[at.H_WAITED] = time.time_ns() + 10**12
    peers.done(ring)
    assert len(woken) == 1


@pytest.mark.skipif(not HERE_IT_WORKS, reason="no futex on this machine")
def test_only_its_own_waiters_wake(rings: Rings, ring: Ring) -> None:
    """The end of one task leaves those asleep who wait for another."""
    first, second = put(ring), put(ring)
    waiting = in_thread(ring.wait_for_change, ring.get(second), LONG_TIMEOUT)
    wait_for(lambda: asleep(ring))
    assert peers.run(ring) == first
    waiting.join(0.05)
    assert waiting.is_alive()
    assert peers.run(ring) == second
    waiting.join(SHORT_TIMEOUT)
    assert not waiting.is_alive()


def begin_waiting(mine: Any) -> bool:
    """A task of this worker begins to wait."""
    ring: Ring = mine.ring
    return ring.begin_waiting("")


def test_a_worker_that_died_while_it_waited(rings: Rings) -> None:
    """It does not count any more, though its entry is there until its pool has seen its end."""
    rings.attach(replace(LIMITS, max_workers=2))
    index = rings.attach(role=Role.POOL).registry.index
    worker = rings.attach(role=Role.WORKER, pool=index)
    peer = rings.peer(role=Role.WORKER, pool=index)
    assert peer.do(begin_waiting)
    assert not worker.begin_waiting("")
    peer.kill()
    assert worker.begin_waiting("")


def test_a_worker_that_waits_and_is_to_be_replaced(rings: Rings) -> None:
    """Neither hides the other: a pool that lost sight of it would start a second successor."""
    site = rings.attach(replace(LIMITS, max_workers=10))
    index = rings.attach(role=Role.POOL).registry.index
    worker = rings.attach(role=Role.WORKER, pool=index)

    def seen() -> tuple[bool, bool]:
        entries = {entry.index: entry for entry in site.registry.attachments()}
        mine = entries[worker.registry.index]
        return mine.retires, mine.waits

    worker.workforce.retire(index)
    assert seen() == (True, False)
    assert worker.begin_waiting("")
    assert seen() == (True, True)
    worker.workforce.retire(index)
    assert seen() == (True, True)
    worker.end_waiting("")
    assert seen() == (True, False)


def test_a_wait_that_outlives_its_task(rings: Rings) -> None:
    """A thread of a task that has ended holds no worker, and does not end the next one's wait."""
    rings.attach(replace(LIMITS, max_workers=2))
    worker = rings.attach(role=Role.WORKER, pool=rings.attach(role=Role.POOL).registry.index)

    def started() -> RingClaim:
        put(worker)
        claim = worker.claim()
        assert claim is not None
        assert worker.begin_waiting(claim.result_id)
        return claim

    first = started()
    worker.finish(first, successful=True, outcome=b"")
    assert not worker.registry.marked(WAITS)
    second = started()
    worker.end_waiting(first.result_id)
    assert worker.registry.marked(WAITS)
    worker.end_waiting(second.result_id)
    assert not worker.registry.marked(WAITS)
