"""What a task meets when it runs: arguments, context, connections, times."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from django.tasks import TaskResultStatus
from django.test import override_settings
from django.utils import timezone as django_timezone

from django_tasks_local import current_result_id
from tests import tasks
from tests.contract.conftest import Bench, finished
from tests.support import wait_for


@pytest.mark.parametrize("task", [tasks.add, tasks.async_add], ids=["sync", "async"])
def test_returns_the_value(any_bench: Bench, task: Any) -> None:
    """A function and a coroutine function both run, and their value is the return value."""
    result = any_bench.run(task, 2, b=3)
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value == 5
    assert result.errors == []


def test_enqueue_without_arguments(bench: Bench) -> None:
    """The backend's own enqueue and aenqueue take a task alone."""
    task = bench.on(tasks.echo)
    results = [
        bench.backend.enqueue(task),
        bench.backend.enqueue(task, [1]),
        bench.backend.enqueue(task, kwargs={"a": 1}),
        asyncio.run(bench.backend.aenqueue(task)),
    ]
    called_with = [finished(result).return_value[:2] for result in results]
    assert called_with == [((), {}), ((1,), {}), ((), {"a": 1}), ((), {})]


@pytest.mark.parametrize(
    "task", [tasks.describe_context, tasks.async_describe_context], ids=["sync", "async"]
)
def test_takes_context(any_bench: Bench, task: Any) -> None:
    """A task that takes the context gets it first: attempt 1, its own result, RUNNING."""
    result = any_bench.run(task, extra="x")
    assert result.return_value == {
        "attempt": 1,
        "id": result.id,
        "status": "RUNNING",
        "workers": 1,
        "args": [],
        "kwargs": {"extra": "x"},
        "extra": "x",
    }


def test_times_and_worker(any_bench: Bench) -> None:
    """Times are in order, the attempt is the start, and exactly one worker has run the task."""
    before = django_timezone.now()
    result = any_bench.run(tasks.nothing)
    moments = [before, result.enqueued_at, result.started_at, result.finished_at]
    assert moments == sorted(moments)
    assert result.finished_at <= django_timezone.now()
    assert result.last_attempted_at == result.started_at
    assert result.attempts == len(result.worker_ids) == 1
    assert result.worker_ids[0]


def test_ready_has_no_times_yet(bench: Bench) -> None:
    """A READY result has been enqueued, and nothing else has happened to it."""
    bench.set_workers(1)
    release = bench.occupy()
    for result in (waiting := bench.enqueue(tasks.nothing), bench.backend.get_result(waiting.id)):
        assert result.status == TaskResultStatus.READY
        assert not result.is_finished
        assert result.enqueued_at is not None
        assert (result.started_at, result.finished_at, result.last_attempted_at) == (None,) * 3
        assert (result.attempts, result.worker_ids, result.errors) == (0, [], [])
        assert result.progress is None
        with pytest.raises(ValueError, match="not finished"):
            _ = result.return_value
    release()
    finished(waiting)


def test_running(bench: Bench) -> None:
    """Between start and end the status is RUNNING, with a start, a worker and no end yet."""
    gate = bench.gates / "gate"
    result = bench.enqueue(tasks.hold, str(gate))
    wait_for((bench.gates / "gate.running").exists)
    result.refresh()
    assert result.status == TaskResultStatus.RUNNING
    assert result.started_at is not None
    assert result.finished_at is None
    assert result.attempts == 1
    gate.touch()
    assert finished(result).status == TaskResultStatus.SUCCESSFUL


@pytest.mark.parametrize("task", [tasks.own_result_id, tasks.async_own_result_id])
def test_knows_its_own_id(bench: Bench, task: Any) -> None:
    """Inside a task `current_result_id` is the id of its own result, outside it is unset."""
    result = bench.run(task)
    assert result.return_value == result.id
    with pytest.raises(LookupError):
        current_result_id.get()


def test_script_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE_SCRIPT_NAME holds in tasks as in the main thread after setup()."""
    assert bench.value(tasks.script_prefix) == "/"
    monkeypatch.setenv("DTL_TESTS_PREFIX", "/shop")
    bench.close()
    with override_settings(FORCE_SCRIPT_NAME="/shop"):
        bench.configure(MAX_WORKERS=1)
        assert bench.value(tasks.script_prefix) == "/shop/"
        assert bench.value(tasks.script_prefix) == "/shop/"
        bench.close()


def test_context_variables_stay_inside(bench: Bench) -> None:
    """A context variable that one task sets is not seen by the next one in the same worker."""
    bench.set_workers(1)
    assert [bench.value(tasks.swap_context_variable, v) for v in "ab"] == ["unset", "unset"]


def test_closes_database_connections(bench: Bench) -> None:
    """A connection that a task opened is not left open for the next one (CONN_MAX_AGE is 0)."""
    bench.set_workers(1)
    assert [bench.value(tasks.use_database) for _ in range(2)] == [False, False]


def test_a_task_may_enqueue_another(bench: Bench) -> None:
    """A running task enqueues on its own backend, and the result is to be had from there."""
    other_id = bench.value(tasks.enqueue_another, bench.alias, 21)
    assert finished(bench.backend.get_result(other_id)).return_value == 42


class Odd(tuple[int, ...]):
    """A class of the user's own."""

    __slots__ = ()


@pytest.mark.parametrize(
    "argument",
    [
        (1, (2, [3])),
        {1: "int key", None: "none key"},
        datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
        datetime(2026, 7, 2, 3, 4, tzinfo=timezone(timedelta(hours=5))),
        timedelta(days=1),
        UUID(int=7),
        b"\x00\xff",
        {1, 2},
        float("inf"),
        "\ud800 surrogate",
        Odd((1, 2)),
        None,
    ],
    ids=repr,
)
def test_arguments_arrive_unchanged(bench: Bench, argument: Any) -> None:
    """The task gets exactly what was passed, and the results show it, by type and by value."""
    result = bench.enqueue(tasks.echo, argument, key=argument)
    for shown in (result, finished(bench.backend.get_result(result.id))):
        assert shown.args == [argument]
        assert type(shown.args[0]) is type(argument)
        assert shown.kwargs == {"key": argument}
        assert type(shown.kwargs["key"]) is type(argument)
        assert isinstance(shown.args, list)
    args, kwargs, types = finished(result).return_value
    assert args == (argument,)
    assert kwargs == {"key": argument}
    assert types == [type(argument).__name__]


def test_large_values(bench: Bench) -> None:
    """Arguments and return values of a megabyte go through."""
    bench.configure()
    value = "x" * 2**20
    assert bench.run(tasks.echo, value).return_value[0] == (value,)


def test_path_names_the_plain_function(bench: Bench) -> None:
    """`t = task(f)` works too: the module's name for it leads to the function, not to the task."""
    result = bench.run(tasks.wrapped_plain, 1)
    assert result.return_value == 2
    assert bench.backend.get_result(result.id).task == bench.on(tasks.wrapped_plain)


def test_the_result_knows_its_task(bench: Bench) -> None:
    """A result read back has the task with all the fields it was enqueued with."""
    task = bench.on(tasks.urgent_report, priority=-3, run_after=timedelta(0))
    result = task.enqueue()
    read = bench.backend.get_result(result.id)
    assert read.task == result.task
    assert (read.task.priority, read.task.queue_name) == (-3, "reports")
    assert read.task.backend == bench.alias
    assert read.backend == bench.alias
