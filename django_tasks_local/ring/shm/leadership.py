"""Who runs the pool of a code: two record locks that the kernel drops with their holder, and words.

These words are no part of what the mutex guards (rule 11): each is a hint or a wish, and a lost one
costs a moment, never a task.
"""

import time
from typing import Final

from django_tasks_local.ring.format import layout as at

from .lock import ByteLock, pool_byte, successor_byte
from .segment import Segment

# In the place of a site's serial, and greater than any.
ANY_SERVER: Final = at.SERIAL_MASK + 1


class Leadership:
    """The place of a code's pool and its successor's, as one process sees them."""

    def __init__(self, segment: Segment, code: int) -> None:
        self.code = code
        self._words = segment.words
        self._start = at.code_word(code, 0)
        self._pool = ByteLock(segment.fd, pool_byte(code))
        self._successor = ByteLock(segment.fd, successor_byte(code))

    def pool_alive(self) -> bool:
        """Return whether another process holds the pool's place (0.5 µs)."""
        return self._pool.held()

    def pool_looks_alive(self) -> bool:
        """Do as `pool_alive`, for one look a second; see `ByteLock.looks_held`."""
        return self._pool.looks_held()

    def successor_alive(self) -> bool:
        """Return whether another process is on its way to the pool's place."""
        return self._successor.held()

    def take_successor(self) -> bool:
        """Take the successor's place, if it is free."""
        return self._successor.acquire()

    def take_pool(self) -> bool:
        """Take the pool's place if it is free; then nobody is on the way to it any more."""
        if not self._pool.acquire():
            return False
        self._put(at.C_SUCCESSOR, 0)
        self._successor.release()
        return True

    def hold_pool(self) -> bool:
        """Take the pool's place once more; return False where another pool has it."""
        return self._pool.acquire()

    def leave_pool(self) -> None:
        """Leave the pool's place."""
        self._pool.release()

    def digest(self) -> int:
        """Return the digest of the code that this place belongs to now."""
        return self._get(at.C_DIGEST)

    def ask_for_successor(self, serial: int) -> None:
        """Ask the sites from `serial` on to start a new pool. Only the pool itself may ask.

        Instead of a serial it may be `ANY_SERVER`.
        """
        self._put(at.C_SUCCESSOR, serial + 1)

    def successor_wanted(self, serial: int, *, server: bool) -> bool:
        """Return whether the pool asks for a successor that the site `serial` may start."""
        wish = self._get(at.C_SUCCESSOR)
        return bool(wish and (serial >= wish - 1 or (server and wish - 1 == ANY_SERVER)))

    def reserve_start(self, first_s: float, longest_s: float) -> bool:
        """Note the start of a pool for all sites; return False where none may be started now.

        Args:
            first_s: The pause after a start; it doubles with every start until `forget_failures`.
            longest_s: The most it grows to.
        """
        # CLOCK_MONOTONIC is one for all processes of the host, and nobody can set it.
        now_ns = time.monotonic_ns()
        after_ns = self._get(at.C_START_AFTER)
        if now_ns < after_ns <= now_ns + int(longest_s * 1e9):
            return False
        failures = min(self._get(at.C_START_FAILURES), 30)
        self._put(at.C_START_FAILURES, failures + 1)
        self._put(at.C_START_AFTER, now_ns + int(min(first_s * 2**failures, longest_s) * 1e9))
        return True

    def forget_failures(self) -> None:
        """Let the next pool be started without a pause.

        One has proved itself, or a new site may bring what the last one lacked.
        """
        self._put(at.C_START_FAILURES, 0)
        self._put(at.C_START_AFTER, 0)

    def workers(self) -> int:
        """Return how many workers all pools have noted, those of leaving predecessors included."""
        return int(self._words[at.H_POOL_WORKERS])

    def wants_more_workers(self) -> bool:
        """Return whether all workers may be busy and there may be more, as far as the words tell.

        Where another code has workers as well, the words do not tell whose are busy.
        """
        words = self._words
        workers = words[at.H_POOL_WORKERS]
        return workers < words[at.H_MAX_WORKERS] and bool(
            words[at.H_RUNNING] >= workers or workers != self._get(at.C_WORKERS)
        )

    def newest_site(self) -> int:
        """Return the serial of the site process of this code that attached last."""
        return self._get(at.C_NEWEST)

    def set_runnable_up_to(self, serial: int) -> None:
        """Let what sites up to this serial enqueue go into the lane of what was compared.

        Never less than a predecessor did: that lane must not hold anything newer. Its workers wait
        until this pool has compared as much.
        """
        before = self._get(at.C_RUNNABLE_UP_TO)
        damaged = before > self._get(at.C_NEWEST)  # no pool compares with a site that is not there
        self._put(at.C_RUNNABLE_UP_TO, serial if damaged else max(serial, before))

    def runnable_up_to(self) -> int:
        """Return up to which serial tasks go into that lane."""
        return self._get(at.C_RUNNABLE_UP_TO)

    def _get(self, which: int) -> int:
        word: int = self._words[self._start + which]
        return word

    def _put(self, which: int, value: int) -> None:
        self._words[self._start + which] = value
