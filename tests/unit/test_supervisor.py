"""The supervisor alone, with workers that do nothing or die at once."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from django_tasks_local.pool.supervisor import Supervisor
from django_tasks_local.store import Ring, Role
from tests.rings import LIMITS, Rings


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
    ring.detach()
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

    supervisor = Supervisor(pool, start, foreground=True, cleared=0)
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

    supervisor = Supervisor(pool, start, foreground=True, cleared=0)
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

    Supervisor(pool, start, foreground=False, cleared=0).run()
    os.close(hold)
    os.waitpid(child, 0)
    for descriptor in (holder, ready, told):
        os.close(descriptor)
