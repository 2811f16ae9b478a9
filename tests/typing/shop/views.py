"""What a project does with tasks and results, and what type checkers must say of it."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from django.tasks import Task as DjangoTask
from django.tasks import TaskResultStatus, default_task_backend

from django_tasks_local import (
    Progress,
    acancel,
    aenqueue_again,
    aresults,
    await_finished,
    cancel,
    enqueue_again,
    enqueue_on_commit,
    fixed,
    is_cancel_requested,
    metadata_of,
    policy,
    progress_of,
    results,
    wait_finished,
    with_metadata,
)
from django_tasks_local.contrib import q
from django_tasks_local.exceptions import WorkerLost
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.typing import Task, TaskResult

from .tasks import attempt, bare, limited, notes, plain, repeated, retried, total, waits


def enqueue() -> str:
    result = total.enqueue([1, 2], scale=0.5)
    assert_type(result.return_value, float)
    assert_type(result.progress, Progress | None)
    assert_type(result.loss, WorkerLost | None)
    assert_type(result.is_cancelled, bool)
    if result.progress and result.progress.fraction is not None:
        return f"{result.progress.fraction:.0%} {result.progress.message}"
    assert_type(attempt.enqueue(3).return_value, str)
    assert_type(bare.call(3), int)
    return result.id


def stop(result: TaskResult[..., float], result_id: str) -> bool:
    assert_type(result.cancel(), bool)
    assert_type(cancel(result_id, backend="cpu_intensive", running=False), bool)
    assert_type(limited.enqueue(1).return_value, int)
    return cancel(result) or is_cancel_requested()


async def stop_in_the_event_loop(result: TaskResult[..., float]) -> bool:
    return await acancel(result) or await result.acancel(running=False)


def defer() -> Task[[int], int]:
    total.using(run_after=timedelta(days=1)).enqueue([1])
    total.using(run_after=datetime.now(UTC), priority=3, queue_name="reports").enqueue([1])
    return bare.using(run_after=timedelta(minutes=1), backend="cpu_intensive")


def trace(trace_id: str) -> dict[str, Any]:
    result = notes.using(metadata={"trace": trace_id}, priority=3).enqueue(4)
    assert_type(result.return_value, bool)
    assert_type(result.raw_metadata, dict[str, Any])
    traced: Task[[int], int] = with_metadata(bare, {"trace": trace_id})
    traced.enqueue(1)
    assert_type(metadata_of(plain.enqueue(1)), dict[str, Any])
    return result.metadata


def read(result_id: str) -> float | None:
    result = total.get_result(result_id)
    result.refresh()
    return result.progress.fraction if result.progress else None


def wait() -> float:
    result = total.enqueue([1]).wait_finished(timedelta(seconds=5))
    assert_type(result.return_value, float)
    assert_type(wait_finished(total.enqueue([1]), timeout=5).progress, Progress | None)
    return wait_finished(plain.enqueue(1), 0.5).return_value


async def wait_in_the_event_loop() -> str:
    result = await (await attempt.aenqueue(1)).await_finished()
    assert_type(result.return_value, str)
    return (await await_finished(result, timeout=1)).return_value


def order() -> None:
    enqueue_on_commit(total, [1, 2], using="default", scale=0.5)
    enqueue_on_commit(plain.using(priority=3), 1)


def board() -> list[str]:
    running = results("cpu_intensive", status=TaskResultStatus.RUNNING, limit=5)
    done = results(status=["SUCCESSFUL", TaskResultStatus.FAILED], task=total, queue_name="reports")
    assert_type(running, list[LocalTaskResult])
    return [f"{each.id} {each.task.module_path} {each.progress}" for each in running + done]


async def board_in_the_event_loop() -> int:
    return len(await aresults(task="shop.tasks.plain", limit=None))


def show(result: TaskResult[..., float]) -> str:
    return result.progress.message if result.progress else f"{result.return_value:.1f}"


async def in_the_event_loop() -> None:
    result = await waits.aenqueue(1.5)
    assert_type(result.progress, Progress | None)
    again = await waits.aget_result(result.id)
    await again.arefresh()
    show(await total.aget_result(result.id))


def any_backend(task: DjangoTask[..., Any]) -> Progress | None:
    return progress_of(task.enqueue()) or progress_of(default_task_backend.get_result("1"))


def with_the_decorator_of_django() -> Progress | None:
    any_backend(total)
    result = plain.enqueue(1)
    print(result.progress)  # type: ignore[attr-defined]
    plain.using(run_after=timedelta(1))  # type: ignore[arg-type]
    return progress_of(result)


async def again() -> int:
    assert_type(enqueue_again(total.enqueue([1])).return_value, float)
    await aenqueue_again(repeated.enqueue(1))
    return retried.enqueue(1).attempts


def finished(task: q.Task) -> None:
    print(task.name, task.time_taken(), task.result)


def by_the_names_of_django_q(numbers: list[int]) -> float:
    task_id = q.async_task("math.copysign", 2, -2, hook=finished, group="signs", timeout=5)
    assert_type(q.async_iter(abs, numbers, q_options={"timeout": 5}), str)
    assert_type(q.fetch_group("signs", failures=False, wait=-1, count=3), list[q.Task])
    if task := q.fetch(task_id, wait=200):
        return task.time_taken()
    return float(q.result(task_id) or 0)


def mistakes() -> None:
    q.async_task(3)  # type: ignore[arg-type]
    q.async_task("math.sqrt", 4, hook=total)  # type: ignore[arg-type]
    q.fetch(3)  # type: ignore[arg-type]
    policy(backoff=5)  # type: ignore[arg-type]
    policy(retry_on="OSError")  # type: ignore[arg-type]
    policy(max_attempts="3")  # type: ignore[arg-type]
    fixed("3")  # type: ignore[arg-type]
    enqueue_again("id")  # type: ignore[type-var]
    total.enqueue(["1"])  # type: ignore[list-item]
    total.enqueue([1], scales=1)  # type: ignore[call-arg]
    total.using(run_after=5)  # type: ignore[arg-type]
    attempt.enqueue("3")  # type: ignore[arg-type]
    total.using(metadata=[1])  # type: ignore[arg-type]
    notes.enqueue("3")  # type: ignore[arg-type]
    cancel(3)  # type: ignore[arg-type]
    policy(timeout="3")  # type: ignore[arg-type]
    progress_of("id")  # type: ignore[arg-type]
    bare.enqueue(1).wait_finished("5")  # type: ignore[arg-type]
    wait_finished(1)  # type: ignore[type-var]
    enqueue_on_commit("total")  # type: ignore[arg-type]
    results(limit="5")  # type: ignore[arg-type]
