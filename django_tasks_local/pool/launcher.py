"""Start a pool: a fresh interpreter in a session of its own."""

import logging
import os
import pickle
import signal
import subprocess
from dataclasses import astuple
from typing import Any, BinaryIO, Final

from django_tasks_local.ring import Ring, standard_descriptors

from . import project
from .interpreter import interpreter
from .project import Preparation

logger = logging.getLogger("django_tasks_local")

# The site's own sys.path comes before any of our imports: our package, posix_ipc and Django may
# each lie in a place that only the site's launcher knows (PEX, Nix, buildout, Bazel). It comes over
# standard input, not in PYTHONPATH, which programs that a task starts would inherit.
BOOTSTRAP: Final = """
import pickle, sys
sys.path[:], order = pickle.load(sys.stdin.buffer)
from django_tasks_local.pool.entry import main
sys.exit(main(order))
"""

# The pools that this process has started and not reaped yet: pid and alias. In a forked child, the
# entries are its parent's children; waiting for them fails, which counts as an end.
started: dict[int, str] = {}


def start_pool(ring: Ring, preparation: Preparation) -> None:
    """Start a pool for a ring, without waiting for it.

    The pool inherits no thread, lock, socket or connection of this process, but does inherit
    standard output and error, so that its messages are in the site's log. Ctrl-C in a terminal
    does not reach it. It ends at once, with status 0, where another pool was faster.

    Raises:
        StoreUnavailable: See `Preparation.dumps` and `interpreter`.
        OSError: No process can be made.
    """
    pid = launch(ring, preparation.dumps(), start_new_session=True)
    started[pid] = ring.alias


def launch(
    ring: Ring, project_bytes: bytes, *, worker: dict[str, int] | None = None, **options: Any
) -> int:
    """Start a fresh interpreter as a pool of a ring, or as a worker, and return its pid.

    Args:
        ring: The ring.
        project_bytes: The pickled `Preparation`.
        worker: For a worker: its pool's entry, and the descriptors of its life pipe and its bell.
        options: For ``subprocess.Popen``.
    """
    geometry = ring.segment.geometry
    order = {
        "ring": ring.name,
        "alias": ring.alias,
        "slot_size": geometry.slot_size,
        "slots": geometry.slots,
        "limits": astuple(ring.attachment.limits),
        "code": ring.registry.code,
        "digest": ring.attachment.digest,
        "directory": project.directory(),
        "worker": worker,
    }
    # What follows the code is for `ps` alone. An alias may be any text.
    shown = [f"--ring={ring.name}", f"--alias={ascii(ring.alias)[1:-1]}"]
    if worker is not None:
        shown.append(f"--worker-of={worker['pool']}")
    content = pickle.dumps((project.import_paths(), order)) + project_bytes
    # Otherwise our end of its file may become our standard error, and it may read a log line.
    with standard_descriptors(inheritable=True), _file(content) as file:
        process = subprocess.Popen(
            [*interpreter(), "-c", BOOTSTRAP, "django_tasks_local.pool", *shown],
            stdin=file,
            env=project.environment(),
            **options,
        )
    process.returncode = 0  # others wait for it; without this, Popen warns when it is dropped
    return process.pid


def _file(content: bytes) -> BinaryIO:
    """Return a nameless file with ``content``.

    Not a pipe: where a pipe cannot hold it all, a child that hangs before it reads would hang us.
    """
    file = os.fdopen(os.memfd_create("django-tasks-local"), "w+b")
    file.write(content)
    file.seek(0)
    return file


def collect_ended_pools() -> list[tuple[int, str, int]]:
    """Wait for pools of this process that have ended, and return (pid, alias, status) of each."""
    ended = []
    for pid, alias in list(started.items()):
        try:
            gone, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # the server has waited for it, or it is our parent's
            gone, status = pid, 0
        if gone:
            started.pop(pid, None)
            ended.append((pid, alias, os.waitstatus_to_exitcode(status)))
    return ended


def log_ended_pools() -> None:
    """Wait for pools that have ended, and log those that did not end in order."""
    for pid, alias, status in collect_ended_pools():
        if status > 0:
            logger.error(
                "alias=%s the pool (pid %d) ended with status %d; its traceback is on standard "
                "error. Tasks stay READY, and the site tries again.", alias, pid, status,
            )  # fmt: skip
        elif status < 0:
            logger.error(
                "alias=%s the pool (pid %d) was killed by signal %d (%s). What ran in it is lost; "
                "what waits stays READY, and the site starts another pool.",
                alias, pid, -status, signal.strsignal(-status),
            )  # fmt: skip
