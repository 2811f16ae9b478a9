"""Tasks with the decorator of django_tasks_local.typing, and one with Django's."""

from datetime import timedelta
from typing import Any

from django.tasks import TaskContext
from django.tasks import TaskResult as DjangoResult
from django.tasks import task as django_task

from django_tasks_local import (
    check_cancelled,
    current_result_id,
    exponential,
    metadata_of,
    policy,
    report_progress,
    track,
)
from django_tasks_local.typing import TaskContext as LocalContext
from django_tasks_local.typing import task


@task
def bare(number: int) -> int:
    return number


@task(backend="cpu_intensive", priority=5)
def total(numbers: list[int], *, scale: float = 1.0) -> float:
    return sum(number * scale for number in track(numbers, message="adding"))


@task(takes_context=True)
def attempt(context: TaskContext[Any, Any], number: int) -> str:
    report_progress(number, 10, "half way")
    return f"{context.attempt} {current_result_id.get()}"


@task(takes_context=True)
def notes(context: LocalContext[Any, Any], rows: int) -> bool:
    context.metadata["rows"] = rows
    context.save_metadata()
    metadata_of(context)["rows"] = rows + 1
    return context.metadata_modified


@task()
async def waits(seconds: float) -> None:
    report_progress(seconds)


@task
@policy(timeout=timedelta(minutes=1))
def limited(number: int) -> int:
    check_cancelled()
    return number


def in_a_minute(exception: BaseException, task_result: DjangoResult[..., Any]) -> timedelta | None:
    return None if task_result.attempts > 3 else timedelta(minutes=1)


@task
@policy(max_attempts=5, backoff=in_a_minute, retry_on=(OSError, TimeoutError), never=EOFError)
def retried(number: int) -> int:
    return number


@task
@policy(max_attempts=3, backoff=exponential(base=2, maximum=timedelta(hours=1)), retry_lost=True)
def repeated(number: int) -> int:
    return number


@django_task(backend="cpu_intensive")
def plain(number: int) -> int:
    return number
