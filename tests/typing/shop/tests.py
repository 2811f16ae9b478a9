"""What a project's tests do with the test kit, and what type checkers must say of it."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from django.tasks import TaskResult as DjangoResult

from django_tasks_local import Progress
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.test import CapturedTasks, captured_tasks, run_waiting, wait_for

from .tasks import attempt, bare, plain, total


def test_what_is_enqueued() -> None:
    with captured_tasks() as tasks:
        total.enqueue([1, 2], scale=0.5)
    assert_type(tasks, CapturedTasks)
    assert_type(tasks[0], DjangoResult[..., Any])
    assert_type(tasks.assert_enqueued_with(total, [1, 2], scale=0.5), DjangoResult[..., Any])
    tasks.assert_enqueued(plain)
    tasks.assert_enqueued_once(attempt)
    tasks.assert_not_enqueued(bare)
    tasks.assert_not_enqueued()
    assert [result.id for result in tasks.of(plain)] == [result.id for result in tasks[1:]]


def test_what_waits() -> None:
    with captured_tasks(run=False):
        result = total.using(run_after=timedelta(days=1)).enqueue([1])
        assert_type(run_waiting(until=timedelta(hours=1)), list[LocalTaskResult])
        run_waiting(datetime.now(UTC))
    assert_type(wait_for(result).return_value, float)
    assert_type(wait_for(result, timeout=timedelta(seconds=5)).progress, Progress | None)
    assert_type(wait_for(plain.enqueue(1)).return_value, int)


def test_mistakes(tasks: CapturedTasks) -> None:
    tasks.assert_enqueued("total")  # type: ignore[arg-type]
    wait_for("id")  # type: ignore[type-var]
    run_waiting(until=3)  # type: ignore[arg-type]
