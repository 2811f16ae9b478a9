"""Waiting for the results of other people's backends."""

import asyncio
from typing import Any

import pytest
from django.conf import settings
from django.tasks import TaskResultStatus, task_backends
from django.tasks.backends.dummy import DummyBackend
from django.test import override_settings

from django_tasks_local import await_finished, wait_finished
from tests import tasks
from tests.support import SHORT_TIMEOUT

BACKEND = {"BACKEND": "tests.unit.test_waiting.Foreign"}
BLIND = {"BACKEND": "django.tasks.backends.dummy.DummyBackend"}


class Foreign(DummyBackend):
    """A backend that can read results, whose tasks end when they are looked at often enough."""

    supports_get_result = True
    looks = 0

    def get_result(self, result_id: str) -> Any:
        self.looks += 1
        result = super().get_result(result_id)
        if self.looks >= 3:
            object.__setattr__(result, "status", TaskResultStatus.SUCCESSFUL)
        return result

    async def aget_result(self, result_id: str) -> Any:
        return self.get_result(result_id)


@pytest.fixture(autouse=True)
def aliases() -> Any:
    """Two aliases of foreign backends."""
    with override_settings(TASKS=settings.TASKS | {"foreign": BACKEND, "blind": BLIND}):
        yield


def test_a_foreign_result_is_refreshed() -> None:
    """It is looked at until it has finished."""
    result = tasks.add.using(backend="foreign").enqueue(1)
    assert wait_finished(result, SHORT_TIMEOUT) is result
    backend: Any = task_backends["foreign"]
    assert backend.looks == 3


def test_a_foreign_result_in_an_event_loop() -> None:
    """The same in an event loop."""

    async def scenario() -> None:
        result = await tasks.add.using(backend="foreign").aenqueue(1)
        assert await await_finished(result, SHORT_TIMEOUT) is result
        assert result.is_finished

    asyncio.run(scenario())


def test_a_foreign_result_that_takes_too_long() -> None:
    """The limit holds there, too."""
    result = tasks.add.using(backend="foreign").enqueue(1)
    with pytest.raises(TimeoutError, match="is still READY after 0 s"):
        wait_finished(result, 0)


def test_a_backend_that_cannot_read() -> None:
    """Where the end could never be seen, that is said at once, with the backend's alias."""
    result = tasks.add.using(backend="blind").enqueue(1)
    with pytest.raises(NotImplementedError, match=r"'blind' .*does not support reading results"):
        wait_finished(result)
