"""The site's main script: who imports it, and what is refused where nobody can."""

import enum
import os
import pickle
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.tasks import task

from django_tasks_local.pool import main_script as module
from django_tasks_local.pool.main_script import main_script
from django_tasks_local.pool.project import Preparation, needs_main, site_path

SHOW = "from django_tasks_local.pool.main_script import *\n"
SHOW += "print(main_script(), where_main_is_from())\n"


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.ModuleType:
    """A script in a file of its own, in the place of pytest's."""
    main = types.ModuleType("__main__")
    path = tmp_path / "script.py"
    path.touch()
    main.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "__main__", main)
    return main


def defined_in_main[T: type | Callable[..., Any]](it: T) -> T:
    """As if the script had defined it."""
    it.__module__ = "__main__"
    it.__qualname__ = it.__name__
    setattr(sys.modules["__main__"], it.__name__, it)
    return it


def test_tasks_in_main(main: types.ModuleType) -> None:
    """Then the pool must import the main script."""
    assert not module.main_has_tasks()
    assert not needs_main()
    assert "init_main_from_path" not in Preparation.of_this_process("", "").main
    assert str(main.__file__) not in site_path()

    @defined_in_main
    def job() -> None:
        pass

    main.job = task(job)  # type: ignore[attr-defined]
    assert module.main_has_tasks()
    assert needs_main()
    assert module.main_path() == main.__file__
    assert Preparation.of_this_process("", "").main["init_main_from_path"] == main.__file__
    assert site_path().endswith(f":{main.__file__}")


def test_a_script_in_a_file(tmp_path: Path) -> None:
    """By its path, whatever the directory and the way in which it was named."""
    path = tmp_path / "script.py"
    path.write_text(SHOW)
    for name, cwd in (("script.py", tmp_path), (str(path), Path("/"))):
        out = subprocess.run([sys.executable, name], cwd=cwd, capture_output=True, text=True).stdout
        assert f"'init_main_from_path': '{path}'" in out


def test_a_script_whose_code_has_ended(tmp_path: Path) -> None:
    """In its threads and exit functions it is what it was, whatever has been imported till then."""
    path = tmp_path / "script.py"
    path.write_text(f"""
import atexit, os, sys, threading
import django.tasks

def show():
    assert "__file__" not in vars(sys.modules["__main__"])
    from django_tasks_local.pool import main_script as it
    print(it.main_script(), it.main_path(), it.where_main_is_from())

def show_later():
    threading.main_thread().join()
    show()

threading.Thread(target=show_later).start()
atexit.register(show)
os.chdir({str(tmp_path.parent)!r})
""")
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    line = f"{{'init_main_from_path': '{path}'}} {path} {path}"
    assert done.stdout.splitlines() == [line, line], done.stderr


def test_a_prompt_after_a_script(tmp_path: Path) -> None:
    """What is defined at a prompt is not in the script that ran before, nor in PYTHONSTARTUP."""
    path = tmp_path / "script.py"
    path.touch()
    for arguments, env in (([str(path)], {}), ([], {"PYTHONSTARTUP": str(path)})):
        done = subprocess.run(
            [sys.executable, "-i", *arguments], input=SHOW, capture_output=True, text=True,
            env=os.environ | env,
        )  # fmt: skip
        assert "{} -c or a prompt" in done.stdout, done.stderr


def test_a_module_as_a_script(tmp_path: Path) -> None:
    """By its name; the ``__main__`` of a package or a directory is no module for a pool."""
    package = tmp_path / "package"
    package.mkdir()
    for name in ("job", "__main__"):
        (package / f"{name}.py").write_text(SHOW)
    for arguments, wanted in (
        (["-m", "package.job"], "{'init_main_from_name': 'package.job'}"),
        (["-m", "package"], "{}"),
        (["package"], "{}"),
    ):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.startswith(wanted), done.stderr


def test_a_script_that_is_nowhere() -> None:
    """Standard input, -c: nothing that another process could import."""
    run = [sys.executable, "-c", SHOW]
    out = subprocess.run(run, capture_output=True, text=True).stdout
    assert out == "{} -c or a prompt\n"
    out = subprocess.run([sys.executable, "-"], input=SHOW, capture_output=True, text=True).stdout
    assert out == "{} standard input\n"


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    """Then the root stands for it, and what is relative to it is in nobody's path."""
    code = (
        f"import os, sys; os.rmdir({str(tmp_path)!r}); {SHOW}"
        "from django_tasks_local.pool.project import *; sys.path[:] = ['', 'lib', '/lib']\n"
        "print(directory(), *import_paths())\n"
    )
    command = [sys.executable, "-P", "-c", code]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "/ /lib"


def test_what_a_script_defines_in_arguments(main: types.ModuleType) -> None:
    """Classes, their instances, members and functions are found, and named; a text is not."""

    @defined_in_main
    class Box:
        pass

    @defined_in_main
    class Colour(enum.Enum):
        RED = 1

    @defined_in_main
    def function() -> None:
        pass

    for value in (Box, [Box()], {"a": (Colour.RED,)}, function):
        encoded = pickle.dumps(value)
        assert module.names_main(encoded)
        with pytest.raises(
            pickle.PicklingError, match=r"is defined in the main script .*script\.py"
        ):
            module.refuse_main(value)
    encoded = pickle.dumps(["__main__", b"__main__"])
    assert module.names_main(encoded)
    module.refuse_main(["__main__", b"__main__", int, len, ValueError("__main__")])
    assert not module.names_main(pickle.dumps([1, "main"]))


def test_main_beside_large_bytes(main: types.ModuleType) -> None:
    """Only opcodes are searched, not megabytes."""

    @defined_in_main
    class Box:
        pass

    from django_tasks_local.ring.records.payload import encode

    large = b"__main__" * 2**16
    assert not module.names_main(encode(large, 100))
    assert module.names_main(encode([large, Box()], 100))


def test_a_file_is_needed(main: types.ModuleType) -> None:
    """A path that leads nowhere, as a prompt's may, is none."""
    assert main_script()
    Path(str(main.__file__)).unlink()
    assert main_script() == {}
