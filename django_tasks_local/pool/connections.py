"""The sites of this process, one for each ring: what `django.db.connections` is for databases.

A process has one site per ring, whatever the number of backend objects; a forked process starts
with none.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from multiprocessing.util import Finalize
from typing import Protocol, cast

from django.core.exceptions import ImproperlyConfigured
from django.tasks import task_backends

from django_tasks_local import under_test
from django_tasks_local.exceptions import LocalTasksError
from django_tasks_local.options import Options
from django_tasks_local.own_backend import OwnBackend
from django_tasks_local.ring import Ring, Role, ring_exists, sweep_temporary

from . import temporary
from .site import Site
from .spec import PoolSpec, is_guest, spec_of

logger = logging.getLogger("django_tasks_local")

# By pid, effective uid and ring. The lock guards this dict, and what follows.
_sites: dict[tuple[int, int, str], Site] = {}
_lock = threading.Lock()
# The rings of this process's test run, by their names.
_temporary: dict[str, PoolSpec] = {}
_hooked: set[int] = set()  # pids of processes that remove them at exit
# The pids that serve requests: their sites never wait at exit.
serving: set[int] = set()


class PoolBackend(Protocol):
    """What this module needs of a ProcessPoolBackend."""

    alias: str

    @property
    def checked_options(self) -> Options:
        """The backend's options, complete."""

    def spec(self) -> PoolSpec:
        """Return which ring the backend uses."""

    def site(self) -> Site:
        """Return this process's attachment to that ring."""


def connect(spec: PoolSpec, ring: Ring | None = None) -> Site:
    """Return this process's site of a ring, made if need be.

    Args:
        spec: Which ring.
        ring: A worker's own attachment to it.

    Raises:
        StoreUnavailable: The ring cannot be used.
    """
    key = (os.getpid(), os.geteuid(), spec.name)
    with _lock:
        site = _sites.get(key)
        if site is None or site.closed:
            if spec.temporary:
                sweep_temporary()
            guest = is_guest()
            site = _sites[key] = Site(spec, ring=ring, guest=guest)
            if spec.temporary and not guest:
                _temporary[spec.name] = spec
                _remove_rings_at_exit()
        if site.spec != spec:
            site.change(spec)
        site.serves = site.serves or key[0] in serving
    return site


def use(spec: PoolSpec, ring: Ring) -> None:
    """Let tasks that use the backend share their worker's attachment: a process has only one."""
    _sites.clear()
    connect(spec, ring)


def close(alias: str) -> None:
    """Detach this process from the rings of an alias."""
    with _lock:
        for key, site in list(_sites.items()):
            if key[0] == os.getpid() and site.spec.alias == alias:
                site.close()
                del _sites[key]


def backend_of(alias: str) -> PoolBackend | None:
    """Return the ProcessPoolBackend of an alias; None where it is another backend."""
    backend = task_backends[alias]
    # By its kind, since the backends are above this module, and import it.
    is_process = isinstance(backend, OwnBackend) and backend.kind == "process"
    return cast(PoolBackend, backend) if is_process else None


def for_each_backend(do: Callable[[PoolBackend], object]) -> None:
    """Call ``do`` with each ProcessPoolBackend in ``TASKS``, and log what it raises."""
    for alias in task_backends:
        try:
            backend = backend_of(alias)
            if backend is not None:
                do(backend)
        except (LocalTasksError, ImproperlyConfigured) as error:
            # The process may need no task at all.
            logger.error("alias=%s cannot attach: %s", alias, error)
        except Exception:
            logger.exception("alias=%s cannot attach", alias)


def _forget_after_fork() -> None:
    """Drop the parent's sites in a forked child, and a lock that another thread may have held."""
    global _lock
    _lock = threading.Lock()
    _sites.clear()
    _temporary.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


# --- the end of a test run ------------------------------------------------------------------------


def _remove_rings_at_exit() -> None:
    """Set the hook, once in each process of a test run."""
    if os.getpid() not in _hooked:
        _hooked.add(os.getpid())
        # Not atexit: before Python 3.13 processes of `test --parallel` do not run its functions.
        Finalize(None, _remove_rings, args=(under_test.test_run(),), exitpriority=0)


def _remove_rings(run: str = "") -> None:
    """Remove the rings of this process's test run, and end their pools.

    Args:
        run: Its name, where the test environment may have gone already.
    """
    run = run or under_test.test_run()
    with _lock:
        for key in [key for key, site in _sites.items() if site.spec.temporary]:
            _sites.pop(key).close()
        specs = dict(_temporary)
        _temporary.clear()

    # A task may have enqueued for another alias, whose ring this process has never used.
    def add(backend: PoolBackend) -> None:
        spec = spec_of(backend.alias, backend.checked_options, run)
        specs[spec.name] = spec

    for_each_backend(add)
    # Or a task does so during the removal. When a pass finds no ring, every process that could
    # enqueue has ended; each pass ends those that it finds, so there is at most one per alias.
    for _ in range(len(specs) + 1):
        for spec in [spec for name, spec in specs.items() if ring_exists(name)]:
            temporary.remove(Ring(spec.name, spec.alias, spec.limits, Role.VISITOR, temporary=True))


under_test.at_end(_remove_rings)
