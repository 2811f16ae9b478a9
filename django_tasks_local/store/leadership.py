"""Who runs the pool: two record locks that the kernel drops with their holder, and a few words.

These words are no part of what the mutex guards (rule 11): each is a hint or a wish, and a lost one
costs a moment, never a task.
"""

import time
from typing import Final

from . import layout as at
from .lock import POOL, SUCCESSOR, ByteLock
from .segment import Segment

# In the place of a site's serial, and greater than any.
ANY_SERVER: Final = at.SERIAL_MASK + 1


class Leadership:
    """The pool's place and its successor's, as one process sees them."""

    def __init__(self, segment: Segment) -> None:
        self._words = segment.words
        self._pool = ByteLock(segment.fd, POOL)
        self._successor = ByteLock(segment.fd, SUCCESSOR)

    def pool_alive(self) -> bool:
        """Whether another process holds the pool's place (0.5 us)."""
        return self._pool.held()

    def pool_looks_alive(self) -> bool:
        """As `pool_alive`, for who looks once a second; see `ByteLock.looks_held`."""
        return self._pool.looks_held()

    def successor_alive(self) -> bool:
        """Whether another process is on its way to the pool's place."""
        return self._successor.held()

    def take_successor(self) -> bool:
        """Takes the successor's place, if it is free."""
        return self._successor.acquire()

    def take_pool(self) -> bool:
        """Takes the pool's place if it is free; then nobody is on the way to it any more."""
        if not self._pool.acquire():
            return False
        words = self._words
        words[at.H_SUCCESSOR] = words[at.H_START_FAILURES] = words[at.H_START_AFTER] = 0
        self._successor.release()
        return True

    def hold_pool(self) -> bool:
        """Takes the pool's place once more; False where it was lost and another pool has it."""
        return self._pool.acquire()

    def leave_pool(self) -> None:
        """Gives the pool's place free."""
        self._pool.release()

    def ask_for_successor(self, serial: int) -> None:
        """Asks the sites from `serial` on to start a new pool. Only the pool itself may ask.

        Instead of a serial it may be `ANY_SERVER`.
        """
        self._words[at.H_SUCCESSOR] = serial + 1

    def successor_wanted(self, serial: int, *, server: bool) -> bool:
        """Whether the pool asks for a successor, and the site `serial` is one to start it."""
        wish = self._words[at.H_SUCCESSOR]
        return bool(wish and (serial >= wish - 1 or (server and wish - 1 == ANY_SERVER)))

    def may_start_pool(self, first_s: float, longest_s: float) -> bool:
        """Whether a pool may be started now; if so, the start is noted for all sites.

        Args:
            first_s: The pause after a start; it doubles with every start that led to no pool.
            longest_s: The most it grows to.
        """
        words = self._words
        # CLOCK_MONOTONIC is one for all processes of the host, and nobody can set it.
        now_ns = time.monotonic_ns()
        after_ns = words[at.H_START_AFTER]
        if now_ns < after_ns <= now_ns + int(longest_s * 1e9):
            return False
        failures = min(words[at.H_START_FAILURES], 30)
        words[at.H_START_FAILURES] = failures + 1
        words[at.H_START_AFTER] = now_ns + int(min(first_s * 2**failures, longest_s) * 1e9)
        return True

    def forget_failures(self) -> None:
        """Lets the next pool be started without a pause: a new site may bring what it lacked."""
        self._words[at.H_START_FAILURES] = self._words[at.H_START_AFTER] = 0

    def set_workers(self, count: int) -> None:
        """Notes how many workers there are, for `crowded`."""
        self._words[at.H_POOL_WORKERS] = count

    def workers(self) -> int:
        """How many workers the pool has noted, those of a leaving predecessor included."""
        return int(self._words[at.H_POOL_WORKERS])

    def crowded(self) -> bool:
        """Whether every worker is busy and there may be more of them, as far as the words tell."""
        words = self._words
        workers = words[at.H_POOL_WORKERS]
        return bool(words[at.H_RUNNING] >= workers and workers < words[at.H_MAX_WORKERS])

    def newest_site(self) -> int:
        """The serial of the site process that attached last."""
        return int(self._words[at.H_SITE_SERIAL])
