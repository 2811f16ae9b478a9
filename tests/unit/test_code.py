"""Whether loaded files are noticed as changed."""

import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from django_tasks_local.pool.loaded_files import _LAG_NS, LoadedFiles
from tests.support import wait_for


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A module's name and file, not imported yet."""
    name = f"module_{uuid4().hex}"
    path = tmp_path / f"{name}.py"
    path.write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield name, path
    sys.modules.pop(name, None)


def test_a_changed_file_is_found(module: tuple[str, Path]) -> None:
    """Its time or its size tells; nothing else is looked at."""
    name, path = module
    importlib.import_module(name)
    files = LoadedFiles()
    assert files.changed() == ""
    os.utime(path, ns=(1, 1))
    assert files.changed() == str(path)


def test_a_removed_file_is_found(module: tuple[str, Path]) -> None:
    """A deploy may take a module away."""
    name, path = module
    importlib.import_module(name)
    files = LoadedFiles()
    path.unlink()
    assert files.changed() == str(path)


def test_later_imports_are_noticed(module: tuple[str, Path]) -> None:
    """`look` takes note of what was imported since."""
    name, path = module
    files = LoadedFiles()
    files.look()
    importlib.import_module(name)
    os.utime(path, ns=(1, 1))
    assert files.changed() == ""  # nobody looked
    files.look()
    os.utime(path, ns=(2, 2))
    assert files.changed() == str(path)


def test_a_worker_minds_only_what_it_imported_itself(module: tuple[str, Path]) -> None:
    """What was loaded before the fork is its pool's to compare."""
    name, path = module
    importlib.import_module(name)
    files = LoadedFiles(later_only=True)
    files.look()
    os.utime(path, ns=(1, 1))
    assert files.changed() == ""


@pytest.mark.parametrize("how", ["written", "replaced", "linked"])
def test_a_file_that_changes_between_import_and_look_is_found(
    module: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A deployment while a task runs that has loaded the old file."""
    name, path = module
    files = LoadedFiles()
    age(path)
    if how == "linked":
        first, second, link = tmp_path / "1", tmp_path / "2", tmp_path / "current"
        for folder in (first, second):
            folder.mkdir()
            (folder / path.name).write_text("value = 1\n")
        link.symlink_to(first)
        monkeypatch.syspath_prepend(link)
        age(link, second / path.name)
    files.look()
    importlib.import_module(name)
    if how == "written":
        path.write_text("value = 2\n")
    elif how == "replaced":
        new = path.with_suffix(".new")
        new.write_text("value = 2\n")
        os.utime(new, ns=(1, 1))  # as rsync -t leaves it
        new.rename(path)
    else:
        (tmp_path / "new").symlink_to(second)
        (tmp_path / "new").rename(link)
    files.look()
    assert files.changed() == sys.modules[name].__file__


def age(*paths: Path) -> None:
    """Waits until the kernel's times of these files lie behind by more than its clock may lag."""
    newest_ns = max(path.lstat().st_ctime_ns for path in paths)
    wait_for(lambda: time.time_ns() - newest_ns > 2 * _LAG_NS)
