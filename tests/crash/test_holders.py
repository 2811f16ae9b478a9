"""Processes that hold the mutex and are killed, frozen or outnumbered; semaphores and clocks."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Limits, Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm import patience
from django_tasks_local.ring.shm.places import semaphore_path
from tests.crash.scene import META, SMALL, Scene, small_value
from tests.crash.steps import in_child
from tests.support import alive, end, wait_for

# Above the 50 ms that an idle machine keeps by far: this one runs other tests.
NEXT_INSIDE_S = 0.25
# A word of the header that nothing else touches in these tests.
SCRATCH = at.code_word(at.CODES - 1, at.C_SUCCESSOR)
REBUILT_S = 0.5
PROCESSES = 4


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A ring of 46 slots."""
    made = Scene(SMALL)
    yield made
    made.close()


@contextmanager
def children(count: int, body: Callable[[int, Any], object]) -> Iterator[list[int]]:
    """Forks children that tell when they are ready and then wait; kills them at the end.

    Args:
        count: How many.
        body: Gets a child's number, and what to call when it is ready.
    """
    told, tell = os.pipe()
    pids = []
    try:
        for number in range(count):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    os.close(told)
                    body(number, lambda: os.write(tell, b"!"))
                    code = 0
                finally:
                    os._exit(code)
            pids.append(pid)
        os.close(tell)
        ready = b""
        while len(ready) < count:
            more = os.read(told, count)
            assert more, f"{count - len(ready)} children died before they were ready"
            ready += more
        yield pids
    finally:
        os.close(told)
        end(pids)
        for pid in pids:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def stay_inside(scene: Scene) -> Callable[[int, Any], object]:
    """A child that enters the mutex, dirty, and does not come out."""

    def body(number: int, ready: Callable[[], object]) -> None:
        ring = scene.attach()

        def inside() -> None:
            ring.words[at.H_DIRTY] = 1
            ready()
            signal.pause()

        ring._mutex.run(inside)

    return body


def test_next_one_inside_after_a_kill(scene: Scene) -> None:
    """When the holder is killed, the next one is inside within a chunk and a rebuild."""
    waits = []
    for _ in range(60):
        with children(1, stay_inside(scene)) as (pid,):
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            scene.ring.attachment.become(Role.SITE)
            waits.append(time.monotonic() - killed)
        scene.ring.upkeep.settle_dead()
    assert sorted(waits)[-2] < NEXT_INSIDE_S
    assert scene.ring.upkeep.check() == []


def test_frozen_holder_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder that is alive and does not run is waited for, then named, never overtaken."""
    monkeypatch.setattr(patience, "FROZEN_S", 0.3)
    result_id = scene.enqueue(small_value(1))
    with children(1, stay_inside(scene)) as (pid,):
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match=f"Process {pid} .*kill -CONT {pid}"):
            scene.ring.attachment.become(Role.SITE)
        # Reading needs no lock: polls go on.
        assert scene.ring.get(result_id).status.name == "READY"
        os.kill(pid, signal.SIGKILL)
        # One that was named is waited for only a chunk, and a busy machine ends it later.
        wait_for(lambda: not alive(pid))
        scene.ring.attachment.become(Role.SITE)
    scene.ring.upkeep.settle_dead()
    scene.verify({})


def test_stopped_while_inside(scene: Scene) -> None:
    """Whoever waits for a stopped holder comes in when that has gone on and out."""

    def body(number: int, ready: Callable[[], object]) -> None:
        ring = scene.attach()

        def inside() -> None:
            ready()
            os.kill(os.getpid(), signal.SIGSTOP)
            ring.words[SCRATCH] = 4711

        ring._mutex.run(inside)
        signal.pause()

    with children(1, body) as (pid,):
        wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "T")
        assert scene.ring._mutex._guard.held()
        seen = []
        with children(1, lambda number, ready: _continue_later(pid, ready)):
            scene.ring._mutex.run(lambda: seen.append(scene.ring.words[SCRATCH]))
    assert seen == [4711]


def _continue_later(pid: int, ready: Callable[[], object]) -> None:
    ready()
    with suppress(AssertionError):
        wait_for(lambda: False, 0.1)
    os.kill(pid, signal.SIGCONT)


def test_stopped_worker_is_not_dead(scene: Scene) -> None:
    """A worker that is stopped while it runs a task keeps the task, and finishes it later."""
    result_id = scene.enqueue(small_value(1))

    def body(number: int, ready: Callable[[], object]) -> None:
        ring = scene.attach(Role.WORKER)
        claim = ring.claim()
        assert claim is not None
        ready()
        os.kill(os.getpid(), signal.SIGSTOP)
        ring.finish(claim, successful=True, outcome=ring.encode("done"))
        signal.pause()

    with children(1, body) as (pid,):
        wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "T")
        scene.ring.upkeep.settle_dead()
        assert scene.ring.get(result_id).status.name == "RUNNING"
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: scene.ring.get(result_id).status.name == "SUCCESSFUL")


@pytest.mark.parametrize("value", [0, 1, 7])
def test_wrong_number_of_wake_ups(scene: Scene, value: int) -> None:
    """Whatever the semaphore says, one at a time is inside, and no more wake-ups are left behind.

    Each of those that leave may look at it before another one has posted.
    """
    semaphore = scene.ring._mutex.semaphore
    for _ in range(value):
        semaphore.release()

    def body(number: int, ready: Callable[[], object]) -> None:
        ring = scene.attach()
        for _ in range(200):
            ring._mutex.run(add_one, ring)
        ready()
        signal.pause()

    def add_one(ring: Ring) -> None:
        number = ring.words[SCRATCH]
        os.sched_yield()
        ring.words[SCRATCH] = number + 1

    with children(PROCESSES, body):
        assert scene.ring.words[SCRATCH] == 200 * PROCESSES
    scene.ring.attachment.become(Role.SITE)
    assert semaphore.value <= max(PROCESSES, value)
    scene.ring.upkeep.settle_dead()
    scene.verify({})


def test_semaphores_removed(scene: Scene) -> None:
    """Removed semaphores are made anew; old and new holders still exclude each other."""
    for letter in ("m", "w0"):
        os.unlink(semaphore_path(f"{scene.name}{letter}"))

    def body(number: int, ready: Callable[[], object]) -> None:
        ring = scene.attach()
        ring._mutex.run(lambda: (ready(), signal.pause()))

    with children(1, body) as (pid,):
        assert scene.ring._mutex._guard.holder() == pid
        os.kill(pid, signal.SIGKILL)
        scene.ring.upkeep.renew_semaphores()
        scene.ring.attachment.become(Role.SITE)
        result_id = scene.enqueue(small_value(1))

    def worker() -> None:
        ring = scene.attach(Role.WORKER)
        began = time.monotonic()
        ring.wait_for_work(20.0)
        assert time.monotonic() - began < 10
        claim = ring.claim()
        assert claim is not None
        assert claim.result_id == result_id
        ring.finish(claim, successful=True, outcome=ring.encode("done"))

    in_child(worker)
    assert scene.ring.get(result_id).outcome() == "done"


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_clock_steps(scene: Scene, step_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps makes deferred tasks due later or sooner, and nothing else."""
    due = scene.enqueue(small_value(1))
    later = scene.enqueue(small_value(2), due_ns=time.time_ns() + 1_800_000_000_000)
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + step_s * 1_000_000_000)
    assert scene.claim() == due
    scene.finish(due, "done")
    found = scene.ring.get(due)
    assert (found.finished_at_ns > found.enqueued_at_ns) == (step_s > 0)
    scene.records[later].deferred = step_s < 0
    scene.verify({})


def test_wait_that_a_clock_step_made_long(scene: Scene) -> None:
    """A wait by a clock that was set back ends with the next renewal."""

    def wait(number: int, ready: Callable[[], object]) -> None:
        patience.CHUNK_S = 3600.0  # type: ignore[misc]
        ready()
        ring = scene.attach()
        ring.words[SCRATCH] = 4711
        signal.pause()

    with children(1, stay_inside(scene)) as (holder,), children(1, wait):
        wait_for(lambda: scene.ring.words[at.H_QUEUED])
        os.kill(holder, signal.SIGKILL)
        wait_for(lambda: scene.ring.upkeep.renew_semaphores() or scene.ring.words[SCRATCH] == 4711)
    scene.ring.upkeep.settle_dead()
    scene.verify({})


def test_200_processes(scene: Scene) -> None:
    """200 attached processes use the ring at once; when all are killed, nothing is left of them."""

    def body(number: int, ready: Callable[[], object]) -> None:
        ring = scene.attach()
        ring.counts()
        ring.attachment.become(Role.VISITOR)
        ready()
        signal.pause()

    with children(200, body):
        entries = list(scene.ring.registry.attachments())
        assert len(entries) == 201
        assert all(entry.alive for entry in entries)
    scene.ring.upkeep.settle_dead()
    assert len(list(scene.ring.registry.attachments())) == 1
    scene.verify({})


def test_full_registry(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all places are taken by the living, attaching says so; those of the dead are reused."""

    def body(number: int, ready: Callable[[], object]) -> None:
        scene.attach()
        ready()
        signal.pause()

    def refused() -> None:
        with pytest.raises(StoreUnavailable, match=f"All {at.ENTRIES} places"):
            scene.attach()

    # Filling all 2,048 places takes 40 s and shows nothing more.
    monkeypatch.setattr(at, "ENTRIES", 24)
    with children(at.ENTRIES - 1, body) as pids:
        in_child(refused)
        end(pids[:3])
        in_child(scene.attach)
    monkeypatch.undo()
    scene.ring.upkeep.settle_dead()
    scene.verify({})


def test_rebuild_of_10_000_records() -> None:
    """Whoever finds a large ring dirty has it in order again in a fraction of a second."""
    scene = Scene(Limits(2, 10_000, 12_000, 512, 16 * 2**20))
    try:
        arguments = scene.ring.encode(small_value(1))
        for number in range(10_000):
            scene.ring.enqueue(META, arguments, priority=number % 5, due_ns=0)
        began = time.monotonic()
        scene.ring.upkeep.rebuild()
        assert time.monotonic() - began < REBUILT_S
        assert scene.ring.counts().waiting == 10_000
    finally:
        scene.close()
