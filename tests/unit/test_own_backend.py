"""A foreign backend is not taken for ours, whatever its methods are called."""

from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.tasks import TaskResultStatus, task_backends
from django.tasks.backends.dummy import DummyBackend
from django.tasks.exceptions import TaskResultDoesNotExist
from django.test import override_settings

from django_tasks_local import cancel, enqueue_on_commit, results, wait_finished
from django_tasks_local.pool.connections import backend_of
from tests import tasks


def _refuse(*args: Any, **kwargs: Any) -> None:
    pytest.fail("it is another's method, which takes and does something else")


class Foreign(DummyBackend):
    """Has methods of the names of ours, and keeps its results."""

    supports_get_result = True
    kind = "process"
    cancel = listed = prepare = enqueue_prepared = _refuse
    begin_waiting = end_waiting = wait_for_change = _refuse


@pytest.fixture(autouse=True)
def _aliases() -> Any:
    """It has an alias."""
    foreign = {"BACKEND": f"{__name__}.Foreign"}
    with override_settings(TASKS=settings.TASKS | {"foreign": foreign}):
        yield


def test_cancel() -> None:
    """It says that such tasks cannot be cancelled."""
    result = tasks.nothing.using(backend="foreign").enqueue()
    for asked in (result, result.id):
        with pytest.raises(NotImplementedError, match="'foreign' is a Foreign"):
            cancel(asked, backend="foreign")


def test_a_result_of_ours_whose_alias_is_another_s_now() -> None:
    """It does not exist there."""
    result: Any = tasks.nothing.using(backend="thread").enqueue()
    result.wait_finished()
    thread = {"thread": {"BACKEND": f"{__name__}.Foreign"}}
    with override_settings(TASKS=settings.TASKS | thread), pytest.raises(TaskResultDoesNotExist):
        result.cancel()
    task_backends["thread"].close()  # type: ignore[attr-defined]


def test_results() -> None:
    """It cannot list them, and is not named as a backend that can."""
    with pytest.raises(ImproperlyConfigured) as caught:
        results("foreign")
    assert "'foreign'" not in str(caught.value).partition("in TASKS")[2]


def test_enqueue_on_commit() -> None:
    """It enqueues as any other."""
    enqueue_on_commit(tasks.add.using(backend="foreign"), 1)
    (result,) = task_backends["foreign"].results  # type: ignore[attr-defined]
    assert result.args == [1]


def test_wait_finished() -> None:
    """It is polled as any other."""
    result = tasks.nothing.using(backend="foreign").enqueue()
    with pytest.raises(TimeoutError):
        wait_finished(result, 0.01)
    object.__setattr__(result, "status", TaskResultStatus.SUCCESSFUL)
    assert wait_finished(result) is result


def test_it_has_no_pool() -> None:
    """Its `kind` is its own affair."""
    assert backend_of("foreign") is None
