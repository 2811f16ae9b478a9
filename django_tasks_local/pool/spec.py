"""Which ring an alias uses, and how: what its sites, its pool and the pool's workers agree on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.crypto import salted_hmac

from django_tasks_local import under_test
from django_tasks_local.options import Options
from django_tasks_local.ring import MEMORY, Limits, ring_name
from django_tasks_local.schedules import EMPTY, Schedule

from . import project
from .main_script import main_path

# The default namespace that this process was told, where it is a pool or a worker.
_told_namespace: list[str] = []


@dataclass(frozen=True)
class PoolSpec:
    """One ring and its pool, as one site wants them.

    Attributes:
        name: The ring's name.
        alias: The backend's alias.
        limits: The options that concern the ring.
        namespace: The default namespace, for the pool.
        temporary: A test run's ring, removed with it.
        schedule: Its periodic tasks.
        metrics: Whether the tasks that are enqueued are counted.
    """

    name: str
    alias: str
    limits: Limits
    namespace: str
    temporary: bool
    schedule: Schedule = EMPTY
    metrics: bool = False


def spec_of(alias: str, options: Options, run: str = "") -> PoolSpec:
    """Return the ring of an alias with these options. Attaches nothing.

    Args:
        alias: The backend's alias.
        options: Its options.
        run: The name of a test run to which this process no longer belongs.
    """
    default = _default_namespace()
    namespace = options.namespace or default
    run = run or under_test.test_run()
    directory = directory_of_rings(options)
    if run:  # for every alias, also in the pools of a test run
        namespace, directory = f"{namespace}:test:{run}", MEMORY
    limits = Limits(
        max_workers=options.max_workers,
        max_results=options.max_results,
        max_pending=options.max_pending,
        slot_size=options.slot_size,
        shm_size=options.shm_size,
        drain_timeout_s=options.drain_timeout,
        result_ttl_s=options.result_ttl,
        failure_ttl_s=options.failure_ttl,
        max_tasks_per_worker=options.max_tasks_per_worker,
        max_worker_memory=options.max_worker_memory,
        max_task_memory=options.max_task_memory,
        sync=options.sync,
    )
    name = ring_name(alias, namespace, directory)
    return PoolSpec(name, alias, limits, default, bool(run), options.schedule, options.metrics)


def directory_of_rings(options: Options) -> str:
    """Return where the rings of an alias lie that are not those of test runs."""
    # Most are in memory, and this is asked often.
    return MEMORY if options.directory == MEMORY else _without_links(options.directory)


@cache
def _without_links(directory: str) -> str:
    """Return the directory itself, as this process has seen it first: all names lead to one."""
    return os.path.realpath(directory)


def tell_namespace(namespace: str) -> None:
    """Make this process a pool, or a worker of one, of a site with this default namespace."""
    _told_namespace[:] = [namespace]


def is_guest() -> bool:
    """Return whether this is a pool or a worker, whose sites keep no other ring's pool alive."""
    return bool(_told_namespace)


def _default_namespace() -> str:
    """Return the namespace of all processes of one site, also after a move to a new directory."""
    if _told_namespace:
        return _told_namespace[0]
    return _derived_namespace(project.settings_module(), _secret_key())


@cache
def _derived_namespace(module: str, secret_key: str) -> str:
    if module and secret_key:
        return salted_hmac(
            "django_tasks_local.namespace", module, secret=secret_key, algorithm="sha256"
        ).hexdigest()
    # Not the main script where there is a module: several sites may share one gunicorn script.
    return project.settings_path() or main_path() or project.directory()


def _secret_key() -> str:
    try:
        return str(settings.SECRET_KEY)
    except ImproperlyConfigured:
        return ""
