"""Cancel a task, as plain functions that take the result of any backend, or an id."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.tasks import DEFAULT_TASK_BACKEND_ALIAS, TaskResult, task_backends

from django_tasks_local.own_backend import OwnBackend
from django_tasks_local.result import LocalTaskResult


def cancel(
    result_or_id: TaskResult[..., Any] | str | UUID,
    backend: str = DEFAULT_TASK_BACKEND_ALIAS,
    running: bool = True,
) -> bool:
    """Take a task out that waits, or ask it to stop if it runs.

    Sends ``task_finished`` for one that is taken out. It does not wait for the end of one that
    runs.

    Args:
        result_or_id: The task's result, or the id of that.
        backend: The alias of an id's backend.
        running: ``False`` to leave a task alone once it runs.

    Returns:
        Whether it will be FAILED with `TaskCancelled`; ``False`` if it has ended, or runs and is
        not to be stopped.

    Raises:
        TaskResultDoesNotExist: The id is not that of a result in that backend.
        StoreUnavailable: The store cannot be used.
        NotImplementedError: The backend is not one of this package's, and the task has not ended.
    """
    result = result_or_id
    if not isinstance(result, TaskResult):
        found: Any = task_backends[backend]
        if isinstance(found, OwnBackend):
            return found.cancel(result, running=running)
        result = found.get_result(result)
    if isinstance(result, LocalTaskResult):
        return result.cancel(running=running)
    if result.is_finished:
        return False
    kind = type(task_backends[result.backend]).__name__
    raise NotImplementedError(
        f"Task backend {result.backend!r} is a {kind}, whose tasks cannot be cancelled: only "
        "backends of django_tasks_local can do that."
    )


async def acancel(
    result_or_id: TaskResult[..., Any] | str | UUID,
    backend: str = DEFAULT_TASK_BACKEND_ALIAS,
    running: bool = True,
) -> bool:
    """Do what `cancel` does, in a thread: receivers of ``task_finished`` may use the database."""
    return await sync_to_async(cancel)(result_or_id, backend, running)
