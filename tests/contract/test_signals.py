"""The three signals: which, where, in what order, and receivers that raise."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.tasks import TaskResultStatus
from django.tasks.signals import task_enqueued

from tests import tasks
from tests.contract.conftest import INLINE_TOO, Bench, finished
from tests.support import wait_for


@pytest.fixture
def enqueued() -> Iterator[list[tuple[type, Any]]]:
    """What task_enqueued has told."""
    heard: list[Any] = []

    def hear(sender: type, task_result: Any, **_: Any) -> None:
        heard.append((sender, task_result))

    task_enqueued.connect(hear)
    yield heard
    task_enqueued.disconnect(hear)


def lines_of(bench: Bench, task: Any, *args: Any) -> tuple[Any, list[list[str]]]:
    """The finished result, and the lines that the receivers in tests/tasks.py wrote for it."""
    path = bench.gates / "signals"
    result = finished(bench.enqueue(task, str(path), *args))
    wait_for(lambda: "finished" in path.read_text())  # It is sent after the outcome is stored.
    return result, [line.split() for line in path.read_text().splitlines()]


def test_enqueued(any_bench: Bench, enqueued: list[Any]) -> None:
    """task_enqueued is sent by the enqueuing process, with the backend's class as sender."""
    result = any_bench.enqueue(tasks.add, 1)
    ((sender, told),) = enqueued
    assert sender is type(any_bench.backend)
    assert told.id == result.id
    assert told.enqueued_at is not None


def test_enqueued_is_ready(bench: Bench, enqueued: list[Any]) -> None:
    """At that moment the result is READY, and it is the one that enqueue returns."""
    result = bench.enqueue(tasks.nothing)
    assert enqueued[0][1] is result
    assert result.status == TaskResultStatus.READY


@pytest.mark.parametrize("outcome", ["return", "raise"])
def test_started_and_finished(any_bench: Bench, outcome: str) -> None:
    """Started, the task, finished, in one process; a failed one inside the except block."""
    result, lines = lines_of(any_bench, tasks.signalled, outcome)
    sender = type(any_bench.backend).__name__
    started, ran, ended = lines
    pid = started[3]
    assert started == ["started", sender, "RUNNING", pid, "None"]
    assert ran == ["task"]
    failed = outcome == "raise"
    status = "FAILED" if failed else "SUCCESSFUL"
    assert ended == ["finished", sender, status, pid, "ValueError" if failed else "None"]
    assert result.status == status
    assert (pid == str(os.getpid())) == (any_bench.alias != "process")


@INLINE_TOO
def test_receivers_that_raise_change_nothing(bench: Bench) -> None:
    """A receiver that raises, SystemExit included, is logged, and the task runs to its end."""
    bench.set_workers(1)
    result, lines = lines_of(bench, tasks.signalled_badly)
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert [line[0] for line in lines] == ["started", "task", "finished"]
    assert bench.run(tasks.nothing).worker_ids == result.worker_ids


@INLINE_TOO
def test_enqueued_receiver_that_raises(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A receiver of task_enqueued that raises is logged; enqueue returns the result."""

    def fail(**_: Any) -> None:
        raise RuntimeError("a bad receiver")

    task_enqueued.connect(fail)
    try:
        result = bench.enqueue(tasks.add, 1)
    finally:
        task_enqueued.disconnect(fail)
    assert "a bad receiver" in caplog.text
    assert finished(result).return_value == 1
