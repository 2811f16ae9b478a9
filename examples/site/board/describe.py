"""Describe a task in JSON."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from django.tasks import TaskResult, TaskResultStatus
from django.urls import reverse

from board.catalogue import KIND_OF_TASK
from django_tasks_local import progress_of


def describe(result: TaskResult[..., Any]) -> dict[str, Any]:
    """Return everything the page shows about a task, finished or not.

    `web_pid` is the process that looked this up, so that one can see any web worker do it.
    """
    return {
        "id": result.id,
        "kind": KIND_OF_TASK.get(result.task.name, result.task.name),
        "status": result.status.value,
        "priority": result.task.priority,
        "web_pid": os.getpid(),
        "worker": result.worker_ids[-1] if result.worker_ids else None,
        "enqueued_at": _iso(result.enqueued_at),
        "run_after": _iso(result.task.run_after),
        "started_at": _iso(result.started_at),
        "finished_at": _iso(result.finished_at),
        "attempts": result.attempts,
        "progress": _progress(result),
        "result": _outcome(result),
        "error": _error(result),
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _progress(result: TaskResult[..., Any]) -> dict[str, Any] | None:
    progress = progress_of(result)
    if progress is None:
        return None
    return {
        "done": progress.done,
        "total": progress.total,
        "fraction": progress.fraction,
        "message": progress.message,
    }


def _outcome(result: TaskResult[..., Any]) -> Any:
    """Return value in JSON; a picture is named by its address instead of sent along."""
    if result.status != TaskResultStatus.SUCCESSFUL:
        return None
    value = result.return_value
    if isinstance(value, bytes):
        return {"bytes": len(value), "picture": reverse("picture", args=[result.id])}
    return value


def _error(result: TaskResult[..., Any]) -> dict[str, str] | None:
    if not result.errors:
        return None
    error = result.errors[-1]
    path = error.exception_class_path.removeprefix("builtins.")
    return {
        "type": path.rpartition(".")[2],
        # What Python prints last: "module.Name: message". The message may have several lines.
        "message": error.traceback.rpartition(f"{path}: ")[2].strip(),
        "traceback": error.traceback,
    }
