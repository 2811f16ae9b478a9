"""A pool from the inside: attach, and give the supervisor its way to make workers."""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from django.tasks import task_backends

from django_tasks_local.store import (
    Ring,
    Role,
    attach_segment,
    fill_standard_descriptors,
)
from django_tasks_local.streams import flush_output, say_traceback

from . import preparation
from .code import digest_of
from .launcher import launch
from .preparation import Preparation
from .site import Terms
from .supervisor import TURN_S, Supervisor
from .worker import Post, work

logger = logging.getLogger("django_tasks_local")

type Adopt = Callable[[Ring], None]


def serve(
    terms: Terms, ring: Ring, *, told: bytes, adopt: Adopt, foreground: bool, cleared: int,
    lender: int = 0, provisional: bool = False,
) -> None:  # fmt: skip
    """Runs a pool in this process until it ends.

    Args:
        terms: Which ring.
        ring: Attached to it as POOL.
        told: The pickled preparation, for workers that are started fresh.
        adopt: Makes the backend use a worker's own attachment.
        foreground: Whether it stays when no site is left.
        cleared: The serial of the newest site of its code when this process had loaded nothing yet.
        lender: See `Preparation`.
        provisional: The same.
    """
    close_connections()

    def start_worker(life: int, bell: int, to_close: list[int]) -> int:
        post = Post(
            terms.name, terms.alias, terms.limits, ring.path, ring.registry.index, life, bell,
            type(task_backends[terms.alias]),
        )  # fmt: skip
        if _threads() > 1:
            # A fork would copy the locks that those threads hold, for ever locked.
            return _spawn(ring, post, told)
        return _fork(post, adopt, to_close)

    try:
        Supervisor(
            ring, start_worker, foreground=foreground, cleared=cleared, lender=lender,
            provisional=provisional,
        ).run()  # fmt: skip
    finally:
        ring.detach()


def serve_in_foreground(terms: Terms, adopt: Adopt) -> None:
    """Runs a pool in this process, whose project is set up; takes over from one that serves."""
    fill_standard_descriptors()
    path = preparation.site_path()
    told = Preparation.of_this_process(terms.namespace, path).dumps()
    attach_segment(terms.name, terms.limits.geometry)  # makes it, as a pool does not
    ring = Ring(
        terms.name, terms.alias, terms.limits, Role.POOL,
        path=path, digest=digest_of(path), passing=terms.passing,
    )  # fmt: skip
    cleared = ring.leadership.newest_site()
    while not ring.leadership.take_successor():
        time.sleep(TURN_S)
    serve(terms, ring, told=told, adopt=adopt, foreground=True, cleared=cleared)


def run_worker(post: Post, adopt: Adopt) -> NoReturn:
    """A worker's life in a process of its own; it never returns."""
    status = 1
    # Nested, since `_exit` must come whatever fails before it: the stack below us is the pool's.
    try:
        try:
            work(post, adopt)
            status = 0
        except BaseException:
            say_traceback()
        finally:
            flush_output()
    finally:
        # No finalizers: in a fork they are the pool's. A worker that ends in order has run what
        # `atexit` knows.
        os._exit(status)


def _fork(post: Post, adopt: Adopt, to_close: list[int]) -> int:
    flush_output()
    pool = os.getpid()
    try:
        pid = os.fork()
        if pid:
            return pid
        for descriptor in to_close:
            os.close(descriptor)
        run_worker(post, adopt)
    finally:
        if os.getpid() != pool:
            os._exit(1)


def _spawn(ring: Ring, post: Post, told: bytes) -> int:
    worker = {"pool": post.pool, "life": post.life, "bell": post.bell}
    return launch(ring, told, worker=worker, pass_fds=(post.life, post.bell))


def _threads() -> int:
    """The threads of this process, those that Python knows nothing of included."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:  # no descriptor is free, or there is no /proc
        return threading.active_count()


def close_connections() -> None:
    """Closes what set-up has opened: a connection must not be shared with forked workers."""
    from django.core.cache import close_caches
    from django.db import connections

    opened = connections.all(initialized_only=True)
    for close in (*(connection.close for connection in opened), close_caches):
        try:
            close()
        except Exception:
            logger.exception("Closing what set-up had opened failed")
