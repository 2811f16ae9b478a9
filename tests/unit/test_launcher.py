"""How a pool's interpreter is found, and what it inherits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from django_tasks_local.pool import launcher


@pytest.mark.parametrize("name", ["python", "python3.12", "pypy3"])
def test_our_own_interpreter(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A Python is started again as it is."""
    monkeypatch.setattr(sys, "executable", f"/somewhere/{name}")
    assert launcher.interpreter()[0] == f"/somewhere/{name}"


@pytest.mark.parametrize("executable", ["/usr/bin/uwsgi", "/usr/sbin/apache2", "", None])
def test_an_embedded_interpreter(monkeypatch: pytest.MonkeyPatch, executable: str | None) -> None:
    """uWSGI and mod_wsgi name themselves as the executable: the one of the prefix is taken."""
    monkeypatch.setattr(sys, "executable", executable)
    assert launcher.interpreter()[0] == str(Path(sys.prefix, "bin", "python3"))


def test_the_same_flags() -> None:
    """-O and -W of the site count for its pool, too."""
    code = "from django_tasks_local.pool.launcher import interpreter; print(*interpreter())"
    told = subprocess.run(
        [sys.executable, "-O", "-W", "ignore", "-c", code],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert "-O" in told
    assert "-Wignore" in told


@pytest.mark.parametrize("before", [None, "/elsewhere"])
def test_the_way_to_this_package(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    """It is added to PYTHONPATH where it is not installed, and taken back in the pool."""
    if before is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", before)
    here = str(Path(launcher.__file__).resolve().parents[2])
    environment = launcher._environment()
    assert environment["PYTHONPATH"].split(os.pathsep) == [here, *([before] if before else [])]
    for key in ("PYTHONPATH", launcher.ADDED_PATH):
        monkeypatch.setenv(key, environment[key])
    launcher.forget_path()
    assert os.environ.get("PYTHONPATH") == before
    assert launcher.ADDED_PATH not in os.environ


def test_an_installed_package_needs_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """In site-packages it is found without help."""
    here = str(Path(launcher.__file__).resolve().parents[2])
    monkeypatch.setattr("site.getsitepackages", lambda: [here])
    assert launcher.ADDED_PATH not in launcher._environment()


def test_ended_pools_are_buried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With their status; one that somebody else has waited for counts as ended."""
    monkeypatch.setattr(launcher, "started", {})
    done = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(3)"])
    lost = subprocess.Popen([sys.executable, "-c", ""])
    os.waitpid(lost.pid, 0)
    launcher.started.update({done.pid: "one", lost.pid: "two"})
    os.waitid(os.P_PID, done.pid, os.WEXITED | os.WNOWAIT)
    for process in (done, lost):
        process.returncode = 0
    assert sorted(launcher.bury_pools()) == sorted([(done.pid, "one", 3), (lost.pid, "two", 0)])
    assert launcher.bury_pools() == []
