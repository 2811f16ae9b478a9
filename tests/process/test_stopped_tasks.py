"""Workers that are killed because of what they run: nothing else is hit, and the reason is told."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from django.tasks import TaskResultStatus

from django_tasks_local.exceptions import TaskCancelled, TaskTimeout, WorkerLost
from tests import stopped_tasks, tasks
from tests.contract.conftest import Bench, finished
from tests.support import LONG_TIMEOUT, wait_for

SUCCESSFUL, FAILED = TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """ProcessPoolBackend."""
    made = Bench("process", tmp_path)
    yield made
    made.close()


def error_of(result: Any) -> Any:
    """The class of a result's error, None for none."""
    return result.errors[0].exception_class if result.errors else None


@pytest.mark.parametrize(
    "task", [stopped_tasks.compute_in_c, stopped_tasks.swallow_every_exception]
)
def test_what_cannot_be_interrupted_is_killed(bench: Bench, task: Any) -> None:
    """Within the limit, the grace and a second; the text says so, and the next task runs."""
    bench.configure(MAX_WORKERS=1, TIMEOUT_GRACE=1)
    bench.run(tasks.nothing)
    result, behind = bench.enqueue(task), bench.enqueue(tasks.add, 4)
    began_s = monotonic()
    finished(result, LONG_TIMEOUT)
    assert 1.9 < monotonic() - began_s < 4
    assert error_of(result) is TaskTimeout
    text = result.errors[0].traceback
    assert "its time limit is 1 s" in text
    assert "its worker process was killed" in text
    assert (result.loss, result.is_cancelled) == (None, False)
    assert finished(behind).return_value == 4
    assert behind.worker_ids != result.worker_ids


@pytest.mark.parametrize("grace_s", [0, 0.005, 5])
def test_tasks_that_end_near_their_limit(bench: Bench, grace_s: float) -> None:
    """A thousand in all: each is SUCCESSFUL or TaskTimeout, and no death meets another task."""
    bench.configure(MAX_WORKERS=2, TIMEOUT_GRACE=grace_s)
    rng = random.Random(grace_s)
    results = []
    for _ in range(334):
        results.append(bench.enqueue(stopped_tasks.end_near_its_limit, rng.uniform(0.01, 0.03)))
        results.append(bench.enqueue(tasks.add, 5))
    for result in results:
        finished(result, LONG_TIMEOUT)
    near, others = results[::2], results[1::2]
    assert {error_of(result) for result in near} == {None, TaskTimeout}
    assert {result.return_value for result in others} == {5}


def test_a_task_that_uses_the_alarm_itself(bench: Bench) -> None:
    """The pool tells it, and it is not killed for that."""
    bench.configure(MAX_WORKERS=1)
    result = bench.run(stopped_tasks.use_the_alarm_itself)
    assert error_of(result) is TaskTimeout
    assert "killed" not in result.errors[0].traceback


def test_what_is_cancelled_and_goes_on_is_killed(bench: Bench) -> None:
    """After the grace, with all the rest of its group, and told as cancelled."""
    bench.configure(MAX_WORKERS=1, TIMEOUT_GRACE=2)
    result = bench.enqueue(stopped_tasks.compute_in_c)
    wait_for(lambda: result.refresh() or result.status == TaskResultStatus.RUNNING)
    assert result.cancel() is True
    assert result.cancel() is True
    finished(result)
    assert result.is_cancelled
    assert error_of(result) is TaskCancelled
    assert bench.value(tasks.add, 6) == 6


def kill_a_worker(results: list[Any]) -> None:
    """Kills that of some task that runs, if any does."""

    def killed() -> bool:
        for result in results:
            result.refresh()
        for each in results:
            if each.status == TaskResultStatus.RUNNING:
                # It may be gone: the last one killed, whose task its pool has not settled yet.
                with suppress(ProcessLookupError):
                    os.kill(int(each.worker_ids[0].split("-")[-2]), signal.SIGKILL)
                    return True
        return False

    wait_for(killed)


def test_a_storm_of_cancellations(bench: Bench, tmp_path: Path) -> None:
    """Waiting, just claimed, running or ending, with workers killed in between: each ends once.

    Who was told True finds it cancelled, and nobody else does.
    """
    bench.configure(MAX_WORKERS=2, TIMEOUT_GRACE=5)
    rng = random.Random(1)
    results = [
        bench.enqueue(
            stopped_tasks.sleep_in_small_steps, str(tmp_path / str(n)), rng.uniform(0, 0.02)
        )
        for n in range(150)
    ]
    told: dict[str, bool] = {}

    def cancel_some(number: int) -> None:
        rng = random.Random(number)
        for result in rng.sample(results[number::2], 50):
            backend = bench.backend
            wait_for(lambda: rng.random() < 0.3)
            told[result.id] = backend.cancel(result.id)

    threads = [threading.Thread(target=cancel_some, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        kill_a_worker(results)
    for thread in threads:
        thread.join()
    for result in results:
        finished(result, LONG_TIMEOUT)
    assert len(told) == 100
    for number, result in enumerate(results):
        cancelled = told.get(result.id, False)
        assert result.is_cancelled == cancelled
        right = {TaskCancelled} if cancelled else {None, WorkerLost}
        assert error_of(result) in right
        if result.started_at is None:
            assert not (tmp_path / f"{number}.running").exists()
    assert any(told.values())
