"""Whether a descriptor still is the file that it was opened for."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from django_tasks_local.ring.shm.identity import inode_check, is_inode


class Elsewhere:
    """A C library in which the inode stands elsewhere."""

    @staticmethod
    def fstat(fd: int, answer: object) -> int:
        return 0


class Older:
    """A C library without a function of that name."""


@pytest.mark.parametrize("library", [None, Elsewhere, Older])
def test_it_notices_another_file_and_none(
    library: type | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each way to ask."""
    if library is not None:
        monkeypatch.setattr(ctypes, "PyDLL", lambda name: library)
    fd = os.open(tmp_path / "one", os.O_CREAT | os.O_RDWR)
    check: Callable[[], bool] = inode_check(fd, os.fstat(fd).st_ino)
    assert check()
    other = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
    os.dup2(other, fd)
    assert not check()
    os.close(fd)
    assert not check()
    os.close(other)


def test_a_descriptor_that_was_closed_before(tmp_path: Path) -> None:
    """It is not the file, and no error."""
    fd = os.open(tmp_path / "one", os.O_CREAT | os.O_RDWR)
    inode = os.fstat(fd).st_ino
    os.close(fd)
    assert not is_inode(fd, inode)
    assert not inode_check(fd, inode)()
