"""A pool from the inside: attach, and give the supervisor a way to make workers."""

import logging
import os
import threading
import time
from dataclasses import replace
from functools import partial
from typing import NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.tasks import task_backends
from django.utils.module_loading import autodiscover_modules

from django_tasks_local.policies import time_limit_of
from django_tasks_local.ring import Ring, Role, attach_segment, fill_standard_descriptors
from django_tasks_local.streams import flush_output, say_traceback

from . import connections, project
from .counting import tally_of
from .launcher import launch
from .loaded_files import digest_of
from .project import Preparation
from .spec import PoolSpec, spec_of, tell_namespace
from .supervisor import TURN_S, Supervisor
from .timetable import Timetable
from .worker import WorkerSpec, work

logger = logging.getLogger("django_tasks_local")


def serve_started(
    ring: Ring, preparation: Preparation, project_bytes: bytes, runnable_up_to: int
) -> None:
    """Run a pool that a site has started. The project is already set up.

    Args:
        ring: The ring, attached as POOL.
        preparation: What the site has sent.
        project_bytes: The same pickled, for workers that start as fresh interpreters.
        runnable_up_to: The serial of the newest site of its code when this process had loaded
            nothing yet: tasks of sites up to it may run.
    """
    spec = _spec_from(preparation, ring.alias, ring.name)
    _import_tasks(ring.alias)
    _serve(
        spec,
        ring,
        project_bytes=project_bytes,
        foreground=False,
        runnable_up_to=runnable_up_to,
        output_owner=preparation.output_owner,
        provisional=preparation.provisional,
    )


def serve_in_foreground(alias: str) -> None:
    """Run a pool in this process, whose project is set up; it takes over from a serving pool.

    Raises:
        StoreUnavailable: The ring cannot be used.
    """
    backend = connections.backend_of(alias)
    assert backend is not None, alias
    spec = backend.spec()
    tell_namespace(spec.namespace)
    _import_tasks(alias)
    fill_standard_descriptors()
    path = project.site_path()
    project_bytes = Preparation.of_this_process(spec.namespace, path).dumps()
    attach_segment(spec.name, spec.limits.geometry)  # makes the ring, unlike other pools
    ring = Ring(
        spec.name, spec.alias, spec.limits, Role.POOL,
        path=path, digest=digest_of(path), temporary=spec.temporary,
    )  # fmt: skip
    runnable_up_to = ring.leadership.newest_site()
    while not ring.leadership.take_successor():
        time.sleep(TURN_S)
    _serve(spec, ring, project_bytes=project_bytes, foreground=True, runnable_up_to=runnable_up_to)


def work_fresh(
    alias: str, name: str, preparation: Preparation, *, pool: int, life: int, bell: int
) -> NoReturn:
    """Run one worker that a pool had to start as a fresh interpreter; never return."""
    spec = _spec_from(preparation, alias, name)
    _import_tasks(alias)
    close_connections()
    run_worker(WorkerSpec(spec, preparation.path, pool, life, bell, type(task_backends[alias])))


def _serve(
    spec: PoolSpec,
    ring: Ring,
    *,
    project_bytes: bytes,
    foreground: bool,
    runnable_up_to: int,
    output_owner: int = 0,
    provisional: bool = False,
) -> None:
    backend = connections.backend_of(spec.alias)
    assert backend is not None, spec.alias
    time_limit = partial(time_limit_of, options=backend.checked_options)
    timetable = Timetable(
        ring, spec.schedule, time_limit, partial(tally_of, ring, spec), provisional=provisional
    )
    close_connections()

    def start_worker(life: int, bell: int, to_close: list[int]) -> int:
        path, backend_class = ring.attachment.path, type(task_backends[spec.alias])
        worker = WorkerSpec(spec, path, ring.registry.index, life, bell, backend_class)
        if _threads() > 1:
            # A fork would copy the locks that other threads hold, and nobody would release them.
            return _spawn(ring, worker, project_bytes)
        return _fork(worker, to_close)

    try:
        Supervisor(
            ring,
            start_worker,
            foreground=foreground,
            runnable_up_to=runnable_up_to,
            output_owner=output_owner,
            provisional=provisional,
            timetable=timetable,
        ).run()
    finally:
        ring.attachment.detach()


def _spec_from(preparation: Preparation, alias: str, name: str) -> PoolSpec:
    tell_namespace(preparation.namespace)
    backend = connections.backend_of(alias)
    if backend is None:
        raise ImproperlyConfigured(
            f"TASKS[{alias!r}] is a ProcessPoolBackend in the site that started this pool, and "
            f"{type(task_backends[alias]).__name__} here. The settings must give the same TASKS in "
            "the pool, which has the environment of the site but not its command line."
        )
    # The site's ring, whatever name these settings would give it.
    return replace(
        spec_of(alias, backend.checked_options),
        name=name, namespace=preparation.namespace, temporary=bool(preparation.run),
    )  # fmt: skip


def _import_tasks(alias: str) -> None:
    """Import what `worker_started` may find receivers in.

    A pool does so before its forks: once for all workers, and so that it compares the files.
    """
    try:
        autodiscover_modules("tasks")
    except Exception:
        logger.exception("alias=%s a tasks module cannot be imported", alias)


def run_worker(spec: WorkerSpec) -> NoReturn:
    """Run a worker in a process of its own; never return."""
    status = 1
    # Nested: `_exit` must come whatever fails before it, since the stack below is the pool's.
    try:
        try:
            work(spec)
            status = 0
        except BaseException:
            say_traceback()
        finally:
            flush_output()
    finally:
        # No finalizers: in a fork they are the pool's. A worker that ends in order has already run
        # the functions of `atexit`.
        os._exit(status)


def _fork(worker: WorkerSpec, to_close: list[int]) -> int:
    flush_output()
    pool = os.getpid()
    try:
        pid = os.fork()
        if pid:
            return pid
        for descriptor in to_close:
            os.close(descriptor)
        run_worker(worker)
    finally:
        if os.getpid() != pool:
            os._exit(1)


def _spawn(ring: Ring, worker: WorkerSpec, project_bytes: bytes) -> int:
    order = {"pool": worker.pool, "life": worker.life, "bell": worker.bell}
    return launch(ring, project_bytes, worker=order, pass_fds=(worker.life, worker.bell))


def _threads() -> int:
    """Return the number of threads of this process, including those unknown to Python."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:  # no descriptor is free, or there is no /proc
        return threading.active_count()


def close_connections() -> None:
    """Close what set-up has opened: forked workers must not share a connection."""
    from django.core.cache import close_caches
    from django.db import connections

    opened = connections.all(initialized_only=True)
    for close in (*(connection.close for connection in opened), close_caches):
        try:
            close()
        except Exception:
            logger.exception("Closing what set-up had opened failed")
