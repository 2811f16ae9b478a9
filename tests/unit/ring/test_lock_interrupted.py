"""The mutex and its own process: interruptions by signals, and forks."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from django_tasks_local.exceptions import TaskTimeout
from django_tasks_local.ring import Ring
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm.patience import FROZEN_S
from django_tasks_local.stopping import SignalledAttempt, listen
from django_tasks_local.store import time_limit_word
from tests import rings as peers
from tests.rings import LIMITS, Rings, done, increment, increment_here, put
from tests.support import stays


class Interruption(BaseException):
    """What a signal handler raises."""


@pytest.fixture
def on_alarm() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Sets what SIGUSR1 does."""

    def set_handler(function: Callable[[], object]) -> None:
        def handler(number: int, frame: FrameType | None) -> None:
            function()

        signal.signal(signal.SIGUSR1, handler)

    yield set_handler
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


# --- interruptions -------------------------------------------------------------------------


def test_an_exception_inside_leaves_the_ring_dirty_and_free(rings: Rings) -> None:
    """Like a death: the next one rebuilds what is derived."""
    ring, other = rings.attach(), rings.peer()
    put(ring)

    def body() -> None:
        ring.words[at.H_DIRTY] = 1
        ring.words[at.H_RUNNING] = 77
        raise Interruption

    with pytest.raises(Interruption):
        ring._mutex.run(body)
    assert ring.words[at.H_DIRTY]
    assert other.do(peers.enqueue)
    assert ring.upkeep.check() == []
    assert ring.words[at.H_RUNNING] == 0


def test_a_refusal_leaves_it_clean(ring: Ring) -> None:
    """An exception before the first write costs nobody a rebuild."""
    with pytest.raises(Interruption):
        ring._mutex.run(raise_interruption)
    assert not ring.words[at.H_DIRTY]


def raise_interruption() -> None:
    raise Interruption


def test_a_handler_that_comes_back_in_is_told_so(
    ring: Ring, on_alarm: Callable[[Callable[[], object]], None]
) -> None:
    """A signal handler that uses a backend inside would wait for itself; it gets an error."""
    told = []

    def use_backend() -> None:
        with pytest.raises(RuntimeError, match="signal handler"):
            put(ring)
        told.append(True)

    on_alarm(use_backend)
    ring._mutex.run(interrupt)
    assert told
    assert put(ring)


def test_a_handler_may_use_the_backend_outside(
    ring: Ring, on_alarm: Callable[[Callable[[], object]], None]
) -> None:
    """Only the inside is closed to it."""
    ids = []
    on_alarm(lambda: ids.append(put(ring)))
    interrupt()
    assert ring.get(ids[0]).status.name == "READY"


def test_exceptions_of_handlers_at_any_moment(rings: Rings) -> None:
    """Signals whose handler raises, thousands of them: the mutex stays free and the ring sound."""
    limits = replace(LIMITS, max_pending=100_000, shm_size=2**26)
    ring = rings.attach(limits)
    peer = rings.peer(limits)
    peer.do(survive_early_signals)
    peer.start(be_interrupted, 1000)
    while peer.busy(for_s=0.0002):
        peer.signal(signal.SIGUSR1)
    assert peer.result() > 0
    assert put(ring)
    peer.kill()  # nothing that belongs to the test itself is fit for use in it
    assert ring.upkeep.check() == []


def test_a_time_limit_ends_the_wait_for_the_mutex(rings: Rings) -> None:
    """A task that waits for a frozen process is stopped there, and its process can go on."""
    ring = rings.attach()
    peer = rings.peer()
    with held(ring), pytest.raises(TaskTimeout) as caught:
        peer.do(enqueue_in_a_task)
    assert caught.value.ran_s < FROZEN_S
    assert peer.do(peers.enqueue)


@contextmanager
def held(ring: Ring) -> Iterator[None]:
    """Stays inside the mutex."""
    assert ring._mutex._guard.acquire()
    try:
        yield
    finally:
        ring._mutex._guard.release()


def enqueue_in_a_task(mine: Any) -> None:
    """Runs a task whose limit falls due while it waits for the mutex."""
    listen()
    claim: Any = SimpleNamespace(time_limit=time_limit_word(0.05, 60), stop_asked=False)
    SignalledAttempt(claim).call(lambda: put(mine.ring), [], {})


def survive_early_signals(mine: Any) -> None:
    """The first ones come before `be_interrupted` has set its handler."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def be_interrupted(mine: Any, times: int) -> int:
    """Uses the ring until it was interrupted so many times; how often it was not."""
    now = False
    sys.settrace(None)  # coverage's own lock would be left locked

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal now
        if now:
            now = False
            raise Interruption

    signal.signal(signal.SIGUSR1, handler)
    interrupted = completed = 0
    while interrupted < times or not completed:
        try:
            now = True
            with suppress(AssertionError):  # it claimed what an interruption had left waiting
                done(mine.ring, ((b"x" * (completed % 7 * 100),), {}), b"y" * (completed % 5 * 200))
            now = False
            completed += 1
        except Interruption:
            interrupted += 1
    return completed


# --- forks ---------------------------------------------------------------------------------


def test_a_forked_child_does_not_believe_it_is_inside(rings: Rings) -> None:
    """A child of a process that is inside waits like everybody else, with locks of its own."""
    ring = rings.attach()

    def fork_inside() -> peers.Peer:
        peer = rings.late_peer()
        stays(peer.busy, for_s=0.1)
        return peer

    peer = ring._mutex.run(fork_inside)
    assert peer.result() != ring.registry.index
    peer.start(increment_here, 100)
    increment(ring, 100)
    peer.result()
    assert ring.words[at.H_EVICTED] == 200
