"""Start tasks, and answer for any of them from any web worker."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.tasks import TaskResult, TaskResultStatus, task_backends
from django.tasks.exceptions import TaskResultDoesNotExist
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from board import stream, tasks
from board.catalogue import KINDS
from board.describe import describe
from board.forms import DELAYS_S, SIZES, TaskForm
from django_tasks_local import cancel
from django_tasks_local.exceptions import QueueFull, StoreUnavailable


@require_GET
@ensure_csrf_cookie
def index(request: HttpRequest) -> HttpResponse:
    """Answer with the page. It holds no task: the browser knows its ids and asks for them."""
    context = {
        "kinds": KINDS.values(),
        "sizes": SIZES,
        "delays": DELAYS_S,
        "pool_size": settings.TASKS["cpu_intensive"]["OPTIONS"]["MAX_WORKERS"],
    }
    return render(request, "board/index.html", context)


@require_POST
def enqueue(request: HttpRequest) -> JsonResponse:
    """Enqueue one task, from a form or from a JSON object, and return its id."""
    form = TaskForm(_fields(request))
    if not form.is_valid():
        return _answer({"errors": form.errors}, status=400)
    wish = form.cleaned_data
    kind = KINDS[wish["kind"]]
    task = kind.task.using(
        priority=wish["priority"],
        run_after=timedelta(seconds=wish["delay_s"]) if wish["delay_s"] else None,
    )
    try:
        result = task.enqueue(**kind.arguments(wish["size"], wish["phrase"]))
    except (QueueFull, StoreUnavailable) as error:
        return _answer({"errors": {"__all__": [str(error)]}}, status=503)
    tasks.write_note.enqueue(f"enqueued {kind.slug} id={result.id}")
    return _answer({"id": result.id}, status=201)


def _fields(request: HttpRequest) -> Any:
    if request.content_type != "application/json":
        return request.POST
    try:
        fields = json.loads(request.body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


@require_GET
@never_cache
def detail(request: HttpRequest, result_id: str) -> JsonResponse:
    """Answer with everything known about one task."""
    try:
        return _answer(describe(_result(result_id)))
    except TaskResultDoesNotExist:
        return _answer({"id": result_id, "error": "There is no such task."}, status=404)


@require_POST
def cancel_task(request: HttpRequest, result_id: str) -> JsonResponse:
    """Take a task out that waits, or ask it to stop if it runs, whichever process runs it."""
    try:
        cancelled = cancel(result_id, backend="cpu_intensive")
    except TaskResultDoesNotExist:
        return _answer({"id": result_id, "error": "There is no such task."}, status=404)
    return _answer({"id": result_id, "cancelled": cancelled})


@require_GET
def picture(request: HttpRequest, result_id: str) -> HttpResponse:
    """Answer with the PNG that a task returned, from any web worker: it is in shared memory."""
    try:
        result = _result(result_id)
    except TaskResultDoesNotExist:
        return _answer({"id": result_id, "error": "There is no such task."}, status=404)
    if result.status != TaskResultStatus.SUCCESSFUL or not isinstance(result.return_value, bytes):
        return _answer({"id": result_id, "error": "This task has no picture."}, status=404)
    # An id is never used again for another result, so the browser may keep the picture.
    headers = {"Cache-Control": "private, max-age=86400, immutable"}
    return HttpResponse(result.return_value, content_type="image/png", headers=headers)


@require_GET
@never_cache
def events(request: HttpRequest) -> StreamingHttpResponse:
    """Answer with server-sent events about the tasks in the query: `?id=…&id=…`."""
    return stream.response(request, request.GET.getlist("id"))


@require_GET
@never_cache
def whoami(request: HttpRequest) -> JsonResponse:
    """Answer with the pid of this web worker."""
    return _answer({})


def _result(result_id: str) -> TaskResult[..., Any]:
    return task_backends["cpu_intensive"].get_result(result_id)


def _answer(facts: dict[str, Any], status: int = 200) -> JsonResponse:
    return JsonResponse({"web_pid": os.getpid(), **facts}, status=status)
