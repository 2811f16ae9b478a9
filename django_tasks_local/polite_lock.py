"""A lock for threads that run tasks: they wait for it and for the GIL together."""

import threading
import time


class PoliteLock:
    """The lock, for threads that run tasks: they take it with the GIL in hand, or not yet.

    A thread that waits for a lock of C is given it without the GIL, and keeps it while it waits for
    that; then the next one waits for the lock, and so on: every step is a switch of threads.

    Not for the main thread: what a signal handler raises there, right after the lock was taken,
    would leave it taken. `with` on the lock itself is safe.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._take = lock.acquire
        self._give = lock.release

    def __enter__(self) -> None:
        while not self._take(False):
            time.sleep(0)  # whoever has it goes on

    def __exit__(self, *exc_info: object) -> None:
        self._give()
