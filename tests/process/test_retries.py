"""Tasks that are tried again, in a pool: when their worker was killed, and over its end."""

import os
import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.tasks import TaskResultStatus

from django_tasks_local.exceptions import TaskTimeout, WorkerLost
from tests import retried_tasks, stopped_tasks, tasks
from tests.contract.conftest import Bench, finished
from tests.contract.shared_ring import POOL
from tests.support import (
    LONG_TIMEOUT,
    MARK,
    command_of,
    end,
    kill,
    marked_pids,
    parent_of,
    wait_for,
)

SUCCESSFUL, FAILED = TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """ProcessPoolBackend."""
    made = Bench("process", tmp_path)
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a task notes its attempts."""
    return str(tmp_path / "attempts")


def pids(path: str) -> list[int]:
    """The workers that a task has noted."""
    return [*map(int, Path(path).read_text().split())]


def test_a_killed_worker_s_task_is_tried_again_if_it_may(bench: Bench, path: str) -> None:
    """By another worker, a second later; the log and the errors say what happened."""
    result = bench.run(retried_tasks.killed_once, path)
    assert (result.status, result.return_value, result.attempts) == (SUCCESSFUL, "done", 2)
    assert len(set(pids(path))) == 2
    (error,) = result.errors
    assert error.exception_class is WorkerLost
    assert "was killed by SIGKILL" in error.traceback
    assert "It is tried again: part of its work may have been done." in error.traceback
    assert (result.last_attempted_at - result.started_at).total_seconds() >= 1
    assert result.loss is None


def test_not_for_ever(bench: Bench, path: str) -> None:
    """The last loss is what it is FAILED with."""
    result = finished(bench.enqueue(retried_tasks.killed_always, path), LONG_TIMEOUT)
    assert (result.status, result.attempts, len(pids(path))) == (FAILED, 2, 2)
    assert [error.exception_class for error in result.errors] == [WorkerLost] * 2
    assert result.loss is not None
    assert not result.loss.retried
    assert "It was not run again" in result.errors[1].traceback


def test_not_unasked(bench: Bench, path: str) -> None:
    """Attempts are for exceptions: a death is no reason to do anything twice."""
    result = bench.run(retried_tasks.killed_not_retried, path)
    assert (result.status, result.attempts, len(pids(path))) == (FAILED, 1, 1)
    bench.configure(MAX_ATTEMPTS=2, RETRY_LOST=True)
    result = finished(bench.enqueue(tasks.die), LONG_TIMEOUT)
    assert (result.status, result.attempts) == (FAILED, 2)


def test_killed_at_its_limit(bench: Bench) -> None:
    """A timeout that took a kill is a loss; it is tried again only if losses are."""
    bench.configure(MAX_WORKERS=1, TIMEOUT_GRACE=0.2, MAX_ATTEMPTS=2)
    result = finished(bench.enqueue(stopped_tasks.swallow_every_exception), LONG_TIMEOUT)
    assert (result.status, result.attempts) == (FAILED, 1)
    bench.configure(MAX_WORKERS=1, TIMEOUT_GRACE=0.2, MAX_ATTEMPTS=2, RETRY_LOST=True)
    result = finished(bench.enqueue(stopped_tasks.swallow_every_exception), LONG_TIMEOUT)
    assert (result.status, result.attempts) == (FAILED, 2)
    assert [error.exception_class for error in result.errors] == [TaskTimeout] * 2
    assert all("its worker process was killed" in error.traceback for error in result.errors)


def test_it_waits_without_a_pool(bench: Bench, path: str) -> None:
    """The pool that had its first attempt is killed; the next one has the second."""
    result = bench.enqueue(retried_tasks.pauses_for_seconds, path)

    def waits() -> Any:
        result.refresh()
        return (result.status, result.attempts) == (TaskResultStatus.READY, 1)

    wait_for(waits)
    end([pid for pid in marked_pids(os.environ[MARK]) if POOL in command_of(pid)])
    finished(result, LONG_TIMEOUT)
    assert result.attempts == len(Path(path).read_text().split()) == len(result.errors) + 1
    assert (result.status, result.return_value) == (SUCCESSFUL, "done")


def test_attempts_under_kills(bench: Bench, tmp_path: Path) -> None:
    """Workers die, and once their pool: each attempt is counted once, and none overlap."""
    bench.configure(MAX_WORKERS=3)
    rng, kills = random.Random(1), count(1)
    paths = [tmp_path / str(number) for number in range(12)]
    results = [bench.enqueue(retried_tasks.overlapping, str(path)) for path in paths]

    def kill_one() -> bool:
        mine = [pid for pid in marked_pids(os.environ[MARK]) if POOL in command_of(pid)]
        workers = [pid for pid in mine if parent_of(pid) in mine]
        if workers and (number := next(kills)) <= 20:
            kill(parent_of(workers[0]) if number == 10 else rng.choice(workers))
        for result in results:
            result.refresh()
        return all(result.is_finished for result in results)

    wait_for(kill_one, LONG_TIMEOUT)
    for path, result in zip(paths, results, strict=True):
        noted = path.read_text().splitlines()
        assert "overlap" not in noted
        assert noted.count("start") <= result.attempts == len(result.worker_ids)
        failed = result.attempts - (result.status == SUCCESSFUL)
        assert len(result.errors) == min(failed, 10)
        classes = [error.exception_class for error in result.errors]
        assert set(classes) <= {WorkerLost, retried_tasks.Busy}
        # What was noted before it was raised is an error, or its worker was killed in between.
        assert classes.count(retried_tasks.Busy) <= noted.count("busy")
