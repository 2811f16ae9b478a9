"""The stage of the demo: a gunicorn of its own, a way to ask it, and an orderly end."""

import contextlib
import http.client
import http.cookiejar
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

SITE = Path(__file__).resolve().parent / "site"
WEB_WORKERS = 4
ASK_AT_ONCE = 4  # as many questions as web workers: one that is busy leaves the next to another
LOOK_EVERY_S = 0.1  # shorter: the questions take the processor from the tasks
LOG_TAIL_LINES = 30
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what asks the demo to stop


class StageError(Exception):
    """Something that the demo needs did not happen. The text says what."""


def wait_for[T](look: Callable[[], T], what: str, timeout_s: float) -> T:
    """Call `look` until it returns something true, and return that.

    Raises:
        StageError: `timeout_s` is over.
    """
    ends_at = time.monotonic() + timeout_s
    while not (seen := look()):
        if time.monotonic() > ends_at:
            raise StageError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(LOOK_EVERY_S)
    return seen


class Client:
    """A client of the site over HTTP, with a new connection for each request."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),  # a proxy of the shell has no business on 127.0.0.1
            urllib.request.HTTPCookieProcessor(self._cookies),
        )

    def get(self, path: str) -> dict[str, Any]:
        """Return a JSON document; `{"error": …}` where the site knows of no such thing."""
        try:
            answer: dict[str, Any] = json.loads(self.read(path))
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise StageError(f"GET /{path}: {error}") from error
            answer = json.loads(error.read())
        return answer

    def read(self, path: str) -> bytes:
        """Return a body. Ask again if a worker was killed in the middle of its answer."""
        try:
            return self._open(path)
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException):
            return self._open(path)

    def post(self, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Send a JSON object, with the CSRF token that the page gave us as a cookie."""
        if not self._token():
            self._open("")
        headers = {"Content-Type": "application/json", "X-CSRFToken": self._token()}
        try:
            answer: dict[str, Any] = json.loads(
                self._open(path, json.dumps(fields).encode(), headers)
            )
        except urllib.error.HTTPError as error:
            raise StageError(f"POST /{path}: {error}") from error
        return answer

    def ask(self, paths: list[str]) -> list[dict[str, Any]]:
        """Get all of them, some at the same time."""
        with ThreadPoolExecutor(ASK_AT_ONCE) as threads:
            return list(threads.map(self.get, paths))

    def web_pids(self) -> set[int]:
        """Return the web workers that took part in answering a handful of questions."""
        return {answer["web_pid"] for answer in self.ask(["whoami/"] * WEB_WORKERS * 2)}

    def _open(self, path: str, body: bytes | None = None, headers: Any = None) -> bytes:
        request = urllib.request.Request(self.url + path, body, headers or {})
        with self._opener.open(request, timeout=30) as response:
            answer: bytes = response.read()
            return answer

    def _token(self) -> str:
        return next((c.value or "" for c in self._cookies if c.name.endswith("csrftoken")), "")


@dataclass
class Stage:
    """Gunicorn with the example site, alone in its NAMESPACE."""

    port: int = 0
    namespace: str = field(default_factory=lambda: f"demo-{os.getpid()}-{time.time_ns()}")
    leftovers: list[str] = field(default_factory=list)  # what the end found that should be gone

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="django-tasks-local-demo-")
        self.log = Path(self._folder.name) / "gunicorn.log"
        self._shared_memory: set[str] = set()
        self._environ = os.environ | {
            "DJANGO_SETTINGS_MODULE": "example_site.settings",
            "EXAMPLE_NAMESPACE": self.namespace,
        }
        # We listen and gunicorn inherits the socket: no one can take the port in between.
        with _listen(self.port) as listener:
            host, port = listener.getsockname()
            self.client = Client(f"http://{host}:{port}/")
            self.gunicorn = self._start_gunicorn(listener.fileno())
        return self

    def _start_gunicorn(self, fd: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gunicorn", "example_site.wsgi"]
        options = ["--bind", f"fd://{fd}", "--workers", str(WEB_WORKERS), "--log-level", "warning"]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command + options,
                cwd=SITE,
                env=self._environ,
                pass_fds=[fd],
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours to handle
            )

    def web_workers(self, without: int | None = None) -> list[int]:
        """Return the pids of all four web workers, once each has answered.

        Args:
            without: A pid that was killed and must not be among them.
        """
        seen: set[int] = set()

        def all_there() -> bool:
            if self.gunicorn.poll() is not None:
                raise StageError(f"gunicorn ended with status {self.gunicorn.returncode}")
            with contextlib.suppress(OSError):
                seen.update(self.client.web_pids() - {without})
            return len(seen) >= WEB_WORKERS

        wait_for(all_there, f"{WEB_WORKERS} web workers answer", timeout_s=20)
        return sorted(seen)

    def note_shared_memory(self) -> None:
        """Remember which objects in /dev/shm are ours, so that the end can look for them."""
        for pid in self._processes():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                    path = line.rpartition(" ")[2]
                    if path.startswith("/dev/shm/") and "dtl-" in path:
                        self._shared_memory.add(path)

    def _processes(self) -> list[int]:
        """Return all processes of this demo: they inherit the environment with our NAMESPACE."""
        mark = f"EXAMPLE_NAMESPACE={self.namespace}\0".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C would leave behind what the first one set out to clean up.
        previous = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
        try:
            self._stop_gunicorn()
            self._wait_for_the_pool()
            self._remove_shared_memory()
        finally:
            self._folder.cleanup()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop_gunicorn(self) -> None:
        self.note_shared_memory()
        self.gunicorn.terminate()
        try:
            self.gunicorn.wait(timeout=40)  # gunicorn gives its workers 30 s
        except subprocess.TimeoutExpired:
            self.leftovers.append("gunicorn did not stop")
            self.gunicorn.kill()

    def _wait_for_the_pool(self) -> None:
        """Wait for the pool, which nobody stops: it goes when the last web worker has gone."""
        try:
            wait_for(lambda: not self._processes(), "the pool ends", timeout_s=15)
        except StageError:
            for pid in self._processes():
                self.leftovers.append(f"process {pid} was still there")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _remove_shared_memory(self) -> None:
        # The ring outlives its processes by design: results survive a restart of the site. A demo
        # wants to leave nothing, so it does what an administrator would do.
        destroy = subprocess.run(
            [sys.executable, "manage.py", "local_tasks", "destroy", "--no-input"],
            cwd=SITE,
            env=self._environ,
            capture_output=True,
            text=True,
        )
        if destroy.returncode:
            self.leftovers.append(f"local_tasks destroy: {destroy.stderr.strip()}")
        self.leftovers += [path for path in sorted(self._shared_memory) if Path(path).exists()]

    def log_tail(self) -> str:
        """Return the last lines that gunicorn and the pool wrote."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])


@contextlib.contextmanager
def _listen(port: int) -> Iterator[socket.socket]:
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError as error:
        why = os.strerror(error.errno or 0)  # error.strerror says the address once more
        raise StageError(f"port {port} of 127.0.0.1 cannot be used: {why}") from error
    with listener:
        yield listener
