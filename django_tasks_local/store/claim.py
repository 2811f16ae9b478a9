"""One claimed task, in the hands of the worker that runs it."""

import math
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from . import layout as at
from .reader import Found, Reader, format_id
from .segment import Segment

# A report takes microseconds. Shorter: one that waits for its turn on a busy machine could write
# into another's slot; longer: the end of a task waits for nothing.
LEFT_LOCKED_S: Final = 1.0


class RingClaim:
    """A task RUNNING by this process.

    It belongs to the thread that claimed it; `report` to all threads of the task.

    Attributes:
        found: The record as it was claimed.
        result_id: Its id.
        worker_id: Who runs it.
    """

    __slots__ = ("_commit", "_lock", "_open", "_pid", "_reader", "_segment", "found", "result_id",
                 "worker_id")  # fmt: skip

    def __init__(self, segment: Segment, reader: Reader, found: Found, worker_id: str) -> None:
        self._segment = segment
        self._reader = reader
        self._commit = segment.geometry.column("commit") + found.slot
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open = True
        self.found = found
        self.result_id = format_id(found.head.id_high, found.head.id_low)
        self.worker_id = worker_id

    @property
    def meta(self) -> bytes:
        """What names the task."""
        return self._reader.meta(self.found)

    @property
    def enqueued_at_ns(self) -> int:
        return self.found.head.enqueued_at_ns

    @property
    def started_at_ns(self) -> int:
        return self.found.head.started_at_ns

    @property
    def arguments(self) -> Callable[[], Any]:
        """Unpickles the arguments."""
        return partial(self._reader.arguments, self.found)

    def ours(self) -> bool:
        """Whether we may write to the record outside the lock (rule 6; 1 us).

        The task may have forked, or closed every descriptor: then the kernel has dropped our
        record locks, we count as dead, and the slot may be somebody else's by now.
        """
        return (
            os.getpid() == self._pid
            and self._segment.still_open()
            and self._segment.words[self._commit] == self.found.word
        )

    def report(self, done: float, total: float | None, message: str) -> None:
        """Stores the progress: a few stores, no lock of the ring (3 us)."""
        # Two threads of one task would mix their words. Not `with`: a signal handler that
        # reports while its own thread does must give up, not wait for itself.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._open and self.ours():
                self._write(done, math.nan if total is None else total, message)
        finally:
            self._lock.release()

    def close(self) -> None:
        """From here on a thread that outlives its task reports nowhere."""
        # No report may be half-way when the slot goes to others. Not for ever: a handler that
        # raised between taking the lock and the `try` in `report` has left it locked.
        taken = self._lock.acquire(timeout=LEFT_LOCKED_S)
        self._open = False
        if taken:
            self._lock.release()

    def _write(self, done: float, total: float, message: str) -> None:
        geometry, words = self._segment.geometry, self._segment.words
        end = geometry.slots_at + (self.found.slot + 1) * geometry.slot_size
        start = end - at.PROGRESS.size
        word = start // 8 - 1
        generation = self.found.head.generation
        sequence = words[word]
        if sequence >> 16 != generation:
            sequence = generation << 16
        # Odd while it is being written; the generation tells whose it is.
        words[word] = sequence | 1
        text = message.encode(errors="replace")[: at.PROGRESS_TEXT_BYTES]
        self._segment.bytes[start:end] = at.PROGRESS.pack(done, total, text)
        words[word] = generation << 16 | (sequence | 1) + 1 & 0xFFFE
