"""What code a process runs: which one it is, and whether its files are still what was loaded."""

import os
import sys

from django_tasks_local.ring import code_digest

type Stamp = tuple[int, int]  # time of the last change in ns, size; (0, 0): gone


def digest_of(path: str) -> int:
    """What tells this process's code from that of other releases in the same ring.

    Two processes have the same code if a pool that the one starts would import what the other's
    would: the same settings, by the same Python, out of the same environment. Their *files* may
    change in place; a pool compares those, see `LoadedFiles`.

    Args:
        path: The settings file, and the main script where tasks are defined in it.
    """
    # Not sys.executable: under uWSGI and mod_wsgi that is the server.
    return code_digest(path, sys.version, sys.abiflags, os.path.realpath(sys.prefix))


class LoadedFiles:
    """Time and size of the source files behind the modules of this process.

    Args:
        later_only: Leaves out what is loaded already (a forked worker's pool compares that).
    """

    def __init__(self, *, later_only: bool = False) -> None:
        self._stamps: dict[str, Stamp] = {}
        self._known = set(sys.modules) if later_only else set()
        self._modules = len(self._known)
        self.look()

    def look(self) -> None:
        """Takes note of modules that were imported since the last look."""
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if name not in self._known and isinstance(path, str):
                self._stamps[path] = _stamp(path)
        self._known = set(sys.modules)

    def changed(self) -> str:
        """The first file that is not what was loaded, "" for none (2 ms for 1,000 files)."""
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
