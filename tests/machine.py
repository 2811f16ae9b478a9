"""Processes and shared memory as the machine shows them: ``/proc`` and ``/dev/shm``.

Nothing here asks the package: a test must not ask the code under test whether it cleaned up.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

# Every process that the tests start inherits this variable; conftest gives it its value.
MARK: Final = "DTL_TEST_MARK"
SHM: Final = "/dev/shm"
PROC: Final = "/proc"
_THREADS: Final = 17  # of the fields that /proc/PID/stat has after the name


# --- processes -----------------------------------------------------------------------------


def alive(pid: int) -> bool:
    """Whether the process runs, be it only to end. A zombie does not: it waits to be reaped.

    A first thread that is a zombie says nothing of the others, which may still hold locks.
    """
    fields = _stat(pid)
    return bool(fields) and (fields[0] not in ("Z", "X") or int(fields[_THREADS]) > 1)


def parent_of(pid: int) -> int:
    """Return the parent's pid, 0 where there is no such process."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def children_of(pid: int) -> list[int]:
    """Pids of the live children of a process, oldest first."""
    return [child for child in all_pids() if parent_of(child) == pid and alive(child)]


def all_pids() -> list[int]:
    return sorted(int(name) for name in os.listdir(PROC) if name.isdigit())


def command_of(pid: int) -> str:
    """Return the command line, with spaces; empty where there is no such process."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def marked_pids(mark: str, among: Iterable[int] | None = None) -> list[int]:
    """Live processes whose mark begins with `mark`, oldest first; never this one.

    One that is ending shows no environment from some moment on, and is not found from then on,
    while it may still hold its locks: `alive` tells.

    The environment that /proc shows is the one a program was started with, so a process that this
    one forked does not bear the mark; `descendants_of` finds those.
    """
    needle = f"{MARK}={mark}".encode()
    return [
        pid
        for pid in (all_pids() if among is None else sorted(among))
        if pid != os.getpid() and needle in _read(pid, "environ") and alive(pid)
    ]


def descendants_of(pid: int, among: Iterable[int] | None = None) -> list[int]:
    """Pids of live children, their children and so on, as far as they are `among` the given."""
    parents = {each: parent_of(each) for each in (all_pids() if among is None else among)}
    found = {pid}
    while grown := {each for each, parent in parents.items() if parent in found} - found:
        found |= grown
    return sorted(each for each in found - {pid} if alive(each))


def describe(pids: list[int]) -> str:
    """One line per process, for a failure's message."""
    return "\n".join(
        f"  pid {pid} (parent {parent_of(pid)}, state {_state(pid)}): {command_of(pid)}"
        for pid in pids
    )


def _stat(pid: int) -> list[str]:
    # What follows the name, which is in parentheses and may itself hold spaces and parentheses.
    return _read(pid, "stat").rpartition(b")")[2].decode().split()


def _state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields else ""


def _read(pid: int, what: str) -> bytes:
    try:
        # Not by a Path: there may be thousands of reads in a test, and it takes half their time.
        with open(f"{PROC}/{pid}/{what}", "rb", buffering=0) as file:
            return file.read()
    except OSError:  # gone in between, or not ours
        return b""


# --- shared memory -------------------------------------------------------------------------


def shm_objects() -> set[str]:
    """Names of the rings' segments and semaphores in /dev/shm, whoever made them."""
    return {name for name in os.listdir(SHM) if name.startswith(("dtl-", "sem.dtl-"))}


def mapped_objects(pid: int) -> set[str]:
    """Names of those objects that a process has mapped at this moment."""
    prefix = f"{SHM}/".encode()
    paths = (
        line.split(maxsplit=5)[-1] for line in _read(pid, "maps").splitlines() if prefix in line
    )
    names = (path.removeprefix(prefix).decode() for path in paths if path.startswith(prefix))
    return {name for name in names if name.startswith(("dtl-", "sem.dtl-"))}


def users_of(objects: set[str]) -> Iterator[int]:
    """Return the processes that have one of the objects mapped."""
    return (pid for pid in all_pids() if mapped_objects(pid) & objects)


def unlink_shm(names: set[str]) -> None:
    """Remove objects by name; those that are gone already are fine."""
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(f"{SHM}/{name}")
