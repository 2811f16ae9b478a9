"""Start and stop a real gunicorn, and ask it for things."""

import contextlib
import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self


class Gunicorn:
    """gunicorn on a free port of 127.0.0.1, for the length of a `with` block.

    Args:
        application: `module:callable`.
        folder: The directory to run in.
        env: Added to the environment.
        workers: Number of web workers.
        more: Further arguments of gunicorn.
    """

    def __init__(
        self, application: str, folder: Path, env: dict[str, str], workers: int = 4, *more: str
    ) -> None:
        if importlib.util.find_spec("gunicorn") is None:
            raise RuntimeError("gunicorn is not installed")
        self.workers = workers
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        options = ["--workers", str(workers), "--log-level", "warning"]
        address = f"127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", application, "--bind", address, *options, *more],
            cwd=folder,
            env=os.environ | env,
            stdout=self.log,
            stderr=self.log,
        )

    def get(self, path: str) -> str:
        """Return the body of an answer, over a connection of its own.

        Raises:
            RuntimeError: The status is not 200.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
        if answer.status != 200:
            raise RuntimeError(f"GET {path}: status {answer.status}; {self.last_words()}")
        return body

    def last_words(self) -> str:
        """Return the end of gunicorn's log, where an exception stands."""
        self.log.seek(0)
        return (self.log.read().strip().splitlines() or ["nothing in the log"])[-1]

    def every_worker(self, path: str) -> None:
        """Let each web worker answer `path` at least once, a view that takes a while."""
        answered: set[str] = set()
        give_up = time.monotonic() + 30
        with ThreadPoolExecutor(2 * self.workers) as clients:
            while len(answered) < self.workers and time.monotonic() < give_up:
                answered.update(clients.map(self.get, [path] * 2 * self.workers))

    def __enter__(self) -> Self:
        give_up = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > give_up:
                    self.stop()
                    raise RuntimeError(f"gunicorn did not start; {self.last_words()}") from None
                time.sleep(0.02)

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        self.log.close()

    def stop(self) -> None:
        """End gunicorn as an init system does; its workers go with it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
