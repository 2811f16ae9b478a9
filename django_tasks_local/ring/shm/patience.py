"""How long to wait for a process that is inside the ring, and when to say that it is frozen.

The monotonic clock goes on while a process is stopped. Where all are stopped together (`docker
pause`, a suspended virtual machine), the one that goes on first finds an hour gone by, and would
blame a process that has had no time to leave. What counts is therefore waiting that was really
waited, turn by turn, for one process that did not move meanwhile.
"""

from time import monotonic
from typing import Final, NamedTuple

# How long to wait for a token before asking whether its holder is dead. Shorter: more system calls
# under load; longer: a longer pause after a kill (this is nearly all of it).
CHUNK_S: Final = 0.005
# How long one process may be inside, and nothing move, before the others call it frozen.
FROZEN_S: Final = 30.0
# A turn counts for no more than this, however long it took: a busy processor is no frozen one.
LONGEST_TURN_S: Final = 0.1
# After a turn of this length another process has stopped this process: it begins to count again.
GAP_S: Final = 1.0


class Sighting(NamedTuple):
    """A process seen inside the ring.

    Attributes:
        pid: Its pid; 0 or less where it is in another pid namespace.
        marks: What moves with nearly everything that is done inside: the counts in the header.
    """

    pid: int
    marks: bytes


class Patience:
    """Counts the waiting for one process that is inside and does not move."""

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._last = monotonic()
        self._seen: Sighting | None = None

    def ends(self, seen: Sighting | None) -> bool:
        """Count the turn that has passed since the last call.

        Args:
            seen: Who is inside now, None for nobody else.

        Returns:
            Whether that process is to be called frozen.
        """
        now = monotonic()
        turn_s = now - self._last
        self._last = now
        if seen is None or seen != self._seen or turn_s > GAP_S:
            self._seen = seen
            self._waited_s = 0.0
        else:
            self._waited_s += min(turn_s, LONGEST_TURN_S)
        return self._waited_s >= FROZEN_S
