"""Start tasks, and answer for any of them from any web worker."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.tasks import TaskResult, TaskResultStatus, task_backends
from django.tasks.exceptions import TaskResultDoesNotExist
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from board import stream, tasks
from board.catalogue import KIND_OF_TASK, KINDS
from board.describe import describe
from board.forms import DELAYS_S, SIZES, TaskForm
from django_tasks_local import cancel, enqueue_again, results
from django_tasks_local.exceptions import ArgumentsDropped, QueueFull, StoreUnavailable

ENDED = {"SUCCESSFUL", "FAILED"}
MOST_LISTED = 20


@require_GET
@ensure_csrf_cookie
def index(request: HttpRequest) -> HttpResponse:
    """Answer with the page. A browser knows the ids of its tasks, and asks for them.

    For one without JavaScript the newest tasks of the host are listed.
    """
    context = {
        "recent": _recent,  # called by the template
        "kinds": KINDS.values(),
        "sizes": SIZES,
        "delays": DELAYS_S,
        "pool_size": settings.TASKS["cpu_intensive"]["OPTIONS"]["MAX_WORKERS"],
    }
    return render(request, "board/index.html", context)


@require_POST
def enqueue(request: HttpRequest) -> HttpResponse:
    """Enqueue one task, from a form or from a JSON object, and return its id."""
    form = TaskForm(_fields(request))
    if not form.is_valid():
        return _refusal(request, form.errors, status=400)
    wish = form.cleaned_data
    kind = KINDS[wish["kind"]]
    task = kind.task.using(
        priority=wish["priority"],
        run_after=timedelta(seconds=wish["delay_s"]) if wish["delay_s"] else None,
    )
    try:
        result = task.enqueue(**kind.arguments(wish["size"], wish["phrase"]))
    except (QueueFull, StoreUnavailable) as error:
        return _refusal(request, {"__all__": [str(error)]}, status=503)
    tasks.write_note.enqueue(f"enqueued {kind.slug} id={result.id}")
    return _started(request, result.id)


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
def detail(request: HttpRequest, result_id: str) -> HttpResponse:
    """Answer with everything known about one task: in JSON, or as a page that needs no script."""
    try:
        facts = describe(_result(result_id))
    except TaskResultDoesNotExist:
        return _unknown(request, result_id)
    if not _wants_page(request):
        return _answer(facts)
    facts["title"] = _title(facts["kind"])
    facts["is_finished"] = facts["status"] in ENDED
    facts["web_pid"] = os.getpid()
    return render(request, "board/job.html", facts)


@require_POST
def cancel_task(request: HttpRequest, result_id: str) -> HttpResponse:
    """Take a task out that waits, or ask it to stop if it runs, whichever process runs it."""
    try:
        cancelled = cancel(result_id, backend="cpu_intensive")
    except TaskResultDoesNotExist:
        return _unknown(request, result_id)
    except StoreUnavailable as error:
        return _refusal(request, {"__all__": [str(error)]}, status=503)
    if _wants_page(request):
        return redirect("job", result_id)
    return _answer({"id": result_id, "cancelled": cancelled})


@require_POST
def run_again(request: HttpRequest, result_id: str) -> HttpResponse:
    """Enqueue a task that has ended once more, with the same arguments; return the new id."""
    try:
        again = enqueue_again(_result(result_id))
    except TaskResultDoesNotExist:
        return _unknown(request, result_id)
    except (ArgumentsDropped, QueueFull, StoreUnavailable) as error:
        return _refusal(request, {"__all__": [str(error)]}, status=503)
    except ValueError as error:  # it has not ended yet
        return _refusal(request, {"__all__": [str(error)]}, status=409)
    return _started(request, again.id)


@require_GET
def picture(request: HttpRequest, result_id: str) -> HttpResponse:
    """Answer with the PNG that a task returned, from any web worker: it is in shared memory."""
    try:
        result = _result(result_id)
    except TaskResultDoesNotExist:
        return _unknown(request, result_id)
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


def _recent() -> list[dict[str, str]]:
    """Return the newest tasks of the host, for browsers that remember none."""
    newest = results("cpu_intensive", limit=MOST_LISTED)
    return [
        {
            "id": each.id, "status": "CANCELLED" if each.is_cancelled else each.status.value,
            "title": _title(KIND_OF_TASK.get(each.task.name, each.task.name)),
        }
        for each in newest
    ]  # fmt: skip


def _title(kind: str) -> str:
    return KINDS[kind].title if kind in KINDS else kind


def _wants_page(request: HttpRequest) -> bool:
    # A form, and a link, of a browser without JavaScript; its script asks for anything (`*/*`).
    return request.get_preferred_type(["application/json", "text/html"]) == "text/html"


def _started(request: HttpRequest, result_id: str) -> HttpResponse:
    if _wants_page(request):
        return redirect("job", result_id)
    return _answer({"id": result_id}, status=201)


def _refusal(request: HttpRequest, errors: Mapping[str, Any], status: int) -> HttpResponse:
    if _wants_page(request):
        return render(request, "board/refused.html", {"errors": errors}, status=status)
    return _answer({"errors": errors}, status=status)


def _unknown(request: HttpRequest, result_id: str) -> HttpResponse:
    if _wants_page(request):
        errors = {"__all__": ["There is no such task, or its result has made room for newer ones."]}
        return render(request, "board/refused.html", {"errors": errors}, status=404)
    return _answer({"id": result_id, "error": "There is no such task."}, status=404)


def _answer(facts: dict[str, Any], status: int = 200) -> JsonResponse:
    return JsonResponse({"web_pid": os.getpid(), **facts}, status=status)
