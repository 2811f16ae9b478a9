"""OPTIONS and QUEUES: checks, errors, and what a backend object does not do."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.tasks import task, task_backends
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.exceptions import InvalidTask
from django.test import modify_settings

from django_tasks_local.backends import base
from django_tasks_local.naming import copy_task
from tests import tasks
from tests.contract.conftest import Bench

BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({"OPTIONS": ["MAX_WORKERS"]}, "E001", "dict"),
    ({"OPTIONS": {"MAX_WORKER": 3}}, "E002", "MAX_WORKERS"),
    ({"OPTIONS": {"max_workers": 3}}, "E002", "MAX_WORKERS"),
    ({"OPTIONS": {"MAX_WORKERS": "3"}}, "E003", "whole number"),
    # Of two, since other tests use MAX_RESULTS=1 alone: it is equal, and was accepted already.
    ({"OPTIONS": {"MAX_RESULTS": True, "MAX_WORKERS": 7}}, "E003", "whole number"),
    ({"OPTIONS": {"MAX_WORKERS": 0}}, "E004", "from 1 to"),
    ({"OPTIONS": {"DRAIN_TIMEOUT": -1}}, "E004", "None"),
    ({"QUEUES": "default"}, "E008", "list"),
    ({"MAX_WORKERS": 3}, "E009", "OPTIONS"),
]


@pytest.mark.parametrize(("params", "number", "hint"), BROKEN, ids=str)
def test_broken_options(bench: Bench, params: dict[str, Any], number: str, hint: str) -> None:
    """A wrong option is a check error with id and hint; using it raises with the same text."""
    with bench.settings(**params):
        (error,) = run_checks()
        assert error.id == f"django_tasks_local.{number}"
        assert f"TASKS['{bench.alias}']" in error.msg
        assert hint in f"{error.msg} {error.hint}"
        # Code that only defines tasks still imports, so that the check can be run at all.
        task(tasks.plain, backend=bench.alias)
        with pytest.raises(ImproperlyConfigured) as caught:
            bench.enqueue(tasks.nothing)
        assert error.msg in str(caught.value)
        assert str(error.hint) in str(caught.value)
        with pytest.raises(ImproperlyConfigured):
            bench.backend.get_result("00000000-0000-4000-8000-000000000000")


def test_without_the_app(bench: Bench) -> None:
    """Processes lack commands and an early attachment then: a warning. Threads lack nothing."""
    with modify_settings(INSTALLED_APPS={"remove": "django_tasks_local"}):
        found = list(bench.backend.check())
    if bench.alias == "thread":
        assert found == []
        return
    (warning,) = found
    assert warning.id == "django_tasks_local.W001"
    assert not warning.is_serious()
    assert "INSTALLED_APPS" in warning.msg
    assert "local_tasks" in warning.hint


def test_good_options_pass_the_check(bench: Bench) -> None:
    """No errors for any option at a sound value, and None waits at exit until all is done."""
    options = {"MAX_WORKERS": 1, "MAX_RESULTS": 1, "MAX_PENDING": 1, "DRAIN_TIMEOUT": None}
    with bench.settings(OPTIONS=options, QUEUES=[]):
        assert run_checks() == []
        bench.on(tasks.nothing, queue_name="any queue, since the list is empty")


def test_a_valid_task_is_looked_at_again_when_the_backend_has_changed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags set on the object, those set on its class, and queues."""
    backend = bench.backend
    urgent = bench.on(tasks.nothing, priority=5)
    slow = bench.on(tasks.async_add)
    backend.validate_task(urgent)
    backend.validate_task(slow)
    later = copy_task(urgent, run_after=timedelta(days=1))
    for holder, flag, refused in (
        (backend, "supports_priority", urgent),
        (type(backend), "supports_async_task", slow),
        (backend, "supports_defer", later),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(holder, flag, False)
            with pytest.raises(InvalidTask):
                backend.validate_task(refused)
    backend.validate_task(urgent)
    backend.queues.remove("default")
    with pytest.raises(InvalidTask, match="ueue"):
        backend.validate_task(urgent)


def test_a_task_that_is_valid_stays_valid(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at once by each backend object, one that is refused each time anew."""
    monkeypatch.setattr(base, "_VALID_LIMIT", 3)
    looked_at = []
    validate = BaseTaskBackend.validate_task
    monkeypatch.setattr(
        BaseTaskBackend, "validate_task", lambda *args: looked_at.append(args) or validate(*args)
    )
    backend = type(bench.backend)(bench.alias, {})
    valid = copy_task(tasks.nothing, backend=bench.alias)
    for _ in range(3):
        backend.validate_task(valid)
    assert len(looked_at) == 1
    refused = copy_task(valid, queue_name="nobody")
    for _ in range(2):
        with pytest.raises(InvalidTask, match="nobody"):
            backend.validate_task(refused)
    for number in range(5):  # tasks made in a loop are not kept for ever
        backend.validate_task(copy_task(valid, priority=number))
        assert len(backend._valid) <= 3
    backend.validate_task(valid)
    assert len(looked_at) == 9


def test_supports_everything(bench: Bench) -> None:
    """All four features of a backend are there."""
    backend = bench.backend
    assert isinstance(backend, BaseTaskBackend)
    assert backend.supports_priority
    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result


def test_a_handle_starts_nothing(bench: Bench) -> None:
    """Neither a backend object, nor the checks, nor defining a task, starts a thread."""
    threads = threading.active_count()
    with bench.settings(OPTIONS={"MAX_RESULTS": 17}):
        task(tasks.plain, backend=bench.alias)
        assert run_checks() == []
        assert bench.backend.supports_priority
    assert threading.active_count() == threads


def test_all_handles_share_one_store(bench: Bench) -> None:
    """Each thread has a backend object of its own; all of them see the same results."""
    result = bench.run(tasks.add, 4)
    seen: list[Any] = []

    def look() -> None:
        backend = task_backends[bench.alias]
        seen.extend([backend, backend.get_result(result.id).return_value])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    other, value = seen
    assert other is not bench.backend
    assert value == 4


def test_changed_settings_take_effect(bench: Bench) -> None:
    """Settings that a test overrides count from the next call on."""
    bench.configure(MAX_RESULTS=1)
    first, second = bench.run(tasks.add, 1), bench.run(tasks.add, 2)
    assert bench.backend.checked_options.max_results == 1
    bench.configure(MAX_RESULTS=2)
    assert bench.backend.checked_options.max_results == 2
    assert bench.value(tasks.add, 1) == 1
    assert (first.return_value, second.return_value) == (1, 2)
