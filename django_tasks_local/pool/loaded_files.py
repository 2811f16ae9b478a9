"""Which code a process runs, and whether its files are still what was loaded."""

import os
import sys

from django_tasks_local.ring import code_digest

type Stamp = tuple[int, int]  # time of the last change in ns, size; (0, 0): gone


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

    Args:
        later_only: Leave out what is already loaded (a forked worker's pool compares that).
    """

    def __init__(self, *, later_only: bool = False) -> None:
        self._stamps: dict[str, Stamp] = {}
        self._known = set(sys.modules) if later_only else set()
        self._modules = len(self._known)
        self.look()

    def look(self) -> None:
        """Note the modules that were imported since the last look."""
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if name not in self._known and isinstance(path, str):
                self._stamps[path] = _stamp(path)
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
