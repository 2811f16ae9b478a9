"""How much of a ring's file is written to the disk for what an operation changes."""

import errno
import mmap
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from django_tasks_local.ring.shm import disk
from tests.reboots import RingsOnDisk
from tests.rings import LIMITS, path_of, put, run

SYNCED = replace(LIMITS, sync=True)
TASKS = 8
# For two waits for the disk, with 10 pages each; several that the kernel has made one are 300.
MOST_PAGES = 32 * TASKS


def written_pages() -> int:
    """How many pages of files this process has changed that were not to be written before."""
    found = re.search(r"^write_bytes: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) // mmap.PAGESIZE


def write(mine: Any) -> int:
    """How many pages go to the disk for some tasks, of which each is waited for."""
    put(mine.ring)
    run(mine.ring)
    before = written_pages()
    for _ in range(TASKS):
        put(mine.ring)
        run(mine.ring)
    return written_pages() - before


def test_what_is_changed_is_written_and_no_more(on_disk: RingsOnDisk) -> None:
    """Page by page, in a new ring and in one that was read from the disk after a restart."""
    on_disk.peer(SYNCED).do(write)
    assert on_disk.peer(SYNCED).do(write) <= MOST_PAGES
    on_disk.reboot()
    forget_pages(path_of(on_disk))
    assert on_disk.peer(SYNCED).do(write) <= MOST_PAGES


def forget_pages(path: Path) -> None:
    """Has the kernel forget what it has in memory of a file."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def test_zeros(tmp_path: Path) -> None:
    """They are written where they are wanted, across the ends of pages; a full disk is told."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3 * mmap.PAGESIZE)
    with path.open("r+b") as file:
        disk.write_zeros(file.fileno(), 100, 2 * mmap.PAGESIZE)
    zeros = bytes(2 * mmap.PAGESIZE)
    assert path.read_bytes() == b"x" * 100 + zeros + b"x" * (mmap.PAGESIZE - 100)
    full = os.strerror(errno.ENOSPC)
    with open("/dev/full", "r+b", buffering=0) as file, pytest.raises(OSError, match=full):
        disk.write_zeros(file.fileno(), 0, 1)
