"""A task that runs longer than it may is stopped, and FAILED with TaskTimeout."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.tasks import TaskResultStatus, default_task_backend, task, task_backends
from django.test import override_settings

from django_tasks_local.exceptions import TaskTimeout
from tests import stopped_tasks, tasks
from tests.contract.conftest import INLINE_TOO, Bench

DUMMY = "django.tasks.backends.dummy.DummyBackend"
IMMEDIATE = "django.tasks.backends.immediate.ImmediateBackend"


@INLINE_TOO
@pytest.mark.parametrize(
    "slow", [stopped_tasks.ask_beyond_its_limit, stopped_tasks.report_beyond_its_limit]
)
def test_a_task_that_asks_is_stopped_at_its_limit(bench: Bench, tmp_path: Path, slow: Any) -> None:
    """TaskTimeout is raised in the task, whose own frames are shown; its worker goes on."""
    bench.set_workers(1)
    noted = tmp_path / "noted"
    result = bench.run(slow, str(noted))
    assert result.status == TaskResultStatus.FAILED
    assert noted.read_text() == "TaskTimeout"
    (error,) = result.errors
    assert error.exception_class is TaskTimeout
    assert issubclass(TaskTimeout, TimeoutError)
    lines = error.traceback.splitlines()
    assert "tests/stopped_tasks.py" in lines[1]
    assert "stopping.py" not in error.traceback
    assert error.traceback.endswith(" 0.2 s, by its policy(timeout=...) or the option TIMEOUT.\n")
    assert not result.is_cancelled
    assert bench.run(tasks.nothing).worker_ids == result.worker_ids


@INLINE_TOO
def test_an_async_task_too(bench: Bench) -> None:
    """An async task ends with TaskTimeout, not with CancelledError."""
    (error,) = bench.run(stopped_tasks.async_beyond_its_limit).errors
    assert error.exception_class is TaskTimeout
    assert "tests/stopped_tasks.py" in error.traceback


@INLINE_TOO
def test_a_task_that_swallows_it_fails(bench: Bench) -> None:
    """Whatever a task returns after its limit, it is FAILED."""
    (error,) = bench.run(stopped_tasks.swallow_its_limit).errors
    assert error.exception_class is TaskTimeout


@INLINE_TOO
def test_within_the_limit(bench: Bench) -> None:
    """A limit that is not reached changes nothing."""
    assert bench.value(stopped_tasks.within_its_limit, 7) == 7


@INLINE_TOO
def test_the_limit_of_an_alias(bench: Bench, tmp_path: Path) -> None:
    """TIMEOUT counts for functions that say nothing; what a function says goes before it."""
    bench.configure(MAX_WORKERS=1, TIMEOUT=0.1)
    result = bench.run(stopped_tasks.ask_until_cancelled, str(tmp_path / "noted"))
    assert "its time limit is 0.1 s" in result.errors[0].traceback
    assert bench.value(stopped_tasks.within_its_limit, 8) == 8
    assert bench.value(stopped_tasks.ask_for_a_while, 0.2)
    bench.configure(MAX_WORKERS=1, TIMEOUT=50)
    (error,) = bench.run(stopped_tasks.ask_beyond_its_limit, str(tmp_path / "noted")).errors
    assert "its time limit is 0.2 s" in error.traceback


@INLINE_TOO
def test_no_limit_in_using(bench: Bench) -> None:
    """A policy belongs to the function."""
    with pytest.raises(TypeError, match="timeout"):
        bench.on(stopped_tasks.within_its_limit, timeout=5)


@pytest.mark.parametrize("backend", [DUMMY, IMMEDIATE])
def test_other_backends_do_not_see_policies(backend: str) -> None:
    """The same tasks can be enqueued to Django's own backends."""
    with override_settings(TASKS={"default": {"BACKEND": backend}}):
        assert type(task_backends["default"]) is not None
        result = stopped_tasks.within_its_limit.enqueue(9)
        assert result.status == (
            TaskResultStatus.READY if backend == DUMMY else TaskResultStatus.SUCCESSFUL
        )
        assert default_task_backend.supports_async_task is not None


@INLINE_TOO
def test_django_s_keyword(bench: Bench) -> None:
    """From Django 6.1 on `@task(timeout=…)` says the same, and Django's text where it does not."""
    from django_tasks_local.backends.task_class import HAS_KEYWORDS
    from django_tasks_local.policies import policy_of

    decorate: Any = task
    function = stopped_tasks.within_its_limit.func
    assert policy_of(function).timeout == 60
    if not HAS_KEYWORDS:
        with pytest.raises(TypeError, match="timeout"):
            decorate(backend=bench.alias, timeout=60)(function)
        return
    made = decorate(backend=bench.alias, timeout=timedelta(minutes=1))(function)
    assert policy_of(made.func).timeout == 60
