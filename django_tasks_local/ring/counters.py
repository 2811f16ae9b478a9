"""The counters of a ring: given to tasks by the processes that enqueue them, read by monitors."""

from .format import layout as at
from .format.tally import Tally
from .parts import Parts

# Tasks with changed fields, such as ``run_after``, may have a name each.
_KNOWN_AT_MOST = 4096


class Counters:
    """The tallies of a ring, as one attached process uses them.

    Args:
        parts: The ring.

    Attributes:
        known: What `Ring.put` wants of a task's tally, by what names the task; kept by `remember`.
    """

    def __init__(self, parts: Parts) -> None:
        self._tallies = parts.table.tallies
        self._run = parts.mutex.run
        self.known: dict[bytes, int] = {}

    def remember(self, meta: bytes, task: str, queue: str) -> int:
        """Look up the tally of a task in a queue, or give it one; return what `Ring.put` wants.

        Args:
            meta: What names the task.
            task: Its import path.
            queue: The name of its queue.
        """
        name = f"{task}\0{queue}".encode(errors="replace")
        number = self._tallies.find(name)
        if number is None or not self._tallies.are_in_use():
            number = self._run(self._tallies.give, name)
        if len(self.known) >= _KNOWN_AT_MOST:
            self.known.clear()
        self.known[meta] = in_origin = number << at.TALLY_SHIFT
        return in_origin

    def read(self) -> list[Tally]:
        """Return all tallies as they are now; no lock."""
        return self._tallies.read()
