"""Waking workers, and looking at what is in a ring."""

import os
import signal
import threading
from array import array
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.ids import parse_id
from tests import rings as peers
from tests.rings import LIMITS, Rings, done, put, run

STEP_BYTES = at.STEP_SLOTS * LIMITS.slot_size


# --- waking, looking -----------------------------------------------------------------------


def test_an_enqueue_wakes_a_worker(rings: Rings) -> None:
    """Whoever waits for work goes on at once; a deferred task wakes nobody."""
    ring = rings.attach()
    put(ring, due_ns=2**62)
    assert ring._semaphores.wake_ups() == 0
    peer = rings.peer()
    peer.start(wait_and_claim)
    result_id = put(ring)
    assert peer.result() == result_id


def wait_and_claim(mine: Any) -> str | None:
    mine.ring.wait_for_work(10)
    return peers.claim(mine)


def test_waiting_ends_with_time_or_a_signal(ring: Ring) -> None:
    """It returns without a word, and replaces a lost wake-up on the way."""
    ring.words[at.H_QUEUED] = 1
    ring.wait_for_work(0.01)
    assert ring._mutex.semaphore.value == 1
    handler = signal.signal(signal.SIGUSR1, lambda *_: None)
    timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
    started = monotonic()
    timer.start()
    ring.wait_for_work(10)
    timer.join()
    signal.signal(signal.SIGUSR1, handler)
    assert monotonic() - started < 5


def test_a_burst_leaves_no_more_wake_ups_than_workers(ring: Ring) -> None:
    """They would have idle workers look for tasks that others have run."""
    for _ in range(2 * LIMITS.max_workers):
        put(ring)
    assert ring._semaphores.wake_ups() == LIMITS.max_workers


def test_lost_wake_ups_are_replaced(ring: Ring) -> None:
    """A killed worker took its wake-up with it: the semaphore is filled up to what waits."""
    for _ in range(3):
        put(ring)
    ring.upkeep.set_runnable_up_to(ring.registry.serial)
    while ring._semaphores.wake_ups():
        ring.wait_for_work(0)
    ring.upkeep.top_up()
    ring.upkeep.top_up()
    assert ring._semaphores.wake_ups() == 3


def test_what_a_pool_asks(rings: Rings) -> None:
    """What waits, what runs, who is busy, and the limits that hold."""
    ring = rings.attach(replace(LIMITS, drain_timeout_s=2.5))
    upkeep = ring.upkeep
    assert (upkeep.has_work(), upkeep.waiting(), upkeep.is_temporary()) == (False, 0, False)
    assert (upkeep.max_workers(), upkeep.drain_timeout_s()) == (2, 2.5)
    ring.attachment.set_limits(replace(LIMITS, max_workers=7))
    assert (ring.upkeep.max_workers(), ring.upkeep.drain_timeout_s()) == (7, None)
    put(ring)
    assert (ring.upkeep.has_work(), ring.upkeep.waiting()) == (True, 1)
    worker = rings.peer(role=Role.WORKER)
    entry = next(each for each in ring.registry.attachments() if each.index == worker.index)
    assert not ring.upkeep.is_busy(entry)
    worker.do(peers.claim)
    entry = next(each for each in ring.registry.attachments() if each.index == worker.index)
    assert ring.upkeep.is_busy(entry)
    assert (ring.upkeep.has_work(), ring.upkeep.waiting()) == (True, 0)


def test_counts_tell_what_is_there(ring: Ring) -> None:
    """Tasks by state, slots and bytes."""
    put(ring)
    put(ring, due_ns=2**62)
    done(ring)
    put(ring, priority=1)
    ring.claim()
    counts = ring.counts()
    assert counts[:6] == (1, 1, 1, 1, 0, 0)
    assert counts.free_slots == 1023 - 4
    assert (counts.reserved_slots, counts.slots) == (1024, LIMITS.geometry.slots)
    assert STEP_BYTES < counts.reserved_bytes < counts.segment_bytes


def test_work_that_is_due_is_seen(ring: Ring) -> None:
    """A site asks before it starts a pool."""
    assert not ring.upkeep.work_is_due(10)
    put(ring, due_ns=2**62)
    assert not ring.upkeep.work_is_due(10)
    result_id = put(ring)
    assert ring.upkeep.work_is_due(0)
    assert run(ring) == result_id
    assert not ring.upkeep.work_is_due(10)


def test_a_script_can_follow_its_tasks(ring: Ring) -> None:
    """What is unfinished is told from two words for each id."""
    ids = array("Q", [word for _ in range(3) for word in parse_id(put(ring))[1:]])
    assert ring.upkeep.unfinished(ids) == ids
    run(ring)
    assert ring.upkeep.unfinished(ids) == ids[2:]
    with pytest.raises(TaskResultDoesNotExist):
        ring.get("nonsense")
