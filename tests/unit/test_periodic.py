"""The tasks of a SCHEDULE: what `manage.py check` says of them, and what a run knows."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.tasks import task
from django.test import override_settings

from django_tasks_local import scheduled_for
from django_tasks_local.periodic import find
from django_tasks_local.schedules import read

PROCESS: dict[str, Any] = settings.TASKS["process"]


@task(backend="process")
def job(*args: Any) -> None:
    """A task of the alias."""


@task(backend="process", queue_name="reports")
def report() -> None:
    """A task of another queue of it."""


@task(backend="thread")
def of_threads() -> None:
    """A task of another backend of ours."""


@task(backend="immediate")
def immediate() -> None:
    """A task of a foreign backend."""


def plain() -> None:
    """No task."""


later = job.using(run_after=datetime(2100, 1, 1, tzinfo=UTC))
urgent = job.using(priority=50)


def errors(task_name: str, **params: Any) -> list[str]:
    """What the checks say of an entry with this task."""
    entry = {"task": f"{__name__}.{task_name}", "every": 60}
    options = {"OPTIONS": {"SCHEDULE": {"job": entry}}, **params}
    with override_settings(TASKS=settings.TASKS | {"process": PROCESS | options}):
        return [f"{error.id} {error.msg} {error.hint}" for error in run_checks()]


@pytest.mark.parametrize("name", ["job", "report", "urgent"])
def test_a_task_of_the_alias_is_accepted(name: str) -> None:
    """Whatever its queue and its priority: a variant of a task is a name in a module, too."""
    assert errors(name) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gone", "cannot be imported"),
        ("plain", "is not a task but of type function"),
        ("of_threads", "belongs to alias 'thread', a ThreadPoolBackend"),
        ("immediate", "belongs to alias 'immediate', a ImmediateBackend"),
        ("later", "has run_after, which its entry decides"),
    ],
)
def test_what_is_no_task_of_the_alias_is_refused(name: str, text: str) -> None:
    """The error says where it stands, what is wrong and what to write."""
    (error,) = errors(name)
    assert error.startswith(
        "django_tasks_local.E016 TASKS['process']['OPTIONS']['SCHEDULE']['job']"
    )
    assert text in error
    assert "@task(backend='process')" in error


def test_a_queue_that_the_alias_does_not_have() -> None:
    """The backend itself refuses such a task."""
    (error,) = errors("report", QUEUES=["default"])
    assert "E016" in error
    assert "reports" in error


def test_a_module_that_fails_is_named() -> None:
    """The reason is that of the import."""
    with pytest.raises(ImproperlyConfigured, match=r"no_such_module\.job cannot be imported"):
        find(read({"job": {"task": "no_such_module.job", "every": 60}}).entries[0], "process")


def test_on_threads_there_is_no_schedule() -> None:
    """Each web process would run it."""
    options = {"OPTIONS": {"SCHEDULE": {"job": {"task": f"{__name__}.of_threads", "every": 60}}}}
    thread = settings.TASKS["thread"] | options
    with override_settings(TASKS=settings.TASKS | {"thread": thread}):
        (error,) = run_checks()
    assert error.id == "django_tasks_local.E007"
    assert "SCHEDULE belongs to ProcessPoolBackend" in error.msg


TIME_NS = 1_780_000_000_123_456_789
MOMENT = datetime(2026, 5, 28, 20, 26, 40, 123456, tzinfo=UTC)


def test_a_run_knows_its_time() -> None:
    """The intended time is in the metadata, beside the task's own; a context and a result tell."""
    (entry,) = read({"job": {"task": f"{__name__}.job", "every": 60}}).entries
    periodic = find(entry, "process")
    metadata = json.loads(periodic.metadata(TIME_NS))
    assert metadata == {"_scheduled_for": "2026-05-28T20:26:40.123456+00:00"}
    result = SimpleNamespace(raw_metadata=metadata)
    assert scheduled_for(result) == scheduled_for(SimpleNamespace(task_result=result)) == MOMENT
    noted: Any = job
    (entry,) = read({"job": {"task": f"{__name__}.noted", "every": 60}}).entries
    globals()["noted"] = noted.using(metadata={"tenant": 5})
    whole = json.loads(find(entry, "process").metadata(TIME_NS + 60 * 10**9))
    assert whole == {
        "tenant": 5, "_scheduled_for": (MOMENT + timedelta(minutes=1)).isoformat(),
    }  # fmt: skip


@pytest.mark.parametrize(
    "thing", [object(), SimpleNamespace(raw_metadata={}), SimpleNamespace(raw_metadata=None)]
)
def test_other_runs_have_none(thing: object) -> None:
    """Nor do results of other backends: a task may be called in both ways."""
    assert scheduled_for(thing) is None
