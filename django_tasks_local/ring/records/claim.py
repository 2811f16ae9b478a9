"""One claimed task, in the hands of the worker that runs it."""

import math
import os
import threading
from typing import Final

from django_tasks_local.ring.format.head import (
    PROGRESS,
    PROGRESS_TEXT_BYTES,
    S_STOP,
    Head,
)
from django_tasks_local.ring.format.ids import format_id

from .loss import STOP_ASKED, is_cancelled, noted_loss
from .reader import Found, Reader
from .table import Table

# A report takes microseconds. Shorter: one that waits for its turn on a busy machine could write
# into another's slot; longer: the end of a task waits for nothing.
LEFT_LOCKED_S: Final = 1.0


class RingClaim(Found):
    """A record that is RUNNING by this process, as it was claimed.

    It belongs to the thread that claimed it; `report` to all threads of the task.

    Attributes:
        pid: The process that claimed it.
        is_open: False once its attempt ends.
    """

    __slots__ = ("_lock", "_table", "is_open", "pid")

    def __init__(
        self, reader: Reader, table: Table, slot: int, word: int, head: Head, raw: bytes, pid: int
    ) -> None:
        super().__init__(reader, format_id(head.id_high, head.id_low), slot, word, head, raw)
        self._table = table
        self.pid = pid
        self._lock = threading.Lock()
        self.is_open = True

    def ours(self) -> bool:
        """Return whether we may write to the record outside the lock (rule 6; 1 µs).

        The task may have forked, or closed every descriptor: then the kernel has dropped our
        record locks, we count as dead, and the slot may be another record's by now.
        """
        table = self._table
        return (
            os.getpid() == self.pid
            and table.segment.still_open()
            and table.words[table.commit + self.slot] == self.word
        )

    @property
    def time_limit(self) -> int:
        """How long it may run, see `store.time_limit_word`."""
        return self.head.time_limit

    @property
    def stop_asked(self) -> bool:
        """Whether it was asked to stop."""
        table = self._table
        word = table.words[table.offset(self.slot) // 8 + S_STOP]
        if not word:  # as in most
            return False
        # The task may have ended in another thread, and the slot be another's.
        asked = is_cancelled(noted_loss(word))
        return asked and self.is_open and table.words[table.commit + self.slot] == self.word

    def is_asked(self) -> bool:
        """Return whether it was asked to stop, and nobody is about to kill its worker.

        True until its end is stored, also when it is closed.
        """
        table = self._table
        return bool(table.words[table.offset(self.slot) // 8 + S_STOP] == STOP_ASKED)

    def report(self, done: float, total: float | None, message: str) -> None:
        """Store the progress: a few stores, no lock of the ring (3 µs)."""
        # Two threads of one task would mix their words. Not `with`: a signal handler that
        # reports while its own thread does must give up, not wait for itself.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self.is_open and self.ours():
                self._write(done, math.nan if total is None else total, message)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Have a thread that outlives its task report nowhere."""
        # No report may be half-way when the slot goes to others. Not for ever: a handler that
        # raised between taking the lock and the `try` in `report` has left it locked.
        taken = self._lock.acquire(False) or self._lock.acquire(timeout=LEFT_LOCKED_S)
        self.is_open = False
        if taken:
            self._lock.release()

    def _write(self, done: float, total: float, message: str) -> None:
        words = self._table.words
        end = self._table.offset(self.slot + 1)
        start = end - PROGRESS.size
        word = start // 8 - 1
        generation = self.head.generation
        sequence = words[word]
        if sequence >> 16 != generation:
            sequence = generation << 16
        # Odd while it is being written; the generation tells whose it is.
        words[word] = sequence | 1
        text = message.encode(errors="replace")[:PROGRESS_TEXT_BYTES]
        self._table.bytes[start:end] = PROGRESS.pack(done, total, text)
        words[word] = generation << 16 | (sequence | 1) + 1 & 0xFFFE
