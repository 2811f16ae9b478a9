"""One task as people and programs are shown it: its row in lists, its errors, its values."""

import time
from typing import Any, NamedTuple

from django.tasks import TaskResultStatus
from django.tasks.base import TaskError

from django_tasks_local.attempts import first_started_at_ns, last_started_at_ns
from django_tasks_local.exceptions import describe
from django_tasks_local.moments import unix_ns
from django_tasks_local.naming import MissingTask
from django_tasks_local.result import LocalTaskResult

from .text import iso, line_of, shown


class Row(NamedTuple):
    """A task, as it was seen.

    Attributes:
        result: What is known of it.
        is_orphan: It runs, but its worker has died, and nobody has noted that yet: it will be
            FAILED.
    """

    result: LocalTaskResult
    is_orphan: bool


def summary(row: Row) -> dict[str, Any]:
    """Return what ``list --json`` says of a task; `details` has more."""
    result = row.result
    snapshot, task, progress = result.snapshot, result.task, result.progress
    run_after = getattr(task, "run_after", None)
    return {
        "id": result.id,
        "backend": result.backend,
        "task": task.module_path,
        "imports": not isinstance(task, MissingTask),
        "status": str(result.status),
        "cancelled": result.is_cancelled,
        "lost": result.loss is not None,
        "orphan": row.is_orphan,
        "queue_name": task.queue_name or None,
        "group": result.group or None,
        "after": result.after or None,
        "priority": task.priority,
        "run_after": iso(unix_ns(run_after)) if run_after else None,
        "enqueued_at": iso(snapshot.enqueued_at_ns),
        "started_at": iso(first_ns(result)),
        "last_attempted_at": iso(last_ns(result)),
        "finished_at": iso(snapshot.finished_at_ns),
        "duration_s": duration_s(result),
        "attempts": result.attempts,
        "worker_ids": result.worker_ids,
        "progress": progress and {
            "done": progress.done, "total": progress.total, "message": progress.message,
        },
        "error": error_line(result),
    }  # fmt: skip


def details(row: Row, *, arguments: bool) -> dict[str, Any]:
    """Return what ``show --json`` says of a task.

    Args:
        row: The task.
        arguments: Whether to tell arguments and return value, each as its ``repr``.
    """
    result, facts = row.result, summary(row)
    del facts["error"]
    facts["raw_metadata"] = result.raw_metadata
    facts["errors"] = [
        {"exception_class_path": each.exception_class_path, "traceback": each.traceback}
        for each in errors(result)
    ]
    if arguments:
        args, kwargs, value = values(result)
        facts |= {"args": args, "kwargs": kwargs, "return_value": value}
    return facts


def errors(result: LocalTaskResult) -> list[TaskError]:
    """Return the errors of a task; one that cannot be read is told as an error of its own."""
    try:
        found: list[TaskError] = result.errors
    except Exception as error:  # damaged, or evicted meanwhile
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        return [TaskError(exception_class_path=kind, traceback=describe(error))]
    return found


def error_line(result: LocalTaskResult) -> str | None:
    """Return a task's last error in a line, ``None`` for one without, or that has succeeded."""
    if result.status == TaskResultStatus.SUCCESSFUL:
        return None
    found = errors(result)
    return line_of(found[-1]) if found else None


def values(result: LocalTaskResult) -> tuple[list[str] | str, dict[str, str] | str, str | None]:
    """Return positional arguments, keyword arguments and return value as text.

    What cannot be unpickled, or is kept no longer, says so in its place.
    """
    args: list[str] | str
    kwargs: dict[str, str] | str
    try:
        args = [shown(each) for each in result.args]
        kwargs = {name: shown(each) for name, each in result.kwargs.items()}
    except Exception as error:
        args = kwargs = shown_error(error)
    if result.status != TaskResultStatus.SUCCESSFUL:
        return args, kwargs, None
    try:
        return args, kwargs, shown(result.return_value)
    except Exception as error:
        return args, kwargs, shown_error(error)


def shown_error(error: Exception) -> str:
    """Return what stands in the place of a value that cannot be had."""
    return f"({describe(error)})"


def first_ns(result: LocalTaskResult) -> int:
    """Return when the first attempt of a task began, Unix ns; 0 before that."""
    return first_started_at_ns(result.snapshot.past, result.snapshot.started_at_ns)


def last_ns(result: LocalTaskResult) -> int:
    """Return when the latest attempt of a task began, likewise."""
    return last_started_at_ns(result.snapshot.past, result.snapshot.started_at_ns)


def duration_s(result: LocalTaskResult) -> float | None:
    """Return how long the last attempt of a task took, or has been running.

    ``None`` for a task that waits.
    """
    snapshot, started_ns = result.snapshot, last_ns(result)
    if not started_ns or snapshot.status == TaskResultStatus.READY:
        return None
    return round(max(0, (snapshot.finished_at_ns or time.time_ns()) - started_ns) / 1e9, 3)


def latest_ns(row: Row) -> int:
    """Return when a task ended, or else its latest attempt began, or else it was enqueued."""
    snapshot = row.result.snapshot
    return snapshot.finished_at_ns or last_ns(row.result) or snapshot.enqueued_at_ns
