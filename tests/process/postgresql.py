"""A PostgreSQL server of the tests' own: no service, no port, nothing left behind."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final, Self

import pytest

from tests.support import LONG_TIMEOUT, MARK, wait_for

USER: Final = "postgres"  # inside the server
# It refuses to run as root.
ACCOUNT: Final[dict[str, Any]] = (
    {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
)
NEEDED: Final = os.environ.get("CI") or os.environ.get("DTL_TESTS_NEED_POSTGRESQL")


class PostgreSQL:
    """A server in a temporary directory, reachable through a Unix socket there.

    Attributes:
        folder: Where the socket is, for ``DATABASES[...]["HOST"]``.
    """

    def __init__(self) -> None:
        self._programs = _programs()
        self.folder = tempfile.mkdtemp(prefix="dtl-pg-")  # a socket's path must be short
        if ACCOUNT:
            shutil.chown(self.folder, ACCOUNT["user"], ACCOUNT["group"])
        self._data = f"{self.folder}/data"
        self._environ = {name: value for name, value in os.environ.items() if name != MARK}
        self._run("initdb", "-D", self._data, "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        self._server = subprocess.Popen(
            [
                self._programs / "postgres", "-D", self._data, "-k", self.folder,
                "-c", "listen_addresses=", "-c", "fsync=off",
                "-c", "dynamic_shared_memory_type=mmap",
            ],
            env=self._environ, cwd=self.folder, stderr=subprocess.DEVNULL, **ACCOUNT,
        )  # fmt: skip

    def __enter__(self) -> Self:
        wait_for(lambda: self.query("SELECT 1") == ["1"], LONG_TIMEOUT)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(LONG_TIMEOUT)
        shutil.rmtree(self.folder)

    def query(self, sql: str) -> list[str]:
        """The rows, one line each; none where the server does not answer."""
        command = ["-h", self.folder, "-U", USER, "-d", "postgres", "-Atc", sql]
        return self._run("psql", *command, check=False).splitlines()

    def _run(self, program: str, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [self._programs / program, *arguments],
            env=self._environ, cwd=self.folder, check=check, text=True, capture_output=True,
            timeout=LONG_TIMEOUT, **ACCOUNT,
        )  # fmt: skip
        return str(done.stdout)


def _programs() -> Path:
    # Debian keeps the server out of PATH, one folder for each version.
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.get_exec_path())]
    for place in places:
        if all((place / name).exists() for name in ("initdb", "postgres", "psql")):
            return place
    if NEEDED:
        pytest.fail("there is no PostgreSQL; .ci/run installs it")
    pytest.skip("there is no PostgreSQL here; as root `apt-get install postgresql`")
