"""Whether the kernel has killed a process of our control group because memory ran out."""

import time
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
# How long after the kernel has counted a kill a death is put down to it. A pool hears of a worker's
# end at once, and looks at the count once a second.
RECENT_S: Final = 2.0


class OomKills:
    """The count of such kills that the kernel keeps for a control group (version 2).

    Args:
        events: The file with the count. Where it is missing, no kill is ever noticed.
    """

    def __init__(self, events: Path | None = None) -> None:
        self._events = events or _events()
        self._count = self._read()
        self._counted_at = float("-inf")

    def look(self) -> None:
        """Note whether there was another; to be called now and then."""
        count = self._read()
        if count > self._count:
            self._counted_at = time.monotonic()
        self._count = count

    def recently(self) -> bool:
        """Return whether a process was killed so in the last moments, ours or a neighbour."""
        self.look()
        return time.monotonic() - self._counted_at < RECENT_S

    def _read(self) -> int:
        try:
            lines = self._events.read_text("ascii").splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        except (OSError, ValueError, IndexError, StopIteration):
            return 0


def _events() -> Path:
    """Return the file of this process's group; inside a container that is mounted as the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("0::"):
            found = ROOT / line[3:].lstrip("/") / "memory.events"
            if found.exists():
                return found
    return ROOT / "memory.events"
