"""What the tests share: waiting with a limit, looking at the machine, and a real site."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, ClassVar, Final, Self
from uuid import uuid4

from tests.machine import (
    MARK,
    alive,
    all_pids,
    children_of,
    command_of,
    descendants_of,
    describe,
    mapped_objects,
    marked_pids,
    parent_of,
    shm_objects,
    unlink_shm,
    users_of,
)

__all__ = [
    "LONG_TIMEOUT",
    "MARK",
    "ROOT",
    "SHORT_TIMEOUT",
    "Site",
    "alive",
    "all_pids",
    "children_of",
    "command_of",
    "descendants_of",
    "describe",
    "end",
    "free_port",
    "kill",
    "mapped_objects",
    "marked_pids",
    "parent_of",
    "shm_objects",
    "stays",
    "unlink_shm",
    "users_of",
    "wait_for",
]

# A wait that ends here was too slow. Lower: false alarms on a loaded two-core machine, where
# starting an interpreter with Django in it takes a second or two. Higher: slow failures.
SHORT_TIMEOUT: Final = 15.0
# A wait that ends here hangs. Only for what has to start, drain or give up several times over.
LONG_TIMEOUT: Final = 60.0

FIRST_PAUSE_S: Final = 0.001
LONGEST_PAUSE_S: Final = 0.1

# How much of a site's log a failure shows, from its end.
LOG_CHARACTERS: Final = 20_000

ROOT: Final = Path(__file__).resolve().parent.parent


def wait_for[T](
    predicate: Callable[[], T], timeout_s: float = SHORT_TIMEOUT, message: str = ""
) -> T:
    """Call `predicate` until it returns something true, and return that.

    Raises:
        AssertionError: It did not within `timeout_s`; says what it returned last.
    """
    give_up = monotonic() + timeout_s
    pause_s = FIRST_PAUSE_S
    while not (value := predicate()):
        if monotonic() > give_up:
            what = message or getattr(predicate, "__qualname__", repr(predicate))
            raise AssertionError(f"waited {timeout_s:g} s for {what}; the last value was {value!r}")
        sleep(pause_s)
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
    return value


def stays(predicate: Callable[[], object], for_s: float, message: str = "") -> None:
    """Assert that `predicate` is true now and at every look during `for_s` seconds."""
    end = monotonic() + for_s
    while monotonic() < end:
        value = predicate()
        assert value, f"{message or predicate!r} did not last {for_s:g} s: {value!r}"
        sleep(LONGEST_PAUSE_S / 2)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def kill(pid: int, sig: int = signal.SIGKILL) -> None:
    """Send a signal; a process that is gone already is fine."""
    with suppress(ProcessLookupError):
        os.kill(pid, sig)


def end(pids: list[int], timeout_s: float = SHORT_TIMEOUT) -> None:
    """Kills processes and waits until they are gone (or zombies that others must reap)."""
    for pid in pids:
        kill(pid)
    wait_for(
        lambda: not any(map(alive, pids)), timeout_s, message=f"the end of killed processes {pids}"
    )


# --- a site under a real server ------------------------------------------------------------


# What wider fixtures hold open besides sites: each returns which of these pids belong to it.
HELD: list[Callable[[Iterable[int]], Iterable[int]]] = []


class Site:
    """A real web server on 127.0.0.1, in processes of its own, for the length of a `with` block.

    Every request goes over a fresh connection, so that all web workers get their share. On the way
    out the server gets SIGTERM; then every process that it started, pools included, has to be gone
    within `end_timeout_s`. What is not is killed, and the test fails naming it. Rings may stay:
    see conftest's `namespace`.

    Args:
        app: ``module:attribute`` of the WSGI or ASGI application; not used by runserver.
        server: "gunicorn", "gevent", "uvicorn" or "runserver".
        workers: Web worker processes (runserver has one).
        threads: More than 1 makes gunicorn's workers gthread ones.
        args: More arguments for the server's command line.
        env: Environment variables on top of this process's; None as a value removes one.
        settings: DJANGO_SETTINGS_MODULE.
        cwd: The working directory; the repository's root by default.
        ready_path: What is asked for until it is answered, whatever the status; None: it is enough
            that somebody listens, and no request is made.
        end_timeout_s: For how long its processes may outlive SIGTERM.
    """

    # Those whose `with` block is open. A module's fixture may keep one over many tests, and what
    # it starts in the middle of one of them is no leak of that test.
    running: ClassVar[list["Site"]] = []
    # Objects that a site had mapped when its block ended.
    objects_seen: ClassVar[set[str]] = set()

    def __init__(
        self,
        app: str = "tests.site.wsgi:application",
        *,
        server: str = "gunicorn",
        workers: int = 2,
        threads: int = 1,
        args: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        settings: str = "tests.settings",
        cwd: Path = ROOT,
        ready_path: str | None = "/",
        end_timeout_s: float = SHORT_TIMEOUT,
    ) -> None:
        self.port = free_port()
        self.mark = f"{os.environ.get(MARK, 'unmarked')}.{uuid4().hex[:8]}"
        self.workers = workers
        address = f"127.0.0.1:{self.port}"
        gunicorn = ["gunicorn", app, "--bind", address, "--workers", str(workers)]
        gunicorn += ["--no-control-socket", "--threads", str(threads), "--worker-class"]
        uvicorn = ["uvicorn", app, "--host", "127.0.0.1", "--port", str(self.port)]
        commands = {
            "gunicorn": [*gunicorn, "sync" if threads == 1 else "gthread"],
            "gevent": [*gunicorn, "gevent"],
            "uvicorn": [*uvicorn, "--workers", str(workers)],
            "runserver": ["django", "runserver", address],
        }
        self._command = [sys.executable, "-m", *commands[server], *args]
        self._has_children = workers > 1 or server in ("gunicorn", "gevent", "runserver")
        self._has_children &= "--noreload" not in args
        self._environ = _environ(
            {
                "DJANGO_SETTINGS_MODULE": settings,
                "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH")])),
                "PYTHONFAULTHANDLER": "1",
                **(env or {}),
                MARK: self.mark,
            }
        )
        self._cwd = cwd
        self._ready_path = ready_path
        self._end_timeout_s = end_timeout_s
        self._log_directory = tempfile.TemporaryDirectory(prefix="dtl-site-")
        self._log_path = Path(self._log_directory.name, "log")
        self._final_log: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.running.append(self)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environ,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for(self._answers, LONG_TIMEOUT, message=f"an answer from {self._command}")
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        assert self._process is not None
        self.running.remove(self)
        self.objects_seen.update(self.objects())
        if self._process.poll() is None:
            self._process.terminate()
        else:  # a test killed it; gunicorn's workers take half their time-out to notice
            for pid in set(self.pids()) - set(self.pool_pids()):
                kill(pid, signal.SIGTERM)
        with suppress(AssertionError):
            wait_for(self._gone, self._end_timeout_s)
        left = self.pids()
        report = describe(left)
        end(left)
        self._process.wait()
        self._final_log = self.log()
        self._log_directory.cleanup()
        if error is not None:
            error.add_note(f"The site's log:\n{self._final_log[-LOG_CHARACTERS:]}")
        elif left:
            raise AssertionError(
                f"{len(left)} processes outlived the site by {self._end_timeout_s:g} s:\n{report}\n"
                f"The site's log:\n{self._final_log[-LOG_CHARACTERS:]}"
            )

    @property
    def pid(self) -> int:
        """The server's own process: gunicorn's master, runserver's reloader."""
        assert self._process is not None
        return self._process.pid

    def get(self, path: str, timeout_s: float = SHORT_TIMEOUT) -> tuple[int, Any]:
        """Return the status and the body (decoded where it is JSON, else text)."""
        return self._request("GET", path, None, timeout_s)

    def post(
        self, path: str, data: object = None, timeout_s: float = SHORT_TIMEOUT
    ) -> tuple[int, Any]:
        """Send the same with `data` as the JSON body."""
        return self._request("POST", path, json.dumps(data).encode(), timeout_s)

    def worker_pids(self) -> list[int]:
        """Live web workers, oldest first; the server itself where it serves alone."""
        if not self._has_children:
            return [self.pid]
        helpers = ("django_tasks_local.pool", "multiprocessing.resource_tracker")
        children = children_of(self.pid)
        return [pid for pid in children if not any(name in command_of(pid) for name in helpers)]

    def pool_pids(self) -> list[int]:
        """Live processes of the pools that this site started: supervisors and their workers."""
        return [pid for pid in self.pids() if "django_tasks_local.pool" in command_of(pid)]

    def pids(self) -> list[int]:
        """All live processes that come from this site."""
        return marked_pids(self.mark)

    def objects(self) -> set[str]:
        """Names of the rings' objects that its processes have mapped."""
        return set().union(*map(mapped_objects, self.pids()))

    def kill(self, pid: int, sig: int = signal.SIGKILL) -> None:
        """Send a signal to any process."""
        kill(pid, sig)

    def kill_all(self) -> None:
        """Kills every process that comes from this site, and waits until none holds anything."""
        killed = {self.pid}
        kill(self.pid)

        def ended() -> bool:
            pids = self.pids()
            killed.update(pids)
            for pid in pids:
                kill(pid)
            return not pids and not any(map(alive, killed))

        wait_for(ended, message="the end of a site")

    def log(self) -> str:
        """Return what the site's processes have written to stdout and stderr so far."""
        if self._final_log is not None:
            return self._final_log
        return self._log_path.read_text(errors="replace")

    def _answers(self) -> bool:
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"the server ended with exit code {code}"
        try:
            if self._ready_path is not None:
                self.get(self._ready_path)
            else:
                socket.create_connection(("127.0.0.1", self.port), SHORT_TIMEOUT).close()
        except (OSError, http.client.HTTPException):
            return False
        return True

    def _gone(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None and not self.pids()

    def _request(
        self, method: str, path: str, body: bytes | None, timeout_s: float
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        headers = {"Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        with closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
            is_json = (response.getheader("Content-Type") or "").startswith("application/json")
        return response.status, json.loads(content) if is_json else content.decode()


def _environ(changes: Mapping[str, str | None]) -> dict[str, str]:
    merged = {**os.environ, **changes}
    return {key: value for key, value in merged.items() if value is not None}
