"""The mutex: one at a time, whoever dies, freezes or is interrupted inside it."""

import logging
import os
import signal
import threading
from time import monotonic
from typing import Any

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import S_ARGUMENTS_CHAIN
from django_tasks_local.ring.shm import lock as locks
from django_tasks_local.ring.shm import patience
from django_tasks_local.ring.shm.places import semaphore_path
from tests import rings as peers
from tests.rings import LIMITS, Rings, increment, increment_here, put
from tests.support import stays, wait_for

# A killed holder costs the next one a chunk of 5 ms and a rebuild; the rest is for a busy machine.
AT_ONCE_S = 2.0


def stay_inside(mine: Any, told: int, words: dict[int, int]) -> None:
    def body() -> None:
        for word, value in words.items():
            mine.ring.words[word] = value
        os.write(told, b"!")
        signal.pause()

    mine.ring._mutex.run(body)


def inside(rings: Rings, words: dict[int, int] | None = None) -> peers.Peer:
    """A process that has the ring locked, has written these words, and stays inside."""
    ours, theirs = os.pipe()
    peer = rings.peer()
    peer.start(stay_inside, theirs, words or {})
    os.close(theirs)
    assert os.read(ours, 1) == b"!"
    os.close(ours)
    return peer


# --- one at a time -------------------------------------------------------------------------


def test_it_returns_what_the_function_returns(ring: Ring) -> None:
    """Arguments go in, the value comes out, and it is free again."""
    assert ring._mutex.run(divmod, 7, 2) == (3, 1)
    assert ring._mutex.semaphore.value == 0  # nobody waited


def test_processes_and_threads_keep_each_other_out(rings: Rings) -> None:
    """Three processes, one of them with two threads and two attachments: no step is lost."""
    first, second = rings.attach(), rings.attach()
    others = [rings.peer(), rings.peer()]
    times = 1500
    for peer in others:
        peer.start(increment_here, times)
    thread = threading.Thread(target=increment, args=(second, times))
    thread.start()
    increment(first, times)
    thread.join()
    for peer in others:
        peer.result()
    assert first.words[at.H_EVICTED] == 4 * times
    assert first._mutex.semaphore.value <= 1


def test_wake_ups_too_many_let_nobody_in(rings: Rings) -> None:
    """The guard decides: a semaphore at 6 does no harm, and gets no higher."""
    ring = rings.attach()
    other = rings.peer()
    for _ in range(6):
        ring._mutex.semaphore.release()
    other.start(increment_here, 1000)
    increment(ring, 1000)
    other.result()
    assert ring.words[at.H_EVICTED] == 2000
    assert ring._mutex.semaphore.value <= 6


def test_one_that_waits_is_woken(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves wakes it, and so does each of several the next: no chunk has to end."""
    monkeypatch.setattr(patience, "CHUNK_S", 3600.0)
    ring = rings.attach()
    peers_ = [rings.peer() for _ in range(3)]

    def wait_inside() -> None:
        for peer in peers_:
            ring.words[at.H_QUEUED] = 0
            peer.start(increment_here, 100)
            wait_for(lambda: ring.words[at.H_QUEUED])

    ring._mutex.run(wait_inside)
    for peer in peers_:
        peer.result()
    assert ring.words[at.H_EVICTED] == 300


def test_renewing_replaces_a_lost_wake_up(ring: Ring) -> None:
    """`renew_semaphores` frees a waiter whose chunk a step of the clock made long."""
    ring.upkeep.renew_semaphores()
    assert ring._mutex.semaphore.value == 0
    ring.words[at.H_QUEUED] = 1
    ring.upkeep.renew_semaphores()
    assert ring._mutex.semaphore.value == 1
    ring.words[at.H_QUEUED] = 1
    ring.upkeep.renew_semaphores()
    assert ring._mutex.semaphore.value == 1


def test_renewing_leaves_a_busy_ring_alone(rings: Rings) -> None:
    """A process that is inside wakes the next one when it leaves."""
    ring = rings.attach()
    inside(rings, {at.H_QUEUED: 1})
    ring.upkeep.renew_semaphores()
    assert ring._mutex.semaphore.value == 0


def test_removed_semaphores_come_back(rings: Rings) -> None:
    """Somebody unlinked them: old and new ones work side by side until all have renewed them."""
    ring = rings.attach()
    for letter in ("m", "w0"):
        os.unlink(semaphore_path(rings.name + letter))
    other = rings.peer()
    other.start(increment_here, 500)
    increment(ring, 500)
    other.result()
    assert ring.words[at.H_EVICTED] == 1000
    ring.upkeep.renew_semaphores()
    put(ring)
    other.start(peers.claim)
    assert other.result()


def test_a_wrong_word_about_the_semaphores_is_set_right(rings: Rings) -> None:
    """It is a hint: whoever finds another word there looks at the names."""
    first, second = rings.attach(), rings.attach()
    for word in (at.H_SEMAPHORE, at.code_word(0, at.C_SEMAPHORE)):
        shown = first.words[word]
        first.words[word] = 4711
        first.upkeep.renew_semaphores()
        assert first.words[word] == shown
        second.upkeep.renew_semaphores()
        assert first.words[word] == shown
    assert put(second)


# --- deaths --------------------------------------------------------------------------------


def test_a_killed_holder_is_followed_at_once(rings: Rings) -> None:
    """The kernel drops the guard, and no rebuild is due."""
    ring = rings.attach()
    peer = inside(rings)
    peer.kill()
    started = monotonic()
    put(ring)
    assert monotonic() - started < AT_ONCE_S


def test_what_a_killed_holder_left_is_rebuilt_first(rings: Rings) -> None:
    """The next one inside finds the dirty word and counts anew before it does anything."""
    ring = rings.attach()
    put(ring)
    inside(rings, {at.H_DIRTY: 1, at.H_RUNNING: 77}).kill()
    assert ring.words[at.H_RUNNING] == 77
    put(ring)
    assert ring.words[at.H_RUNNING] == 0
    assert not ring.words[at.H_DIRTY]


def test_waiters_get_in_when_the_holder_dies(rings: Rings) -> None:
    """Those who waited while it died are not stuck."""
    ring = rings.attach()
    holder = inside(rings)
    late = [rings.late_peer() for _ in range(3)]
    stays(lambda: all(peer.busy() for peer in late), for_s=0.1)
    holder.kill()
    for peer in late:
        peer.result()
        peer.do(increment_here, 10)
    assert ring.words[at.H_EVICTED] == 30


def test_signals_do_not_end_the_wait(rings: Rings) -> None:
    """posix_ipc swallows what a handler raises while it waits; the waiter waits on."""
    ring = rings.attach()
    holder = inside(rings)
    handled = []
    handler = signal.signal(signal.SIGUSR1, lambda *_: handled.append(True))
    timers = [threading.Timer(n / 100, os.kill, (os.getpid(), signal.SIGUSR1)) for n in range(5)]
    timers.append(threading.Timer(0.1, holder.kill))
    for timer in timers:
        timer.start()
    put(ring)
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGUSR1, handler)
    assert handled
    assert ring.upkeep.check() == []


# --- freezes -------------------------------------------------------------------------------


def test_a_frozen_holder_is_named(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes the lock from a process that lives; the others say which one, and go on."""
    monkeypatch.setattr(patience, "FROZEN_S", 0.05)
    ring = rings.attach()
    peer = rings.peer()
    peer.start(increment_here, 1_000_000)
    wait_for(lambda: frozen_inside(peer, ring))
    with pytest.raises(StoreUnavailable, match=f"Process {peer.pid} .*kill -CONT {peer.pid}"):
        put(ring)
    peer.kill()
    assert put(ring)


def frozen_inside(peer: peers.Peer, ring: Ring) -> bool:
    """Freezes the peer; true if it was inside at that moment."""
    peer.stop()
    if ring._mutex._guard.held():
        return True
    peer.resume()
    return False


def test_a_thawed_holder_goes_on(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It kept the lock all the time, so what it goes on to write is right."""
    monkeypatch.setattr(patience, "FROZEN_S", 0.05)
    ring = rings.attach()
    peer = rings.peer()
    peer.start(increment_here, 100_000)
    wait_for(lambda: frozen_inside(peer, ring))
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            put(ring)
    at_rest = ring.words[at.H_EVICTED]
    peer.resume()
    monkeypatch.undo()
    wait_for(lambda: ring.words[at.H_EVICTED] > at_rest)
    increment(ring, 1000)
    peer.result()
    assert ring.words[at.H_EVICTED] == 101_000


@pytest.mark.parametrize("attached", [True, False])
def test_attaching_waits_no_longer_either(
    rings: Rings, monkeypatch: pytest.MonkeyPatch, attached: bool
) -> None:
    """A frozen holder keeps newcomers out for as long as it does the others, no longer."""
    monkeypatch.setattr(patience, "FROZEN_S", 0.05)
    if attached:
        rings.attach()
    peer = inside(rings)
    newcomer = rings.late_peer()
    with pytest.raises(StoreUnavailable, match=f"Process {peer.pid} "):
        newcomer.result()


# --- what a rebuild says -------------------------------------------------------------------


def test_what_was_dropped_is_logged_outside(ring: Ring, caplog: pytest.LogCaptureFixture) -> None:
    """A log handler may itself enqueue: it must not find the ring locked by its own thread."""
    result_id = put(ring, ((b"x" * 1000,), {}))
    ids = []

    class Enqueues(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            ids.append(put(ring))

    slot = peers.ring_address(result_id)[0]
    ring.words[ring._table.offset(slot) // 8 + S_ARGUMENTS_CHAIN] = 0
    ring.words[at.H_DIRTY] = 1
    handler = Enqueues()
    logging.getLogger("django_tasks_local").addHandler(handler)
    try:
        put(ring)
    finally:
        logging.getLogger("django_tasks_local").removeHandler(handler)
    assert f"slot {slot} " in caplog.text
    assert len(ids) == 1
    assert ring.upkeep.check() == []


# --- record locks --------------------------------------------------------------------------


def test_a_byte_lock_is_seen_by_others_only(rings: Rings) -> None:
    """A process is not told of its own lock; others see it, and whose it is."""
    ring = rings.attach()
    peer = rings.peer()
    mine = locks.ByteLock(ring.segment.fd, locks.GUARD + 100)
    assert mine.acquire()
    assert not mine.held()
    assert mine.holder() is None
    assert peer.do(look, locks.GUARD + 100) == (True, os.getpid(), False)
    mine.release()
    assert peer.do(look, locks.GUARD + 100) == (False, None, True)
    assert not mine.acquire()
    peer.kill()
    wait_for(mine.acquire)
    mine.release()
    mine.release()


def look(mine: Any, offset: int) -> tuple[bool, int | None, bool]:
    byte = locks.ByteLock(mine.ring.segment.fd, offset)
    return byte.held(), byte.holder(), byte.acquire()


def test_roles_do_not_matter_for_the_lock(rings: Rings) -> None:
    """A visitor gets in like a site."""
    ring = rings.attach(role=Role.VISITOR)
    assert ring.attachment.limits == LIMITS
    increment(ring, 1)
