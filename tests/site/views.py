"""Enqueue any task, read any result, say which process answers. Everything is JSON."""

from __future__ import annotations

import json
import os
import threading
from datetime import timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, JsonResponse
from django.tasks import Task, task_backends
from django.tasks.exceptions import TaskResultDoesNotExist
from django.utils.module_loading import import_string
from django.views.decorators.csrf import csrf_exempt

from django_tasks_local import enqueue_many
from django_tasks_local.exceptions import LocalTasksError

_three = threading.Barrier(3)


def who_am_i(request: HttpRequest) -> JsonResponse:
    """Return the pid of the process that answers. It uses no backend."""
    return JsonResponse({"pid": os.getpid()})


def metrics(request: HttpRequest) -> JsonResponse:
    """Return the metrics, as a scrape gets them."""
    from django_tasks_local.contrib import prometheus  # which few of the tests need

    scraped = prometheus.metrics(request)
    return JsonResponse({"pid": os.getpid(), "text": scraped.content.decode()})


@csrf_exempt
def enqueue(request: HttpRequest) -> JsonResponse:
    """Enqueues ``task`` with ``args`` and ``kwargs``, as often as ``count`` says.

    All at once if there is ``at_once``.
    """
    data = json.loads(request.body)
    calls = [(data.get("args", ()), data.get("kwargs", {}))] * data.get("count", 1)
    try:
        task = _task(data)
        if "at_once" in data:
            ids = [made.id for made in enqueue_many(task, calls)]
        else:
            ids = [task.enqueue(*args, **kwargs).id for args, kwargs in calls]
    except (LocalTasksError, ImproperlyConfigured, ValueError) as error:
        return JsonResponse({"error": type(error).__name__, "text": str(error)}, status=503)
    return JsonResponse({"ids": ids, "pid": os.getpid()})


@csrf_exempt
async def async_enqueue(request: HttpRequest) -> JsonResponse:
    """Do the same in an event loop."""
    data = json.loads(request.body)
    made = await _task(data).aenqueue(*data.get("args", ()), **data.get("kwargs", {}))
    return JsonResponse({"ids": [made.id], "pid": os.getpid()})


def result(request: HttpRequest, result_id: str) -> JsonResponse:
    """All that is known of a result."""
    try:
        found = task_backends[request.GET.get("alias", "default")].get_result(result_id)
    except TaskResultDoesNotExist:
        return JsonResponse({"pid": os.getpid()}, status=404)
    return JsonResponse(_described(found))


async def async_result(request: HttpRequest, result_id: str) -> JsonResponse:
    """Do the same in an event loop."""
    try:
        found = await task_backends["default"].aget_result(result_id)
    except TaskResultDoesNotExist:
        return JsonResponse({"pid": os.getpid()}, status=404)
    return JsonResponse(_described(found))


def handles(request: HttpRequest) -> JsonResponse:
    """Which backend object this thread has, and which attachment; answers to three at a time."""
    _three.wait(60)
    backend: Any = task_backends["default"]
    site = backend.site()
    return JsonResponse(
        {
            "pid": os.getpid(),
            "thread": threading.get_native_id(),
            "backend": id(backend),
            "attachment": id(site),
            "entry": site.ring.registry.index,
            "watchers": sum(each.name == "django-tasks-local" for each in threading.enumerate()),
        }
    )


def _task(data: dict[str, Any]) -> Task[..., Any]:
    path = data["task"]
    task: Task[..., Any] = import_string(path if "." in path else f"tests.site.tasks.{path}")
    using = dict(data.get("using", {}))
    if "run_after_s" in using:
        using["run_after"] = timedelta(seconds=using.pop("run_after_s"))
    return task.using(**using) if using else task


def _described(found: Any) -> dict[str, Any]:
    done = found.is_finished
    progress = found.progress
    return {
        "pid": os.getpid(),
        "id": found.id,
        "status": found.status,
        "value": found.return_value if found.status == "SUCCESSFUL" else None,
        "errors": [[e.exception_class_path, e.traceback] for e in found.errors] if done else [],
        "workers": list(found.worker_ids),
        "enqueued_at": found.enqueued_at.timestamp(),
        "started_at": found.started_at and found.started_at.timestamp(),
        "finished_at": found.finished_at and found.finished_at.timestamp(),
        "progress": progress and [progress.done, progress.total, progress.message],
    }
