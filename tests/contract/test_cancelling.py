"""Tasks can be cancelled: those that wait never start, those that run are asked to stop."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.tasks import TaskResultStatus, task_backends
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_finished
from django.test import override_settings

from django_tasks_local import acancel, cancel, check_cancelled, is_cancel_requested
from django_tasks_local.exceptions import TaskCancelled
from tests import stopped_tasks, tasks
from tests.contract.conftest import INLINE_TOO, Bench, finished
from tests.support import wait_for

UNKNOWN = "8a5a9c43-0a3f-4ad0-8f4b-4c0e4a7ac3a1"


@pytest.fixture
def heard() -> Any:
    """The results for which task_finished is sent in this process."""
    results: list[Any] = []

    def receive(task_result: Any, **_: Any) -> None:
        results.append(task_result)

    task_finished.connect(receive)
    yield results
    task_finished.disconnect(receive)


def running(bench: Bench, task: Any, path: Path) -> Any:
    """The result of a task that runs."""
    result = bench.enqueue(task, str(path))
    wait_for(Path(f"{path}.running").exists)
    result.refresh()
    return result


@pytest.mark.parametrize("delay", [None, timedelta(hours=1)], ids=["waiting", "deferred"])
def test_what_waits_is_taken_out(bench: Bench, delay: Any, heard: list[Any]) -> None:
    """It is FAILED at once, never starts, and the others go on in their order."""
    bench.set_workers(1)
    release = bench.occupy()
    before = bench.enqueue(tasks.add, 1)
    result = bench.on(tasks.add, run_after=delay).enqueue(2)
    after = bench.enqueue(tasks.add, 3)
    assert result.cancel() is True
    result.refresh()
    assert (result.status, result.is_cancelled) == (TaskResultStatus.FAILED, True)
    assert (result.started_at, result.worker_ids, result.attempts) == (None, [], 0)
    assert result.finished_at >= result.enqueued_at
    (error,) = result.errors
    assert error.exception_class is TaskCancelled
    assert error.traceback.endswith("The task was cancelled before it started.")
    assert [(each.id, each.status, each.is_cancelled) for each in heard] == [
        (result.id, TaskResultStatus.FAILED, True)
    ]
    assert result.cancel() is False
    release()
    assert [finished(each).return_value for each in (before, after)] == [1, 3]
    assert len([each for each in heard if each.id == result.id]) == 1


def test_a_running_task_is_asked_to_stop(bench: Bench, tmp_path: Path) -> None:
    """TaskCancelled is raised in it; its worker goes on."""
    bench.set_workers(1)
    result = running(bench, stopped_tasks.ask_until_cancelled, tmp_path / "noted")
    assert result.cancel(running=False) is False
    assert result.cancel() is True
    finished(result)
    assert (tmp_path / "noted").read_text() == "TaskCancelled"
    assert (result.status, result.is_cancelled) == (TaskResultStatus.FAILED, True)
    (error,) = result.errors
    assert error.exception_class is TaskCancelled
    assert not issubclass(TaskCancelled, Exception)
    assert "tests/stopped_tasks.py" in error.traceback
    assert result.cancel() is False
    assert bench.run(tasks.nothing).worker_ids == result.worker_ids


def test_an_async_task_too(bench: Bench, tmp_path: Path) -> None:
    """An async task ends with TaskCancelled, not with asyncio's CancelledError."""
    result = running(bench, stopped_tasks.async_ask_until_cancelled, tmp_path / "noted")
    assert asyncio.run(result.acancel()) is True
    (error,) = finished(result).errors
    assert error.exception_class is TaskCancelled


def test_who_was_told_true_finds_it_cancelled(bench: Bench, tmp_path: Path) -> None:
    """A task that tidies up and returns a value is FAILED all the same."""
    result = running(bench, stopped_tasks.tidy_up_when_cancelled, tmp_path / "noted")
    assert cancel(result) is True
    finished(result)
    assert (tmp_path / "noted").read_text() == "asked: True"
    assert result.errors[0].exception_class is TaskCancelled
    assert result.is_cancelled


def test_the_plain_functions(bench: Bench) -> None:
    """They take a result, or an id with its alias, as text or UUID."""
    release = bench.occupy(2)
    results = [bench.enqueue(tasks.nothing) for _ in range(4)]
    assert cancel(results[0]) is True
    assert cancel(results[1].id, bench.alias) is True
    assert cancel(UUID(results[2].id), backend=bench.alias) is True
    assert asyncio.run(acancel(results[3].id, bench.alias)) is True
    release()
    assert all(finished(result).is_cancelled for result in results)


@INLINE_TOO
@pytest.mark.parametrize("nonsense", [UNKNOWN, "", "x" * 10_000, "é\0", 7, None, b"1"])
def test_unknown_ids(bench: Bench, nonsense: Any) -> None:
    """Whatever is no id of a result here raises TaskResultDoesNotExist."""
    with pytest.raises(TaskResultDoesNotExist):
        cancel(nonsense, backend=bench.alias)


@INLINE_TOO
def test_what_has_ended_is_not_cancelled(bench: Bench) -> None:
    """The answer is False, and nothing changes."""
    result = bench.run(tasks.add, 1, 2)
    assert result.cancel() is False
    result.refresh()
    assert (result.return_value, result.is_cancelled) == (3, False)


def test_room_comes_back(bench: Bench) -> None:
    """Cancelled tasks no longer count against MAX_PENDING."""
    bench.configure(MAX_WORKERS=1, MAX_PENDING=3)
    release = bench.occupy()
    for _ in range(5):
        results = [bench.enqueue(tasks.nothing) for _ in range(3)]
        assert all(result.cancel() for result in results)
    release()


def test_results_of_other_backends() -> None:
    """What Django's own backends have run has ended; what one of them keeps cannot be cancelled."""
    backends = {
        name: {"BACKEND": f"django.tasks.backends.{name}.{name.title()}Backend"}
        for name in ("immediate", "dummy")
    }
    with override_settings(TASKS={"default": backends["immediate"], **backends}):
        assert cancel(tasks.nothing.using(backend="immediate").enqueue()) is False
        result = tasks.nothing.using(backend="dummy").enqueue()
        assert task_backends["dummy"].get_result(result.id) is not None
        with pytest.raises(NotImplementedError, match="'dummy' is a DummyBackend"):
            cancel(result)
        with pytest.raises(NotImplementedError, match="'dummy' is a DummyBackend"):
            cancel(result.id, backend="dummy")


def test_outside_a_task() -> None:
    """Functions that ask can be called from a view or a shell too."""
    check_cancelled()
    assert is_cancel_requested() is False
