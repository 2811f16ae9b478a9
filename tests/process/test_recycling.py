"""Workers that are replaced, tasks that take too much memory, and results that expire."""

import signal
from itertools import pairwise
from pathlib import Path

import pytest

from django_tasks_local.ring import Role
from tests.process.client import gone, reading, serving
from tests.support import LONG_TIMEOUT, kill, wait_for

EXCEEDED = "django_tasks_local.exceptions.MemoryExceeded"
MIB = 2**20


@pytest.mark.parametrize(("workers", "fresh"), [(1, False), (3, False), (2, True)])
def test_a_worker_is_replaced_after_some_tasks(workers: int, fresh: bool) -> None:
    """Each runs about as many as the option says; there are never more than MAX_WORKERS."""
    options = {"MAX_WORKERS": workers, "MAX_TASKS_PER_WORKER": 10}
    env = {"DTL_THREAD": "1"} if fresh else {}
    most = 0
    pids: list[int] = []

    def replaced() -> bool:
        nonlocal most
        # While its successor starts, a worker goes on: it may run many tasks that take no time.
        ids = client.enqueue_many(20, "worker_pid")
        most = max(most, len(client.workers()))
        pids.extend(client.value(each) for each in ids)
        return len(set(pids)) > 3 * workers

    with serving(workers=1, options=options, env=env) as client:
        wait_for(replaced, LONG_TIMEOUT)
        assert most <= workers
        numbers = sorted(pids.count(pid) for pid in set(pids))
        if workers == 1:
            assert numbers[-1] <= 11
            assert sum(9 <= number <= 11 for number in numbers) >= len(numbers) - 1
        assert "is replaced: it has run" in client.site.log()
        assert "was lost" not in client.site.log()


@pytest.mark.parametrize("fresh", [False, True])
def test_the_successor_is_there_first(fresh: bool) -> None:
    """Where MAX_WORKERS leaves room, the number of workers never goes down."""
    options = {"MAX_WORKERS": 4, "MAX_TASKS_PER_WORKER": 1}
    env = {"DTL_THREAD": "1"} if fresh else {}  # then a successor takes half a second
    with (
        serving(workers=1, options=options, env=env) as client,
        reading(client.namespace, **options) as backend,
    ):
        first = client.run("worker_pid")
        ring = backend.site().ring

        def workers() -> set[int]:
            entries = ring.registry.attachments()
            return {each.pid for each in entries if each.role is Role.WORKER and each.alive}

        seen: list[int] = []

        def has_gone() -> bool:
            there = workers()
            seen.append(len(there))
            return first not in there

        wait_for(has_gone, LONG_TIMEOUT)
        # There were two, the one that ran and one to spare, or only the first of them yet.
        assert all(later >= min(earlier, 2) for earlier, later in pairwise(seen))
        assert workers()
        assert client.run("worker_pid") != first
        assert "(MAX_TASKS_PER_WORKER)" in client.site.log()


def test_a_worker_is_replaced_once_it_has_grown() -> None:
    """Private memory counts: what a task leaves, not what one has taken for a while."""
    options = {"MAX_WORKERS": 1, "MAX_WORKER_MEMORY": 150 * MIB}
    with serving(workers=1, options=options) as client:
        pid = client.run("worker_pid")
        client.run("take", 300, 0)
        client.run("leak", 10)
        assert client.run("worker_pid") == pid
        assert client.run("leak", 200) == pid
        wait_for(lambda: gone(pid))
        assert client.run("worker_pid") != pid
        assert "bytes of private memory (MAX_WORKER_MEMORY)" in client.site.log()


def test_a_task_that_takes_too_much(tmp_path: Path) -> None:
    """It is FAILED and says why, within seconds; others go on, and the one behind it runs."""
    gate = tmp_path / "gate"
    options = {"MAX_WORKERS": 2, "MAX_TASK_MEMORY": 150 * MIB}
    with serving(workers=2, options=options) as client:
        held, worker = client.hold(gate)
        large = client.enqueue("take", 300, 60)
        behind = client.enqueue("worker_pid")
        path, text = client.error(large)
        assert path == EXCEEDED
        assert "MAX_TASK_MEMORY allows 150.0 MiB" in text
        assert float(text.partition("it had ")[2].partition(" MiB")[0]) >= 300
        client.value(behind)
        gate.touch()
        assert client.value(held) == worker
        line = f"Task id={large} path=tests.site.tasks.take was lost: Worker process "
        wait_for(lambda: line in client.site.log())
        assert client.run("take", 100, 2.2) == 100 * MIB


def test_a_kill_hits_no_other_task() -> None:
    """Tasks that end while the pool looks at them end either way; those between them all run."""
    options = {"MAX_WORKERS": 2, "MAX_TASK_MEMORY": 100 * MIB}
    with serving(workers=1, options=options) as client:
        large, small = [], []
        for number in range(30):
            large.append(client.enqueue("take", 130, 0.05 + 0.03 * number))
            small += client.enqueue_many(5, "worker_pid")
        for each in small:
            client.value(each)
        ends = [client.finished(each, 4 * LONG_TIMEOUT) for each in large]
        failed = [each["errors"][0][0] for each in ends if each["status"] == "FAILED"]
        assert set(failed) == {EXCEEDED}
        assert len(failed) < len(ends)


def test_a_killed_worker_is_not_said_to_have_taken_too_much(tmp_path: Path) -> None:
    """Other causes stay what they are, with the limit set."""
    options = {"MAX_WORKERS": 1, "MAX_TASK_MEMORY": 150 * MIB, "MAX_TASKS_PER_WORKER": 5}
    with serving(workers=1, options=options) as client:
        held, worker = client.hold(tmp_path / "gate")
        kill(worker, signal.SIGKILL)
        path, text = client.error(held)
        assert path.endswith(".WorkerLost")
        assert "was killed by SIGKILL" in text


def test_the_pool_recycles_expired_results() -> None:
    """Their memory is free a few seconds later, although nobody asks for them."""
    options = {"RESULT_TTL": 0.5, "FAILURE_TTL": 600}
    with serving(workers=1, options=options) as client:
        ids = client.enqueue_many(50, "add", 1)
        kept = client.enqueue("interrupt")
        client.error(kept)
        with reading(client.namespace, **options) as backend:
            ring = backend.site().ring
            wait_for(lambda: ring.counts().kept == 1)
            assert ring.counts().expired == len(ids)
            assert ring.upkeep.check() == []
        assert client.status(kept) == "FAILED"
