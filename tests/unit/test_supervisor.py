"""The supervisor alone, with workers that do nothing or die at once."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.pool import supervisor as module
from django_tasks_local.pool.crew import Crew
from django_tasks_local.pool.supervisor import Supervisor
from django_tasks_local.ring import Ring, Role, unlink_objects
from django_tasks_local.ring.format import layout as at
from tests.children import in_a_child
from tests.rings import LIMITS, Rings, put

# Nobody's, so that a limit on the number of its processes counts those of one test alone.
FOREIGN_UID = 54321


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Puts back what a supervisor takes over in its process."""
    numbers = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def pool(rings: Rings) -> Iterator[Ring]:
    """Attached as a pool. No site is there."""
    rings.attach(role=Role.VISITOR)  # a pool makes no ring
    ring = Ring(rings.name, "alias", LIMITS, Role.POOL)
    yield ring
    ring.attachment.detach()
    ring.leadership.leave_pool()


def worker(body: Callable[[], object]) -> int:
    """A child in a group of its own, as workers are."""
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        body()
        os._exit(1)
    return pid


def test_workers_that_die_at_once_are_started_with_pauses(pool: Ring) -> None:
    """A pool whose workers cannot start does not keep a core busy with it."""
    starts: list[int] = []

    def start(life: int, bell: int, to_close: list[int]) -> int:
        starts.append(worker(lambda: None))
        if len(starts) == 2:
            supervisor.stop()  # about a second later it is alone for long enough
        return starts[-1]

    supervisor = Supervisor(pool, start, foreground=True, runnable_up_to=0)
    supervisor.run()
    assert 2 <= len(starts) <= 6


def test_a_second_stop_kills(pool: Ring) -> None:
    """Workers that would go on for long are killed, and their pool ends."""
    pids: list[int] = []

    def start(life: int, bell: int, to_close: list[int]) -> int:
        pids.append(worker(signal.pause))
        supervisor.stop()
        supervisor.stop()
        return pids[-1]

    supervisor = Supervisor(pool, start, foreground=True, runnable_up_to=0)
    supervisor.run()
    with pytest.raises(ChildProcessError):
        os.waitpid(pids[0], 0)  # it was waited for


def test_who_is_too_late_ends(rings: Rings, pool: Ring) -> None:
    """The pool's place is taken and no site is there any more: nothing to wait for."""
    holder, hold = os.pipe()
    ready, told = os.pipe()

    def take_the_place() -> None:
        os.close(hold)
        ring = Ring(rings.name, "alias", LIMITS, Role.POOL)
        ring.leadership.take_pool()
        os.write(told, b"!")
        os.read(holder, 1)
        os._exit(0)

    child = worker(take_the_place)
    os.read(ready, 1)

    def start(life: int, bell: int, to_close: list[int]) -> int:
        raise AssertionError("it never serves")

    Supervisor(pool, start, foreground=False, runnable_up_to=0).run()
    os.close(hold)
    os.waitpid(child, 0)
    for descriptor in (holder, ready, told):
        os.close(descriptor)


# --- what fails on the way, and must not end the pool ---------------------------------------------


def descriptors() -> set[str]:
    """Those of this process."""
    return set(os.listdir("/proc/self/fd"))


def serve_with(ring: Ring, start: Callable[..., int], hires: int) -> list[int]:
    """Serves until `start` was called so often; what it returned."""
    made: list[int] = []
    calls = 0

    def counted(*args: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == hires:
            supervisor.stop()
            supervisor.stop()
        made.append(start(*args))
        return made[-1]

    supervisor = Supervisor(ring, counted, foreground=True, runnable_up_to=0)
    supervisor.run()
    return made


def test_no_process_can_be_made(rings: Rings) -> None:
    """At a limit of the kernel the pool goes on, leaves nothing open, and hires when it can."""

    def body() -> None:
        if os.geteuid() == 0:  # whom no number of processes limits
            os.setresuid(FOREIGN_UID, FOREIGN_UID, FOREIGN_UID)
        rings.name = f"{rings.name}u"
        site = rings.attach()
        ring = Ring(rings.name, "alias", LIMITS, Role.POOL)
        before = resource.getrlimit(resource.RLIMIT_NPROC)
        open_then = []

        def start(life: int, bell: int, to_close: list[int]) -> int:
            open_then.append(len(descriptors()))
            limit = before if len(open_then) == 3 else (1, before[1])
            resource.setrlimit(resource.RLIMIT_NPROC, limit)
            return worker(signal.pause)

        assert len(serve_with(ring, start, 3)) == 1
        assert len(set(open_then)) == 1
        site.attachment.detach()
        unlink_objects(rings.name)

    in_a_child(body)


def test_no_descriptor_is_free(pool: Ring) -> None:
    """A worker needs a pipe. Where there is none nothing is started, and nothing left open."""
    bell, bell_end = os.pipe()
    started: list[Any] = []
    crew = Crew(pool, lambda *arguments: started.append(arguments) or 1, bell, bell_end)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = descriptors()
    spare = os.dup(0)  # one, and a pipe has two
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, hard))
    try:
        os.close(spare)
        with pytest.raises(OSError, match="Too many open files"):
            crew.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert descriptors() == before
    assert not started
    assert not crew
    for descriptor in (bell, bell_end):
        os.close(descriptor)


def test_a_ring_that_cannot_be_used_for_a_while(
    pool: Ring, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers live on, new ones are started, and the log has it once."""
    failures = 0
    renew = pool.upkeep.renew_semaphores

    def refuse() -> None:
        nonlocal failures
        failures += 1
        if failures < 4:
            raise StoreUnavailable("a process holds the lock", path="here")
        renew()

    monkeypatch.setattr(pool.upkeep, "renew_semaphores", refuse)

    def start(*_: Any) -> int:
        assert failures
        return worker(lambda: None)

    assert len(serve_with(pool, start, 3)) == 3
    assert caplog.text.count("cannot use its ring (failure") == 1


def test_a_ring_that_cannot_be_used_at_all(
    pool: Ring, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a while the pool leaves, for another process to try; its workers end in order."""

    def refuse() -> None:
        raise StoreUnavailable("a process holds the lock", path="here")

    monkeypatch.setattr(pool.upkeep, "renew_semaphores", refuse)
    monkeypatch.setattr(module, "HOPELESS_S", 0.2)

    def start(life: int, bell: int, to_close: list[int]) -> int:
        return worker(lambda: os._exit(0))

    Supervisor(pool, start, foreground=True, runnable_up_to=0).run()
    assert "the pool leaves" in caplog.text


def test_an_end_that_the_ring_cannot_be_told_at_once(
    rings: Rings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a dead worker left is settled when the ring can be used again, with the right cause.

    One line in the log says so.
    """
    site = rings.attach(replace(LIMITS, max_workers=1))
    ring = Ring(rings.name, "alias", LIMITS, Role.POOL)
    result_id = put(site)
    index = ring.registry.index
    refusals: list[object] = []
    settle = ring.upkeep.settle

    def refuse(*args: Any) -> int:
        if len(refusals) < 2:
            refusals.append(args)
            raise StoreUnavailable("a process holds the lock", path="here")
        return settle(*args)

    monkeypatch.setattr(ring.upkeep, "settle", refuse)

    def claim_and_die() -> None:
        Ring(rings.name, "alias", LIMITS, Role.WORKER, pool=index).claim()
        os._exit(7)

    def start(life: int, bell: int, to_close: list[int]) -> int:
        if not refusals:
            return worker(claim_and_die)
        supervisor.stop()
        supervisor.stop()
        return worker(signal.pause)

    runnable_up_to = ring.leadership.newest_site()
    supervisor = Supervisor(ring, start, foreground=True, runnable_up_to=runnable_up_to)
    supervisor.run()
    assert len(refusals) == 2
    assert "exit code 7" in site.get(result_id).outcome()[1]
    (line,) = [text for text in caplog.messages if "exit code 7" in text]
    assert f"Task id={result_id} " in line


@pytest.mark.parametrize(("proved_s", "failures"), [(60, 1), (0, 0)])
def test_a_pool_proves_itself_by_serving(
    rings: Rings, pool: Ring, monkeypatch: pytest.MonkeyPatch, proved_s: float, failures: int
) -> None:
    """One that dies just after it took its place is started with pauses; not after a minute."""
    monkeypatch.setattr(module, "PROVED_S", proved_s)
    assert pool.leadership.reserve_start(100, 1000)
    seen = []

    def start(life: int, bell: int, to_close: list[int]) -> int:
        seen.append(pool.codes.field(0, at.C_START_FAILURES))
        supervisor.stop()
        supervisor.stop()
        return worker(signal.pause)

    supervisor = Supervisor(pool, start, foreground=True, runnable_up_to=0)
    supervisor.run()
    assert seen == [failures]
