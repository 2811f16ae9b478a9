"""A site as small as can be: one view enqueues, one polls. `memory.py` runs it under gunicorn."""

import os
import time

from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.tasks import task_backends
from django.urls import path

import bench_tasks


def enqueue(request: HttpRequest, alias: str) -> HttpResponse:
    """Enqueue a no-op and answer with its id."""
    return HttpResponse(bench_tasks.noop.using(backend=alias).enqueue().id)


def poll(request: HttpRequest, alias: str, result_id: str) -> HttpResponse:
    """Answer with the status."""
    return HttpResponse(task_backends[alias].get_result(result_id).status)


def whoami(request: HttpRequest) -> HttpResponse:
    """Answer with the pid of this web worker, late enough for the others to get a request too."""
    time.sleep(0.02)
    return HttpResponse(os.getpid())


urlpatterns = [path("", whoami), path("<alias>/", enqueue), path("<alias>/<result_id>/", poll)]
application = get_wsgi_application()
