"""Unique tasks: of those that are the same, one waits or runs."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.tasks import TaskResultStatus, task_backends
from django.tasks.signals import task_enqueued

from django_tasks_local.exceptions import AlreadyEnqueued, QueueFull
from tests import unique_tasks as tasks
from tests.contract.conftest import INLINE_TOO, Bench, finished
from tests.support import end, wait_for


@pytest.fixture
def enqueued() -> Iterator[list[str]]:
    """The ids for which task_enqueued is sent."""
    ids: list[str] = []

    def receive(task_result: Any, **_: Any) -> None:
        ids.append(task_result.id)

    task_enqueued.connect(receive)
    yield ids
    task_enqueued.disconnect(receive)


def test_the_result_that_is_there(bench: Bench, enqueued: list[str]) -> None:
    """While the task waits, `enqueue` returns its result; nothing is stored, nothing is sent."""
    release = bench.occupy(2)
    first = bench.enqueue(tasks.bill, 1, note="a")
    count = len(enqueued)
    second = bench.enqueue(tasks.bill, 1, "a")
    third = asyncio.run(bench.on(tasks.bill).aenqueue(order_id=1, note="a"))
    assert first == second == third
    assert (second.task, second.status) == (first.task, TaskResultStatus.READY)
    assert (second.args, second.kwargs) == ([1], {"note": "a"})
    other = bench.enqueue(tasks.bill, 2, "a")
    assert other.id != first.id
    assert enqueued[count:] == [other.id]
    release()
    assert finished(second).return_value == finished(first).return_value == [1, "a"]


def test_while_it_runs_and_after_its_end(bench: Bench, tmp_path: Path) -> None:
    """A running task holds its key; its end frees it, however it ends."""
    gate = str(tmp_path / "gate")
    first = bench.enqueue(tasks.hold, gate)
    wait_for(Path(f"{gate}.running").exists)
    second = bench.enqueue(tasks.hold, gate)
    assert (second.id, second.status) == (first.id, TaskResultStatus.RUNNING)
    Path(gate).touch()
    finished(first)
    third = bench.enqueue(tasks.hold, gate)
    assert third.id != first.id
    assert finished(third).is_finished


@INLINE_TOO
def test_a_failure_frees_the_key(bench: Bench) -> None:
    """As a success does."""
    first = bench.run(tasks.fail, 1)
    assert bench.run(tasks.fail, 1).id != first.id


@INLINE_TOO
def test_a_cancellation_frees_the_key(bench: Bench) -> None:
    """Of a task that waits, or is deferred."""
    task = bench.on(tasks.bill, run_after=timedelta(hours=1))
    first = task.enqueue(1)
    assert task.enqueue(1).id == first.id
    assert first.cancel()
    second = bench.run(tasks.bill, 1)
    assert second.id != first.id
    assert second.return_value == [1, None]


def test_a_task_that_is_tried_again_keeps_its_key(bench: Bench) -> None:
    """Between two attempts, too."""
    first = bench.enqueue(tasks.fail_and_wait, 1)

    def waits_again() -> bool:
        first.refresh()
        return bool(first.attempts == 1 and first.status == TaskResultStatus.READY)

    wait_for(waits_again)
    assert bench.enqueue(tasks.fail_and_wait, 1).id == first.id
    assert first.cancel()
    assert bench.enqueue(tasks.fail_and_wait, 1).id != first.id


def test_raise(bench: Bench) -> None:
    """A policy may say that a second one is an error."""
    release = bench.occupy(2)
    first = bench.enqueue(tasks.strict, 7, note="a")
    with pytest.raises(AlreadyEnqueued) as caught:
        bench.enqueue(tasks.strict, 7, note="b")
    error = caught.value
    facts = (error.path, error.key, error.result_id)
    assert facts == ("tests.unique_tasks.strict", 7, first.id)
    release()
    finished(first)
    assert bench.run(tasks.strict, 7).return_value == 7


def test_a_function_decides(bench: Bench) -> None:
    """Its key, or None for a task that is not unique."""
    release = bench.occupy(2)
    first = bench.enqueue(tasks.by_function, 12)
    assert bench.enqueue(tasks.by_function, 22).id == first.id
    assert bench.enqueue(tasks.by_function, 13).id != first.id
    assert bench.enqueue(tasks.by_function, 0).id != bench.enqueue(tasks.by_function, 0).id
    release()


def test_a_key_function_that_raises(bench: Bench) -> None:
    """`enqueue` says so, and stores nothing."""
    release = bench.occupy(2)
    with pytest.raises(ValueError, match="its key cannot be made: ZeroDivisionError"):
        bench.enqueue(tasks.by_function, "x")
    with pytest.raises(ValueError, match="a value of type object cannot be part of a key"):
        bench.enqueue(tasks.bill, object())
    release()
    bench.configure(MAX_WORKERS=1, MAX_PENDING=1)
    release = bench.occupy()
    assert bench.enqueue(tasks.by_function, 1).status == TaskResultStatus.READY
    with pytest.raises(QueueFull):
        bench.enqueue(tasks.by_function, 2)
    assert bench.enqueue(tasks.by_function, 1).status == TaskResultStatus.READY  # not one more
    release()


def test_many_threads_at_once(bench: Bench) -> None:
    """One task, whoever was first."""
    release = bench.occupy(2)
    barrier, ids = threading.Barrier(16), []

    def enqueue() -> None:
        barrier.wait()
        ids.append(task_backends[bench.alias].enqueue(bench.on(tasks.bill), [5], {}).id)

    threads = [threading.Thread(target=enqueue) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 16
    assert len(set(ids)) == 1
    release()


@pytest.mark.parametrize("bench", ["process"], indirect=True)
def test_the_key_of_a_killed_worker_is_free_at_once(bench: Bench, tmp_path: Path) -> None:
    """A process that enqueues once the worker is dead gets a task of its own."""
    gate = str(tmp_path / "gate")
    first = bench.enqueue(tasks.hold, gate)
    wait_for(Path(f"{gate}.running").exists)
    first.refresh()
    end([int(first.worker_ids[0].split("-")[-2])])
    Path(f"{gate}.running").unlink()
    second = bench.enqueue(tasks.hold, gate)
    assert second.id != first.id
    first.refresh()
    assert first.loss is not None
    Path(gate).touch()
    assert finished(second).status == TaskResultStatus.SUCCESSFUL


def test_django_runs_it_inline() -> None:
    """On other backends a policy means nothing."""
    task = tasks.bill.using(backend="immediate")
    assert task.enqueue(1).return_value == task.enqueue(1).return_value == [1, None]
