"""Which code a process runs, and whether its files are still what was loaded."""

import os
import stat
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from django_tasks_local.ring import code_digest

type Stamp = tuple[int, int]  # time of the last change in ns, size; (0, 0): gone
# Of a file that may have changed after it was loaded. No file has it, so it counts as changed.
_UNSURE: Final[Stamp] = -1, -1
# The kernel's times of changes lag behind the clock by a tick of its own, 10 ms at most.
_LAG_NS: Final = 10_000_000


def digest_of(path: str) -> int:
    """Return the number that tells this process's code from other releases in the same ring.

    Two processes have the same code if a pool that one starts would import what a pool of the
    other would: the same settings, with the same Python, from the same environment. Their *files*
    may change in place; a pool compares those, see `LoadedFiles`.

    Args:
        path: The settings file, and the main script where tasks are defined in it.
    """
    # Not sys.executable: under uWSGI and mod_wsgi that is the server.
    return code_digest(path, sys.version, sys.abiflags, os.path.realpath(sys.prefix))


class LoadedFiles:
    """Time and size of the source files behind the modules of this process.

    Nothing tells when a module was imported since the last look. So a file that has changed since
    then counts as changed: a task may have loaded what a deployment then replaced.

    Args:
        later_only: Leave out what is already loaded (a forked worker's pool compares that).
        since_ns: When the import of the modules that it notes at once began (Unix ns); 0: none of
            their files is taken for changed.
    """

    def __init__(self, *, later_only: bool = False, since_ns: int = 0) -> None:
        self._looked_ns = since_ns
        self._stamps: dict[str, Stamp] = {}
        self._known = set(sys.modules) if later_only else set()
        self._modules = len(self._known)
        self.look()

    def look(self) -> None:
        """Note the modules that were imported since the last look."""
        since_ns, self._looked_ns = self._looked_ns - _LAG_NS, time.time_ns()
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        link_changed_ns = cache(_link_changed_ns)
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if name not in self._known and isinstance(path, str):
                stamp = _stamp(path)
                if (
                    since_ns > 0
                    and max(_changed_ns(path), link_changed_ns(Path(path).parent)) > since_ns
                ):
                    stamp = _UNSURE
                self._stamps[path] = stamp
        self._known = set(sys.modules)

    def changed(self) -> str:
        """Return the first file that differs from what was loaded, "" for none (2 µs per file)."""
        for path, stamp in self._stamps.items():
            if _stamp(path) != stamp:
                return path
        return ""


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _changed_ns(path: str) -> int:
    """Return when a file was put where it is, or written to: not what `touch` sets."""
    try:
        return os.stat(path).st_ctime_ns
    except OSError:
        return 0


def _link_changed_ns(path: Path) -> int:
    """Return when the latest of the symbolic links in a path was made, 0 where it has none."""
    changed_ns = 0
    for each in (path, *path.parents):
        with suppress(OSError):
            found = each.lstat()
            if stat.S_ISLNK(found.st_mode):
                changed_ns = max(changed_ns, found.st_ctime_ns)
    return changed_ns
