"""ProcessPoolBackend: tasks in the worker processes of this host, results in its shared memory.

    handles (one per thread and asyncio context)  ->  sites of this process  ->  ring  <-  pool

A process has one site per ring, whatever number of handles; one that forked starts with none.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from functools import cache
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_finished, request_started
from django.tasks import task_backends
from django.utils.crypto import salted_hmac
from django.utils.module_loading import autodiscover_modules

from django_tasks_local import under_test
from django_tasks_local.exceptions import LocalTasksError
from django_tasks_local.options import Options
from django_tasks_local.pool import preparation
from django_tasks_local.pool.main_script import main_path
from django_tasks_local.pool.passing import remove
from django_tasks_local.pool.serving import is_request
from django_tasks_local.pool.site import Site, Terms
from django_tasks_local.pool.ticks import TICK_S
from django_tasks_local.store import Limits, Ring, Role, ring_exists, ring_name, sweep_passing

from .base import LocalBackend

if TYPE_CHECKING:
    from django_tasks_local.pool.preparation import Preparation

logger = logging.getLogger("django_tasks_local")

# What this process knows of itself: the sites by pid, effective uid and ring; the pids that serve
# requests, and when those that could not attach try again; the namespace that a pool was told.
# Guarded by the lock where it says so.
_sites: dict[tuple[int, int, str], Site] = {}
_sites_lock = threading.Lock()
_serving: set[int] = set()
_attach_again: dict[int, float] = {}
_told_namespace: list[str] = []
# What this process's test run wants of its rings, by their names. The lock guards it.
_passing: dict[str, Terms] = {}
_hooked: set[int] = set()  # pids of processes that remove them at exit


class ProcessPoolBackend(LocalBackend):
    """Runs tasks in worker processes, `MAX_WORKERS` on the host however many processes enqueue.

    Status, progress and results are in shared memory: every process of the same user and site can
    read them. Linux only.
    """

    kind = "process"

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self._site: Site | None = None

    def close(self) -> None:
        """Detaches this process from the ring. Tasks and results stay; the next use attaches."""
        with _sites_lock:
            for key, site in list(_sites.items()):
                if key[0] == os.getpid() and site.terms.alias == self.alias:
                    site.close()
                    del _sites[key]

    def site(self) -> Site:
        """This process's attachment to the alias's ring, made if need be.

        Raises:
            StoreUnavailable: The ring can't be used.
            ImproperlyConfigured: The options are wrong.
        """
        site = self._site
        if site is None or site.pid != os.getpid() or site.closed:
            site = self._site = _site(self.terms())
        return site

    def terms(self) -> Terms:
        """Which ring this alias uses, and how. Attaches nothing."""
        return _terms(self.alias, self.checked_options)

    _store = site


def _site(terms: Terms, ring: Ring | None = None) -> Site:
    key = (os.getpid(), os.geteuid(), terms.name)
    with _sites_lock:
        site = _sites.get(key)
        if site is None or site.closed:
            if terms.passing:
                sweep_passing()
            guest = bool(_told_namespace)
            site = _sites[key] = Site(terms, ring=ring, guest=guest)
            if terms.passing and not guest:
                _passing[terms.name] = terms
                _remove_rings_at_exit()
        if site.terms.limits != terms.limits:
            site.ring.set_limits(terms.limits)
            site.terms = terms
        site.serves = site.serves or key[0] in _serving
    return site


def _terms(alias: str, options: Options, run: str = "") -> Terms:
    default = _default_namespace()
    namespace = options.namespace or default
    run = run or under_test.test_run()
    if run:  # for every alias, also in the pools of a test run
        namespace = f"{namespace}:test:{run}"
    limits = Limits(
        max_workers=options.max_workers,
        max_results=options.max_results,
        max_pending=options.max_pending,
        slot_size=options.slot_size,
        shm_size=options.shm_size,
        drain_timeout_s=options.drain_timeout,
    )
    return Terms(ring_name(alias, namespace), alias, limits, default, bool(run))


def _default_namespace() -> str:
    """The same for every process of one site, also after a deploy to a new directory."""
    if _told_namespace:
        return _told_namespace[0]
    return _derived_namespace(preparation.settings_module(), _secret_key())


@cache
def _derived_namespace(module: str, secret_key: str) -> str:
    if module and secret_key:
        return salted_hmac(
            "django_tasks_local.namespace", module, secret=secret_key, algorithm="sha256"
        ).hexdigest()
    # Not the main script, where there is a module: under one gunicorn that is the same for all.
    return preparation.settings_path() or main_path() or preparation.directory()


def _secret_key() -> str:
    try:
        return str(settings.SECRET_KEY)
    except ImproperlyConfigured:
        return ""


def _attach_at_first_request(sender: object = None, **kwargs: Any) -> None:
    """A web process attaches before it enqueues: somebody must be there to run what waits.

    A page that uses no task must not wait for that: where somebody is inside the ring for long, a
    later request tries again.
    """
    pid = os.getpid()
    if pid in _serving and time.monotonic() < _attach_again.get(pid, math.inf):
        return
    if under_test.under_test() or not is_request(sender):
        return
    _serving.add(pid)
    _attach_again[pid] = time.monotonic() + TICK_S
    done: list[bool] = []
    _for_each_backend(lambda backend: done.append(backend.site().serve()))
    if all(done):
        _attach_again.pop(pid, None)


def attach_where_work_is() -> None:
    """A server that starts up keeps the pool of unfinished work alive before its first request.

    After a reload that may come late, and by then DRAIN_TIMEOUT would have ended what runs.
    """
    if not (under_test.under_test() or preparation.in_pool()):
        _for_each_backend(_expect_requests)


def _expect_requests(backend: ProcessPoolBackend) -> None:
    if ring_exists(backend.terms().name) and backend.site().ring.has_work():
        backend.site().expect_requests()


def _for_each_backend(do: Callable[[ProcessPoolBackend], None]) -> None:
    for alias in task_backends:
        try:
            backend = task_backends[alias]
            if isinstance(backend, ProcessPoolBackend):
                do(backend)
        except (LocalTasksError, ImproperlyConfigured) as error:
            # The process may need no task at all.
            logger.error("alias=%s can't attach: %s", alias, error)
        except Exception:
            logger.exception("alias=%s can't attach", alias)


def _forget_after_fork() -> None:
    """A child has no part in its parent's sites, nor in a lock that another thread held."""
    global _sites_lock
    _sites_lock = threading.Lock()
    _sites.clear()
    _passing.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
# The end counts as well: a project that is without our app, and imports its tasks together with its
# URLs, has made no backend yet when its first request starts.
for _signal in (request_started, request_finished):
    _signal.connect(_attach_at_first_request, dispatch_uid="django_tasks_local")


# --- the end of a test run ------------------------------------------------------------------------


def _remove_rings_at_exit() -> None:
    """Set the hook, once in each process of a test run."""
    if os.getpid() not in _hooked:
        _hooked.add(os.getpid())
        # Not atexit: before Python 3.13 processes of `test --parallel` run none of its functions.
        Finalize(None, _remove_rings, args=(under_test.test_run(),), exitpriority=0)


def _remove_rings(run: str = "") -> None:
    """Remove the rings of this process's test run, and end the pools there.

    Args:
        run: its name, where the test environment may have gone already.
    """
    run = run or under_test.test_run()
    with _sites_lock:
        for key in [key for key, site in _sites.items() if site.terms.passing]:
            _sites.pop(key).close()
        terms_by_name = dict(_passing)
        _passing.clear()

    # A task may have enqueued for another alias, whose ring this process has never used.
    def add(backend: ProcessPoolBackend) -> None:
        terms = _terms(backend.alias, backend.checked_options, run)
        terms_by_name[terms.name] = terms

    _for_each_backend(add)
    # Or it does so while we are at it. When a look finds nothing, all who could have ended; each
    # look ends those that it finds, so there are as many as aliases at most.
    for _ in range(len(terms_by_name) + 1):
        rings = [terms for name, terms in terms_by_name.items() if ring_exists(name)]
        for terms in rings:
            remove(Ring(terms.name, terms.alias, terms.limits, Role.VISITOR, passing=True))


under_test.at_end(_remove_rings)


# --- in a pool process ----------------------------------------------------------------------------


def serve(ring: Ring, told: Preparation, pickled: bytes, cleared: int) -> None:
    """Runs a pool that a site has started. The project is set up already."""
    from django_tasks_local.pool.serve import serve as serve_pool

    terms = _told_terms(ring.alias, ring.name, told)
    _import_tasks(ring.alias)
    serve_pool(
        terms, ring, told=pickled,
        adopt=lambda ring: _adopt(terms, ring), foreground=False, cleared=cleared,
        lender=told.lender, provisional=told.provisional,
    )  # fmt: skip


def work(alias: str, name: str, told: Preparation, *, pool: int, life: int, bell: int) -> None:
    """Runs one worker that a pool had to start fresh. It never returns."""
    from django_tasks_local.pool.serve import close_connections, run_worker
    from django_tasks_local.pool.worker import Post

    terms = _told_terms(alias, name, told)
    close_connections()
    backend_class = type(task_backends[alias])
    post = Post(name, alias, terms.limits, told.path, pool, life, bell, backend_class)
    run_worker(post, lambda ring: _adopt(terms, ring))


def serve_in_foreground(backend: ProcessPoolBackend) -> None:
    """Runs a pool in this process: the command ``local_worker``."""
    from django_tasks_local.pool.serve import serve_in_foreground as serve_pool

    terms = backend.terms()
    _told_namespace[:] = [terms.namespace]
    _import_tasks(backend.alias)
    serve_pool(terms, lambda ring: _adopt(terms, ring))


def _import_tasks(alias: str) -> None:
    """Before the fork: once instead of in every worker, and then compared with the disk."""
    try:
        autodiscover_modules("tasks")
    except Exception:
        logger.exception("alias=%s a tasks module can't be imported", alias)


def _told_terms(alias: str, name: str, told: Preparation) -> Terms:
    _told_namespace[:] = [told.namespace]
    backend = task_backends[alias]
    if not isinstance(backend, ProcessPoolBackend):
        raise ImproperlyConfigured(
            f"TASKS[{alias!r}] is a ProcessPoolBackend in the site that started this pool, and "
            f"{type(backend).__name__} here."
        )
    limits = _terms(alias, backend.checked_options).limits
    return Terms(name, alias, limits, told.namespace, bool(told.run))


def _adopt(terms: Terms, ring: Ring) -> None:
    """Tasks that use the backend use the worker's own attachment: a process has one."""
    _sites.clear()
    _site(terms, ring)
