"""Enqueue a task that has ended once more, as plain functions for the results of any backend."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, cast

from asgiref.sync import sync_to_async
from django.tasks import task_backends

from django_tasks_local.groups import in_group
from django_tasks_local.metadata import shown, with_metadata
from django_tasks_local.naming import MissingTask, copy_task
from django_tasks_local.result import LocalTaskResult

if TYPE_CHECKING:
    from django.tasks import TaskResult

# In the metadata of the new task: whose task it repeats.
AGAIN_OF: Final = "_again_of"
# Reserved, and kept all the same: what ``contrib.q`` notes belongs to the task, not to one run.
_KEPT: Final = frozenset({"_q"})


def enqueue_again[Result: TaskResult[..., Any]](result: Result) -> Result:
    """Enqueue the task of a result once more, under a new id; the old result stays as it is.

    Task, arguments, priority, queue, metadata and group are those of the old one, ``run_after`` is
    not. What its policy says follows it once more; the further steps of a chain do not.
    Where the backend has metadata, ``raw_metadata["_again_of"]`` of the new result is the old id.

    Args:
        result: Of any backend.

    Returns:
        The new result.

    Raises:
        ValueError: The task has not ended yet (backends of this package).
        ArgumentsDropped: Its arguments had to make room; they are not kept for ever.
        InvalidTask: Its import path leads to no task any more, or the backend cannot run it.
        TaskResultDoesNotExist: The result was evicted, or has expired, and did not show its end.
        QueueFull, PayloadTooLarge, StoreUnavailable: As ``enqueue`` does.
    """
    if isinstance(result, LocalTaskResult) and not result.is_finished:
        result.refresh()
        if not result.is_finished:
            raise ValueError(
                f"Task {result.task.module_path}, id={result.id}, is {result.status}: only a task "
                "that has ended can be enqueued again."
            )
    if isinstance(result.task, MissingTask):
        result.task.enqueue()  # raises, with the reason
    task = copy_task(result.task, run_after=None)
    old = getattr(result, "raw_metadata", None) or {}
    noted = shown(old) | {key: old[key] for key in _KEPT & old.keys()} | {AGAIN_OF: result.id}
    backend: Any = task_backends[result.backend]
    if getattr(backend, "supports_metadata", False):
        task = with_metadata(task, noted)
    # This result's alias, which may differ from the task's: see `LocalTaskResult.refresh`.
    group = getattr(result, "group", "")
    with in_group(group) if group else nullcontext():
        return cast(Result, backend.enqueue(task, result.args, result.kwargs))


async def aenqueue_again[Result: TaskResult[..., Any]](result: Result) -> Result:
    """Do what `enqueue_again` does, in a thread."""
    return await sync_to_async(enqueue_again)(result)
