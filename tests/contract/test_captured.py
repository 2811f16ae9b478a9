"""`captured_tasks`: what was enqueued while a test ran, on any backend."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.tasks import TaskResultStatus, task_backends
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.test import CapturedTasks, captured_tasks, run_waiting, wait_for
from tests import tasks
from tests.contract.conftest import Bench

HOUR = timedelta(hours=1)


def on(task: Any, **changes: Any) -> Any:
    return task.using(backend="inline", **changes)


def test_on_any_backend(any_bench: Bench) -> None:
    """What was enqueued in the block, and nothing that came after it."""
    with captured_tasks() as captured:
        first = any_bench.enqueue(tasks.add, 1, b=2)
    any_bench.enqueue(tasks.nothing)
    assert [result.id for result in captured] == [first.id]
    assert captured.assert_enqueued_with(any_bench.on(tasks.add), 1, b=2) is captured[0]
    assert wait_for(captured[0]).return_value == 3


def test_what_tasks_enqueue_is_captured() -> None:
    """In the order of enqueue, whichever ended first."""
    with captured_tasks() as captured:
        on(tasks.enqueue_another).enqueue("inline", 5)
    assert [result.task.name for result in captured] == ["enqueue_another", "add"]
    assert [result.task.name for result in captured[1:]] == ["add"]
    assert captured.of(tasks.add) == [captured[1]]


def enqueued(*calls: Any) -> CapturedTasks:
    with captured_tasks() as captured:
        for task, args in calls:
            on(task).enqueue(*args)
    return captured


def test_assertions_that_hold() -> None:
    """Each returns the latest result that it is about."""
    captured = enqueued((tasks.add, [1]), (tasks.add, [2]), (tasks.pid, []))
    assert captured.assert_enqueued(tasks.add).args == [2]
    assert captured.assert_enqueued_with(tasks.add, 1).return_value == 1
    assert captured.assert_enqueued_once(tasks.pid.using(priority=5)).args == []
    captured.assert_not_enqueued(tasks.nothing)
    assert len(captured) == 3
    enqueued().assert_not_enqueued()


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (lambda it: it.assert_enqueued(tasks.nothing), r"tasks\.nothing was not enqueued\."),
        (lambda it: it.assert_enqueued_once(tasks.nothing), r"tasks\.nothing was not enqueued\."),
        (lambda it: it.assert_enqueued_once(tasks.add), r"tasks\.add was enqueued 2 times, not o"),
        (lambda it: it.assert_enqueued_with(tasks.add, 3, b=4), r"tasks\.add\(3, b=4\) was not "),
        (lambda it: it.assert_enqueued_with(tasks.add), r"tasks\.add\(\) was not enqueued\."),
        (lambda it: it.assert_not_enqueued(tasks.add), r"tasks\.add was enqueued\."),
        (lambda it: it.assert_not_enqueued(), r"Tasks were enqueued\."),
    ],
)
def test_assertions_that_fail(check: Any, text: str) -> None:
    """Each says what was enqueued instead."""
    captured = enqueued((tasks.add, [1]), (tasks.add, [2, 3]))
    with pytest.raises(AssertionError, match=text) as raised:
        check(captured)
    assert str(raised.value).endswith("Enqueued: tests.tasks.add(1), tests.tasks.add(2, 3).")


def test_nothing_was_enqueued() -> None:
    """That is said in words."""
    with pytest.raises(AssertionError, match=r"Nothing was enqueued\.$"):
        enqueued().assert_enqueued(tasks.add)


def test_capturing_without_running() -> None:
    """All stays READY; what is waited for is run all the same, and so is what is told to."""
    with captured_tasks(run=False) as captured:
        for priority in (0, 5):
            on(tasks.add, priority=priority).enqueue(priority)
        on(tasks.add, run_after=HOUR).enqueue(3)
        on(tasks.add).enqueue(4)
        assert {result.status for result in captured} == {TaskResultStatus.READY}
        assert wait_for(captured[3]).return_value == 4
        assert [result.args for result in run_waiting(until=timedelta())] == [[5], [0]]
    assert [result.args for result in run_waiting()] == [[3]]


def test_each_block_begins_empty() -> None:
    """What a block has held can be read until the next begins; a block inside shares with it."""
    with captured_tasks() as outer:
        first = on(tasks.add, run_after=HOUR).enqueue(1)
        with captured_tasks(run=False) as inner:
            second = on(tasks.add).enqueue(2)
            assert on(tasks.add).get_result(first.id) == first
        third = on(tasks.add).enqueue(3)
    assert (list(outer), list(inner)) == ([first, second, third], [second])
    assert third.return_value == 3
    assert wait_for(first).return_value == 1
    with captured_tasks():
        assert run_waiting() == []
        with pytest.raises(TaskResultDoesNotExist):
            first.refresh()


def test_a_block_that_raises_ends() -> None:
    """Nothing is captured any more, and tasks run again."""
    with pytest.raises(ZeroDivisionError), captured_tasks(run=False) as captured:
        _ = 1 / 0
    assert on(tasks.add).enqueue(1).return_value == 1
    captured.assert_not_enqueued()
    backend: Any = task_backends["inline"]
    backend.close()
