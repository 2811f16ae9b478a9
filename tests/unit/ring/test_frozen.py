"""A process that is stopped inside the lock: who waits for it, for how long, and who does not."""

import logging
import os
import signal
import threading
import time
from typing import Any

import posix_ipc
import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm import patience
from django_tasks_local.ring.shm.patience import Patience, Sighting
from tests import rings as peers
from tests.rings import FAR_NS, Rings, done, put
from tests.support import stays, wait_for

NEVER_S = 10_000.0


def stop_inside(mine: Any) -> None:
    mine.ring._mutex.run(lambda: os.kill(os.getpid(), signal.SIGSTOP))


def frozen_inside(rings: Rings) -> peers.Peer:
    """A process that is attached, and stopped inside the lock."""
    peer = rings.peer()
    peer.start(stop_inside)
    os.waitpid(peer.pid, os.WUNTRACED)
    return peer


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a frozen process waits beyond the end of this test."""
    monkeypatch.setattr(patience, "FROZEN_S", NEVER_S)


# --- what is optional ----------------------------------------------------------------------


@pytest.mark.usefixtures("for_ever")
def test_polls_do_not_wait(rings: Rings) -> None:
    """Finished results are read, also those that are not the most recent; so are running ones."""
    ring = rings.attach()
    old, new = done(ring, outcome="old"), done(ring, outcome="new")
    put(ring)
    dead = rings.peer()
    running = dead.do(peers.claim)
    dead.kill()
    frozen = frozen_inside(rings)
    for _ in range(100):
        assert ring.get(old).outcome() == "old"
        assert ring.get(running).status.name == "RUNNING"
    frozen.resume()
    frozen.result()
    assert ring.get(running).status.name == "FAILED"
    ring.get(old)
    assert peers.ring_address(old)[0] == ring.words[at.H_NEWEST]
    assert ring.get(new).outcome() == "new"
    assert ring.upkeep.check() == []


@pytest.mark.usefixtures("for_ever")
def test_housekeeping_does_not_wait(rings: Rings) -> None:
    """Renewing, promoting, settling and looking for what is due: another time will do."""
    ring = rings.attach()
    put(ring, due_ns=time.time_ns() + FAR_NS)
    due = ring.upkeep.next_due_ns()
    assert due
    dead = rings.peer().kill()
    frozen = frozen_inside(rings)
    ring.upkeep.renew_semaphores()
    ring.upkeep.promote()
    assert ring.upkeep.next_due_ns() == 0
    assert not ring.upkeep.work_is_due(NEVER_S)
    assert dead.index not in [entry.index for entry in ring.upkeep.settle_dead()]
    assert ring.registry.in_use(dead.index)
    assert not ring.attachment.become(Role.SITE, needed=False)
    ring.attachment.detach()
    assert ring.registry.index >= 0
    frozen.resume()
    frozen.result()
    assert ring.upkeep.next_due_ns() == due
    ring.upkeep.settle_dead()
    assert not ring.registry.in_use(dead.index)
    assert ring.attachment.become(Role.SITE, needed=False)
    ring.attachment.detach()
    assert ring.registry.index < 0
    assert ring.upkeep.check() == []


@pytest.mark.usefixtures("for_ever")
def test_readers_attach_without_waiting(rings: Rings) -> None:
    """A new web process reads at once, and takes its place as soon as it can."""
    ring = rings.attach()
    result_id = done(ring, outcome="done")
    frozen = frozen_inside(rings)
    reader = rings.peer(role=Role.VISITOR)
    assert reader.index < 0
    assert reader.do(peers.status_of, result_id) == "SUCCESSFUL"
    reader.do(take_place, False)
    frozen.resume()
    frozen.result()
    assert reader.do(take_place, False) >= 0
    assert reader.do(become_site) > 0
    assert ring.upkeep.check() == []


@pytest.mark.usefixtures("for_ever")
def test_a_reader_that_has_no_place_yet_may_become_a_site(rings: Rings) -> None:
    """It gets its entry and its role at once."""
    ring = rings.attach()
    frozen = frozen_inside(rings)
    reader = rings.peer(role=Role.VISITOR)
    reader.start(become_site)
    stays(reader.busy, for_s=0.1)
    frozen.resume()
    assert reader.result() > 0
    (entry,) = [each for each in ring.registry.attachments() if each.pid == reader.pid]
    assert entry.role is Role.SITE
    assert reader.do(peers.enqueue, ((b"x" * 1000,), {}))
    assert ring.upkeep.check() == []


def take_place(mine: Any, needed: bool) -> int:
    mine.ring.attachment.take_place(needed=needed)
    return int(mine.ring.registry.index)


def become_site(mine: Any) -> int:
    assert mine.ring.attachment.become(Role.SITE)
    return int(mine.ring.registry.serial)


# --- what is needed ------------------------------------------------------------------------


def test_one_verdict_is_enough_for_a_process(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one thread has waited for, the others need not wait for, until something moves."""
    monkeypatch.setattr(patience, "FROZEN_S", 0.2)
    ring = rings.attach()
    frozen = frozen_inside(rings)
    with pytest.raises(StoreUnavailable, match=f"rocess {frozen.pid} "):
        put(ring)
    monkeypatch.setattr(patience, "FROZEN_S", NEVER_S)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match=f"rocess {frozen.pid} "):
            put(ring)
    frozen.resume()
    frozen.result()
    assert put(ring)
    frozen.start(stop_inside)  # the same process, but another stay
    os.waitpid(frozen.pid, os.WUNTRACED)
    waiting = threading.Thread(target=put, args=(ring,))
    waiting.start()
    stays(waiting.is_alive, for_s=0.1)
    frozen.resume()
    frozen.result()
    waiting.join()
    assert ring.upkeep.check() == []


def test_threads_that_wait_already_get_the_verdict(
    rings: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one to have waited long enough speaks for those that came later."""
    ring = rings.attach()
    frozen = frozen_inside(rings)
    monkeypatch.setattr(patience, "FROZEN_S", NEVER_S)
    errors: list[str] = []

    def enqueue() -> None:
        with pytest.raises(StoreUnavailable) as caught:
            put(ring)
        errors.append(str(caught.value))

    threads = [threading.Thread(target=enqueue) for _ in range(3)]
    for thread in threads:
        thread.start()
    stays(lambda: not errors, for_s=0.05)
    ring._mutex._stuck = (Sighting(*ring._mutex.look()), True)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert len(errors) == 3
    frozen.kill()
    assert put(ring)


def test_an_enqueue_that_was_given_up_leaves_no_slots(
    rings: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its large arguments were half-way in when another process froze; the next one frees them."""
    ring = rings.attach()
    put(ring)
    free = ring.counts().free_slots
    monkeypatch.setattr(patience, "FROZEN_S", 0.1)
    frozen: list[peers.Peer] = []
    write = ring._table.slots.write

    def freeze_meanwhile(*args: Any) -> None:
        write(*args)
        frozen.append(frozen_inside(rings))

    monkeypatch.setattr(ring._table.slots, "write", freeze_meanwhile)
    with pytest.raises(StoreUnavailable, match="has been inside"):
        put(ring, ((b"x" * 3000,), {}))
    monkeypatch.undo()
    assert ring.counts().free_slots < free
    frozen[0].resume()
    frozen[0].result()
    result_id = put(ring, ((b"y" * 3000,), {}))
    taken = free - ring.counts().free_slots
    assert peers.run(ring) != result_id
    assert peers.run(ring) == result_id
    assert ring.words[at.H_UNFINISHED] == 0
    assert taken < 20
    assert ring.upkeep.check() == []


# --- what nobody else can do ---------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3000])
def test_a_worker_waits_with_the_outcome(
    rings: Rings, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """However long it takes, the result of an ended task is not thrown away."""
    monkeypatch.setattr(patience, "FROZEN_S", 0.05)
    ring = rings.attach()
    result_id = put(ring)
    worker = rings.peer(role=Role.WORKER)
    assert worker.do(peers.claim) == result_id
    frozen = frozen_inside(rings)
    worker.start(peers.finish, result_id, "x" * size)
    stays(worker.busy, for_s=0.5)
    frozen.resume()
    worker.result()
    assert ring.get(result_id).outcome() == "x" * size


def test_who_insists_says_so_once(
    rings: Rings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log names the process that is waited for."""
    monkeypatch.setattr(patience, "FROZEN_S", 0.05)
    rings.attach()
    ring = rings.attach(role=Role.POOL)
    frozen = frozen_inside(rings)
    timer = threading.Thread(target=lambda: (wait_for(lambda: caplog.records), frozen.resume()))
    timer.start()
    with caplog.at_level(logging.ERROR, "django_tasks_local"):
        assert ring.attachment.become(Role.POOL)
    timer.join()
    (record,) = caplog.records
    assert "waits until it can go on" in record.getMessage()
    assert f"rocess {frozen.pid} " in record.getMessage()


# --- everything frozen and thawed ------------------------------------------------------------


def test_who_was_frozen_too_blames_nobody(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker pause`: the waiter wakes up first, an hour later, and waits on."""
    monkeypatch.setattr(patience, "FROZEN_S", 0.6)
    monkeypatch.setattr(patience, "GAP_S", 0.5)
    ring = rings.attach()
    waiter = rings.peer()
    frozen = frozen_inside(rings)
    waiter.start(peers.enqueue)
    stays(waiter.busy, for_s=0.1)
    waiter.stop()
    with pytest.raises(AssertionError):
        wait_for(lambda: False, 1.0)  # both are frozen, for longer than anybody may be inside
    waiter.resume()
    stays(waiter.busy, for_s=0.1)
    frozen.resume()
    assert waiter.result()
    assert ring.upkeep.check() == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A monotonic clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(patience, "monotonic", lambda: now[0])
    return now


def turns(clock: list[float], waiting: Patience, seen: Sighting | None, step_s: float) -> float:
    """For how long it waits in turns of that length."""
    began = clock[0]
    while not waiting.ends(seen):
        clock[0] += step_s
        if clock[0] - began > 1000:
            return 1000
    return clock[0] - began


def test_what_counts_is_what_was_waited(clock: list[float]) -> None:
    """Turn by turn: long ones count for less, and one that is too long begins again."""
    seen = Sighting(7, b"marks")
    assert turns(clock, Patience(), seen, 0.005) == pytest.approx(30, abs=0.1)
    assert turns(clock, Patience(), seen, 0.5) == pytest.approx(150, abs=1)
    assert turns(clock, Patience(), seen, 2.0) == 1000
    waiting = Patience()
    for _ in range(5900):
        assert not waiting.ends(seen)
        clock[0] += 0.005
    clock[0] += 3600
    assert turns(clock, waiting, seen, 0.005) == pytest.approx(30, abs=0.1)


def test_only_one_who_does_not_move_is_blamed(clock: list[float]) -> None:
    """Another process, or anything that moved in the header, begins again; so does nobody."""
    first = Sighting(7, b"marks")
    for other in (Sighting(8, b"marks"), Sighting(7, b"moved"), None):
        waiting = Patience()
        for _ in range(5900):
            assert not waiting.ends(first)
            clock[0] += 0.005
        assert not waiting.ends(other)
        assert turns(clock, waiting, first, 0.005) == pytest.approx(30, abs=0.1)


# --- signals -------------------------------------------------------------------------------


def test_a_free_guard_is_found_under_a_fast_timer(rings: Rings) -> None:
    """Signals that come more often than chunks end do not keep a process that waits outside."""
    ring, peer = rings.attach(), rings.peer()
    assert ring._mutex._guard.acquire()
    peer.start(enqueue_under_signals)
    wait_for(lambda: ring.words[at.H_QUEUED])
    ring._mutex._guard.release()  # without a wake-up, as if killed
    assert peer.result()


def enqueue_under_signals(mine: Any) -> str:
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        return put(mine.ring)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_caller_learns_the_id_though_the_wake_up_fails(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The semaphore may be at its ceiling: the task is in the ring already."""
    name = f"{ring.name}-full"
    full = posix_ipc.Semaphore(name, posix_ipc.O_CREX, initial_value=posix_ipc.SEMAPHORE_VALUE_MAX)
    full.unlink()
    with pytest.raises(OSError, match="too large"):
        full.release()
    monkeypatch.setattr(ring._semaphores, "work", full)
    assert ring.get(put(ring)).status.name == "READY"
