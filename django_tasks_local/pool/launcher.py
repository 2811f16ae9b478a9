"""Starting a pool: a fresh interpreter in a session of its own."""

import os
import site
import subprocess
import sys
from multiprocessing.util import _args_from_interpreter_flags  # type: ignore[attr-defined]
from pathlib import Path

from django_tasks_local.store import Ring, standard_descriptors

from .preparation import Preparation

ADDED_PATH = "DJANGO_TASKS_LOCAL_ADDED_PATH"


# The pools that this process has started and not buried yet: pid and alias. A forked child's
# entries are its parent's children; waiting for them fails, which is as good as an end.
started: dict[int, str] = {}


def start_pool(ring: Ring, preparation: Preparation) -> None:
    """Starts ``python -m django_tasks_local.pool`` for a ring, without waiting for it.

    It inherits no thread, lock, socket or connection of this process; standard output and error
    it does, so that what it has to say is in the site's log. Ctrl-C in a terminal does not reach
    it. It ends at once, with status 0, where another pool was faster.

    Raises:
        StoreUnavailable: See `Preparation.dumps`.
        OSError: There is no interpreter to start, or no process can be made.
    """
    told = preparation.dumps()
    geometry = ring.segment.geometry
    # Or our end of its pipe may become our standard error, and a log line part of what it reads.
    with standard_descriptors(inheritable=True):
        process = subprocess.Popen(
            [
                *interpreter(), "-m", "django_tasks_local.pool", "--ring", ring.name,
                "--alias", ring.alias, "--slot-size", str(geometry.slot_size),
                "--slots", str(geometry.slots),
            ],
            stdin=subprocess.PIPE,
            start_new_session=True,
            env=_environment(),
        )  # fmt: skip
        assert process.stdin is not None
        try:
            with process.stdin as pipe:
                pipe.write(told)
        except BrokenPipeError:
            pass  # it has ended already; its exit status tells
    started[process.pid] = ring.alias
    process.returncode = 0  # `bury_pools` waits for it: an object would complain when it is dropped


def bury_pools() -> list[tuple[int, str, int]]:
    """Takes leave of pools that this process has started and that ended: (pid, alias, status)."""
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


def interpreter() -> list[str]:
    """The Python of this process, with its flags.

    Under uWSGI and mod_wsgi ``sys.executable`` is the server, hence the look at its name.
    """
    name = os.path.basename(sys.executable or "")
    if name.startswith(("python", "pypy")):
        executable = sys.executable
    else:
        executable = str(Path(sys.prefix, "bin", "python3"))
    return [executable, *_args_from_interpreter_flags()]


def _environment() -> dict[str, str]:
    """Our environment, with a way to this package where the interpreter has none of its own.

    The pool takes it out again (`forget_path`): its tasks' children are none of our business.
    """
    here = str(Path(__file__).resolve().parents[2])
    environment = dict(os.environ)
    environment.pop("RUN_MAIN", None)  # the pool is not what runserver's autoreload restarts
    if here not in site.getsitepackages():
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([here, inherited] if inherited else [here])
        environment[ADDED_PATH] = here
    return environment


def forget_path() -> None:
    """Takes back what `_environment` added; for the pool, once it has started."""
    added = os.environ.pop(ADDED_PATH, "")
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if added and paths[0] == added:
        if rest := os.pathsep.join(paths[1:]):
            os.environ["PYTHONPATH"] = rest
        else:
            del os.environ["PYTHONPATH"]
