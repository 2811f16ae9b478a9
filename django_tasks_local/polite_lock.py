"""A lock for threads that run tasks: they wait for it and for the GIL together."""

import threading
import time


class PoliteLock:
    """The lock, for threads that run tasks: they take it only while they hold the GIL.

    A thread that blocks on a C lock gets the lock without the GIL, and keeps the lock while it
    waits for the GIL; then the next thread waits for the lock, and so on: every step is a switch
    of threads.

    Not for the main thread: an exception from a signal handler, right after the lock was taken,
    would leave it taken. ``with`` on the lock itself is safe.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._take = lock.acquire
        self._give = lock.release

    def __enter__(self) -> None:
        while not self._take(False):
            time.sleep(0)  # the thread that holds the lock goes on

    def __exit__(self, *exc_info: object) -> None:
        self._give()
