"""Where a pool, or a worker that its pool starts fresh, begins in its new interpreter.

Until it has taken the successor's place, it imports neither Django nor the project: where several
sites start a pool at once, all but one end here within milliseconds.
"""

import os
import pickle
import signal
import sys
from contextlib import suppress
from typing import Any

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import (
    Geometry,
    Leadership,
    Limits,
    Ring,
    Role,
    attach_segment,
    fill_standard_descriptors,
)
from django_tasks_local.streams import forgive_output, say, say_traceback

from .loggers import kept_enabled


def main(order: dict[str, Any]) -> int:
    """Serve one ring until it is time to go.

    Args:
        order: What `launcher.launch` sends; the pickled preparation follows on standard input.

    Returns:
        0, also where another pool was faster; 1, with a traceback on standard error, where the
        project cannot be imported.
    """
    fill_standard_descriptors()
    forgive_output()
    _reset_signals()
    _enter(order["directory"])
    geometry = Geometry(order["slot_size"], order["slots"])
    try:
        leadership = Leadership(attach_segment(order["ring"], geometry, make=False), order["code"])
    except StoreUnavailable as error:
        say(f"django-tasks-local: no pool: {error}")
        return 0
    runnable_up_to = leadership.newest_site()
    worker = order.get("worker")
    if worker is None:
        # While we hold this place, no other code takes this code's number.
        if not leadership.take_successor() or leadership.digest() != order["digest"]:
            return 0
        if leadership.pool_alive() and not leadership.successor_wanted(runnable_up_to, server=True):
            return 0
    project_bytes = sys.stdin.buffer.read()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # no task waits for input
    os.close(null)

    preparation = pickle.loads(project_bytes)
    if worker is None:
        # Before the project is imported: `local_tasks status` must show a pool that hangs there.
        ring = Ring(
            order["ring"], order["alias"], Limits(*order["limits"]), Role.POOL,
            path=preparation.path, digest=order["digest"], temporary=bool(preparation.run),
        )  # fmt: skip
    status = 0
    try:
        with kept_enabled():
            preparation.apply()

        from . import serve

        if worker is None:
            serve.serve_started(ring, preparation, project_bytes, runnable_up_to)
        else:
            serve.work_fresh(order["alias"], order["ring"], preparation, **worker)
    except Exception:
        say_traceback()
        status = 1
    finally:
        if worker is None:
            ring.attachment.detach()
    from .copies import run_exit_functions

    run_exit_functions()  # with a limit: a thread left from set-up would keep us alive for ever
    return status


def _reset_signals() -> None:
    """Unblock all signals, and ignore only those that Python itself ignores.

    The inherited mask is that of the thread that enqueued first: servers (uWSGI, mod_wsgi) block
    all signals in their threads. What the starter ignores (SIGINT and SIGQUIT behind a shell's
    ``&``, SIGHUP under nohup) would stay ignored in every program that a task starts.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN and number not in (
            signal.SIGPIPE,
            signal.SIGXFSZ,
        ):
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            with suppress(OSError, ValueError):
                signal.signal(number, default)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _enter(directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError:  # removed since the site was loaded, or not open to this user
        os.chdir("/")
