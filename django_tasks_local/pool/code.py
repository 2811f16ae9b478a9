"""Whether the files that this process has loaded are still what lies on the disk."""

import os
import sys

type Stamp = tuple[int, int]  # time of the last change in ns, size; (0, 0): gone


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
