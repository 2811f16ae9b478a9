"""Waits for the end of a task, and of all tasks, in a store in memory."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django_tasks_local.memory_order import Order
    from django_tasks_local.memory_record import Record
    from django_tasks_local.store import Snapshot


class Waits:
    """A part of `MemoryStore`."""

    max_workers: int
    _lock: threading.Lock
    _lock_of_workers: AbstractContextManager[object]
    _let_workers_go: Callable[[], None]
    _records: dict[str, Record]
    _waiting: Counter[str]
    _quiet: threading.Condition
    _order: Order
    _promote: Callable[[], None]
    _ending: bool
    running: int

    def wait_for_change(self, snapshot: Snapshot, timeout_s: float) -> None:
        """Block until a record has ended; see ``store.StoreClient``."""
        self._let_workers_go()
        with self._lock:
            record = self._records.get(snapshot.result_id)
            if record is None or record.finished_at_ns:
                return
            bell = record.bell = record.bell or threading.Event()
        bell.wait(timeout_s)

    def begin_waiting(self, task_id: str) -> bool:
        """Note that a running task waits for others; see ``store.StoreClient``."""
        with self._lock_of_workers:
            if task_id not in self._waiting and len(self._waiting) + 1 >= self.max_workers:
                return False
            self._waiting[task_id] += 1
            return True

    def end_waiting(self, task_id: str) -> None:
        """Note that a task waits no longer; see ``store.StoreClient``."""
        with self._lock_of_workers:
            self._waiting[task_id] -= 1
            self._waiting = +self._waiting  # without what is 0 or less: its task has ended

    def wait_until_done(self, timeout_s: float | None) -> bool:
        """Wait until nothing is running or due; tasks deferred to later do not count.

        Args:
            timeout_s: Give up after this many seconds; ``None``: never.

        Returns:
            Whether all was done.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            self._ending = True
            while True:
                self._promote()
                if not self.running and not self._order.ready:
                    return True
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._quiet.wait(left)
