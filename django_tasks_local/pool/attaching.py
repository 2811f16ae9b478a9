"""When a web process attaches to the rings of its site: at its first request, or at its start."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import Any

from django.core.signals import request_finished, request_started

from django_tasks_local import under_test
from django_tasks_local.ring import ring_exists

from . import connections, project
from .connections import PoolBackend
from .serving import forks_for_multiprocessing, is_request, is_server, makes_workers
from .step import TICK_S

# When processes that could not attach at a request try again, by pid.
_attach_again: dict[int, float] = {}


def _attach_at_first_request(sender: object = None, **kwargs: Any) -> None:
    """Attach a web process before it enqueues: waiting tasks need a site that starts a pool.

    A page that uses no task must not wait for that: where another process is inside the ring for
    long, a later request tries again.
    """
    pid = os.getpid()
    if pid in connections.serving and time.monotonic() < _attach_again.get(pid, math.inf):
        return
    if under_test.under_test() or not is_request(sender):
        return
    connections.serving.add(pid)
    _attach_again[pid] = time.monotonic() + TICK_S
    done: list[bool] = []
    connections.for_each_backend(lambda backend: done.append(backend.site().serve()))
    if all(done):
        _attach_again.pop(pid, None)


def attach_at_start() -> None:
    """Attach a server that starts up, before its first request, which may come late.

    It does where there are tasks that have not ended, or a SCHEDULE, and starts a pool for them.
    """
    if under_test.under_test() or project.in_pool():
        return
    if is_server() and makes_workers():
        _masters.add(os.getpid())
    connections.for_each_backend(_attach_where_needed)


def _attach_where_needed(backend: PoolBackend) -> None:
    if os.getpid() not in _masters and is_server():
        _keep_pool_where_needed(backend)
    elif ring_exists(backend.spec().name) and backend.site().ring.upkeep.has_work():
        # DRAIN_TIMEOUT would end what runs, if the first request comes after that.
        backend.site().expect_requests()


def _keep_pool_where_needed(backend: PoolBackend) -> None:
    if backend.checked_options.schedule.entries or _has_unfinished(backend):
        backend.site().keep_pool()


def _has_unfinished(backend: PoolBackend) -> bool:
    return ring_exists(backend.spec().name) and backend.site().ring.upkeep.has_unfinished()


# --- servers that load the application first, and fork then (`gunicorn --preload`) ----------------

_masters: set[int] = set()  # pids


def _begin_in_worker() -> None:
    if os.getppid() in _masters and not forks_for_multiprocessing():
        _masters.clear()
        # Not here: a master that runs as root gives its workers another user only now.
        threading.Thread(target=_keep_pools, name="django-tasks-local", daemon=True).start()


def _keep_pools() -> None:
    time.sleep(TICK_S)
    connections.for_each_backend(_keep_pool_where_needed)


os.register_at_fork(after_in_child=_begin_in_worker)


# The end of a request counts too: a project without our app, which imports its tasks together with
# its URLs, has made no backend yet when its first request starts.
for _signal in (request_started, request_finished):
    _signal.connect(_attach_at_first_request, dispatch_uid="django_tasks_local")
