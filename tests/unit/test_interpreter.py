"""How the interpreter of a pool is found."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.pool import interpreter as module
from django_tasks_local.pool.interpreter import interpreter

VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
REAL = os.path.realpath(sys.executable)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Forgets what was found before, and what a test has found."""
    module._find.cache_clear()
    yield
    module._find.cache_clear()


def prefix_with(folder: Path, name: str, program: str) -> Path:
    """An environment with one program, a shell script or a link to this Python."""
    path = folder / "bin" / name
    path.parent.mkdir(parents=True)
    if program:
        path.write_text(f"#!/bin/sh\n{program}\n")
        path.chmod(0o755)
    else:
        path.symlink_to(REAL)
    return path


def test_our_own_interpreter() -> None:
    """A Python in its own environment is started again as it is."""
    assert interpreter()[0] == sys.executable


@pytest.mark.parametrize("executable", ["/usr/bin/uwsgi", "/usr/sbin/apache2", "", None])
def test_an_embedded_interpreter(monkeypatch: pytest.MonkeyPatch, executable: str | None) -> None:
    """uWSGI and mod_wsgi name themselves as the executable: the one of the prefix is taken."""
    monkeypatch.setattr(sys, "executable", executable)
    assert interpreter()[0] == str(Path(sys.prefix, "bin", VERSION))


def test_a_server_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is no Python because it lies where one does, and is not run to find out."""
    ran = tmp_path / "ran"
    server = prefix_with(tmp_path / "env", "uwsgi", f"touch {ran}")
    python = server.with_name(VERSION)
    python.symlink_to(REAL)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setattr(sys, "executable", str(server))
    assert interpreter()[0] == str(python)
    assert not ran.exists()


def test_a_python_of_somebody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Under pyuwsgi the executable may be any Python of the host: that of the prefix is taken."""
    ours = prefix_with(tmp_path / "env", VERSION, "")
    other = prefix_with(tmp_path / "usr", "python3", "")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setattr(sys, "executable", str(other))
    assert interpreter()[0] == str(ours)


@pytest.mark.parametrize("program", ["echo cpython-27", "exit 1", "exec /nowhere"])
def test_a_python_of_another_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    """Compiled modules tell: what is no Python like this one is passed over."""
    prefix_with(tmp_path / "env", "python3", program)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setattr(sys, "executable", "/usr/sbin/apache2")
    assert interpreter()[0] == str(Path(sys.base_prefix, "bin", VERSION))


def test_no_python_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error says what was tried."""
    for name in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path))
    monkeypatch.setattr(sys, "_base_executable", "")
    monkeypatch.setattr(sys, "executable", str(prefix_with(tmp_path, "python3", "exit 1")))
    with pytest.raises(StoreUnavailable, match=f"{tmp_path}/bin/{VERSION}, ") as caught:
        interpreter()
    assert "nstall the interpreter" in str(caught.value)


def test_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be seen is found out by running it."""
    monkeypatch.setattr(module, "_runs_us", lambda path: False)
    assert interpreter()[0] == sys.executable


@pytest.mark.parametrize(
    ("flags", "wanted", "unwanted"),
    [
        (("-O", "-W", "ignore"), ("-O", "-Wignore", "-P"), ("-u",)),
        (("-I",), ("-I",), ("-P",)),
        (("-E", "-s"), ("-E", "-s", "-P"), ("-I",)),
        (("-u",), ("-u", "-P"), ()),
    ],
)
def test_the_same_flags(
    flags: tuple[str, ...], wanted: tuple[str, ...], unwanted: tuple[str, ...]
) -> None:
    """Those of the site count for its pool, and the working directory never does."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from django_tasks_local.pool.interpreter import interpreter; print(*interpreter())"
    )
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    told = subprocess.run(
        [sys.executable, *flags, "-c", code], env=environ, capture_output=True, text=True,
        check=True,
    ).stdout.split()  # fmt: skip
    assert set(wanted) <= set(told)
    assert not set(unwanted) & set(told)
