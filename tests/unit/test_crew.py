"""The workers of a pool: what is told of their ends, and who is killed."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from django_tasks_local.exceptions import MemoryExceeded, WorkerLost
from django_tasks_local.pool import memory_watch
from django_tasks_local.pool.crew import Crew
from django_tasks_local.pool.memory_watch import MemoryWatch
from django_tasks_local.pool.oom import OomKills
from django_tasks_local.ring import Entry, Ring, Role
from tests.rings import LIMITS, Rings, put
from tests.support import wait_for

MIB = 2**20


class Made:
    """A pool in this process, with workers that claim a task each and then wait."""

    def __init__(self, rings: Rings) -> None:
        self.rings = rings
        self.site = rings.attach()
        self.pool = Ring(rings.name, "alias", LIMITS, Role.POOL)
        self.bell = os.pipe()
        self.crew = Crew(self.pool, self._start, *self.bell)
        self.pids: list[int] = []

    def _start(self, life: int, bell: int, to_close: list[int]) -> int:
        pid = os.fork()
        if not pid:
            os.setpgid(0, 0)
            ring = Ring(
                self.rings.name, "alias", LIMITS, Role.WORKER, pool=self.pool.registry.index
            )
            ring.claim()
            signal.pause()
            os._exit(1)
        self.pids.append(pid)
        return pid

    def run(self) -> tuple[str, Entry]:
        """Starts a worker with a task; the task's id, and the worker's entry."""
        result_id = put(self.site)
        self.crew.start()
        wait_for(lambda: self.site.get(result_id).status.name == "RUNNING")
        entries = self.pool.registry.attachments()
        return result_id, next(entry for entry in entries if entry.pid == self.pids[-1])

    def loss_of(self, result_id: str) -> Any:
        """How a task was lost, once its worker was waited for."""

        def settled() -> Any:
            self.crew.reap()
            return self.site.get(result_id).loss

        return wait_for(settled)

    def close(self) -> None:
        """Ends the workers."""
        for pid in self.pids:
            self.crew.kill_one(pid)
        wait_for(lambda: self.crew.reap() is None and not self.crew)
        for end in self.bell:
            os.close(end)
        self.pool.attachment.detach()


@pytest.fixture
def made(rings: Rings) -> Iterator[Made]:
    """A pool and its crew."""
    pool = Made(rings)
    yield pool
    pool.close()


@pytest.mark.parametrize("counted", [True, False])
def test_a_kill_of_the_kernel_s_own(made: Made, tmp_path: Path, counted: bool) -> None:
    """A worker that was killed as the kernel counted such a kill may have lacked memory."""
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 7\n")
    made.crew._oom_kills = OomKills(events)
    result_id, worker = made.run()
    os.kill(worker.pid, signal.SIGKILL)
    if counted:
        events.write_text("oom_kill 8\n")
    loss = made.loss_of(result_id)
    assert type(loss) is WorkerLost
    assert loss.cause.endswith("perhaps because memory ran out") == counted
    assert loss.signal == signal.SIGKILL


def test_only_the_one_that_takes_too_much_is_killed(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go on, whatever they have; without the option nobody is looked at."""
    first, large = made.run()
    second, small = made.run()
    sizes = {large.pid: 300 * MIB, small.pid: 100 * MIB}
    looked_at: list[int] = []

    def look(pid: int) -> int:
        looked_at.append(pid)
        return sizes[pid]

    monkeypatch.setattr(memory_watch, "resident_bytes", look)
    monkeypatch.setattr(memory_watch, "private_bytes", look)
    watch = MemoryWatch(made.pool, made.crew)
    watch.look([large, small])
    assert looked_at == []
    made.site.attachment.set_limits(_with_limit(200 * MIB))
    watch.look([large, small])
    loss = made.loss_of(first)
    assert isinstance(loss, MemoryExceeded)
    assert (loss.pid, loss.measured, loss.limit) == (large.pid, 300 * MIB, 200 * MIB)
    assert made.site.get(second).status.name == "RUNNING"


def test_a_task_that_ends_while_it_is_measured(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured is another task's then, and nobody is killed."""
    _, worker = made.run()
    made.site.attachment.set_limits(_with_limit(MIB))

    def end_it(pid: int) -> int:
        words, table = made.pool.words, made.pool._table
        words[table.commit + worker.slot] ^= 1 << 44  # as if another one ran there
        return 2 * MIB

    monkeypatch.setattr(memory_watch, "private_bytes", end_it)
    monkeypatch.setattr(memory_watch, "resident_bytes", lambda pid: 2 * MIB)
    killed: list[int] = []
    monkeypatch.setattr(made.crew, "kill_one", killed.append)
    MemoryWatch(made.pool, made.crew).look([worker])
    monkeypatch.undo()
    assert killed == []
    made.pool.words[made.pool._table.commit + worker.slot] ^= 1 << 44


def test_only_its_own_are_killed(made: Made) -> None:
    """A pid that is not, or no longer, a worker's may be anybody's."""
    made.crew.kill_one(os.getpid())


def _with_limit(size: int) -> Any:
    return replace(LIMITS, max_task_memory=size)
