"""Whether loaded files are noticed as changed."""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from django_tasks_local.pool.loaded_files import LoadedFiles


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
