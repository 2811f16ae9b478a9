"""The store of one process: records in a dict, order in heaps, recency in an ``OrderedDict``.

Nothing is pickled; a task gets the very objects that were passed. One lock guards everything, and
idle threads wait on a condition of the lock. No thread that holds the lock calls the user's code,
or drops the last reference to one of the user's objects, whose ``__del__`` may be such code.

Invariants, whenever the lock is free and ``_torn`` is false:

- once the store is closed, ``_records`` holds what is RUNNING and nothing else is held;
- a record is in ``_order`` if and only if it is READY, in ``_finished`` if and only if it is
  SUCCESSFUL or FAILED;
- ``len(_order)`` and what is left of ``_batches`` is at most ``max_pending``, but for retries;
- no record has a ``follow_up``: it is among the records when its predecessor has ended;
- ``_keys`` has the records with a key that are READY or RUNNING, each under its own;
- ``len(_finished) <= max_results``;
- with a RESULT_TTL or a FAILURE_TTL, what is in ``_finished`` and can expire is in ``_lifetimes``;
- ``_finished.kept_bytes`` is the sum of the weights there, and at most ``max_result_bytes`` unless
  one record alone is heavier.

An exception may come between any two writes: a signal handler's, such as that of a time limit, in
the main thread. Which records there are, and the status of each, is the truth; ``_torn`` is true
while anything else is being made to fit it, and the next call that finds it true does that again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any
from weakref import WeakSet

from django.tasks import TaskResultStatus

from django_tasks_local.attempts import TaskErrorText
from django_tasks_local.exceptions import CANCELLED, QueueFull, TaskCancelled
from django_tasks_local.lifetimes import Lifetimes
from django_tasks_local.memory_bulk import Batch, BulkEnqueue
from django_tasks_local.memory_finished import Finished
from django_tasks_local.memory_listing import Lists
from django_tasks_local.memory_order import Order
from django_tasks_local.memory_record import Record, by_status, does_not_exist
from django_tasks_local.memory_ties import Tied, restore_follow_ups
from django_tasks_local.memory_waits import Waits
from django_tasks_local.polite_lock import PoliteLock
from django_tasks_local.store import Arguments, KeyTaken, Snapshot, StopAsked
from django_tasks_local.ties import NO_TIES, Ties
from django_tasks_local.weight import weight


class MemoryStore(BulkEnqueue, Lists, Tied, Waits):
    """Tasks and results of one alias in one process; see ``store.Store``.

    Attributes:
        idle: Threads that wait in `wait_for_claim`.
        running: Tasks that are RUNNING.
    """

    record_class: type[Record] = Record
    _does_not_exist = staticmethod(does_not_exist)

    def __init__(
        self, alias: str, *, max_results: int, max_result_bytes: int, max_pending: int,
        max_workers: int = 1, result_ttl_s: float | None = None, failure_ttl_s: float | None = None,
    ) -> None:  # fmt: skip
        self.alias = alias
        self.max_workers = max_workers
        self.max_pending = max_pending
        self.idle = self.running = 0
        self._closed = False
        self._ending = False  # a thread waits until all is done
        self._lock = threading.Lock()
        self._lock_of_workers = PoliteLock(self._lock)
        # Two conditions: a notify meant for a thread that wants work must not wake a thread that
        # waits for all work to end.
        self._work = threading.Condition(self._lock)
        self._quiet = threading.Condition(self._lock)
        self._records: dict[str, Record] = {}
        self._keys: dict[bytes, Record] = {}
        self._batches = WeakSet[Batch]()  # of what was accepted, and is on its way to the others
        self._waiting: Counter[str] = Counter()  # how often each running task waits for others
        self._order = Order()
        self._lifetimes = Lifetimes[Record](result_ttl_s, failure_ttl_s)
        self._expires = bool(self._lifetimes)
        self._finished = Finished(max_results, max_result_bytes, self._lifetimes)
        self._torn = False

    @property
    def waiting(self) -> int:
        """Tasks that are READY, deferred ones included."""
        return len(self._order)

    @property
    def _accepted(self) -> int:
        """Tasks that are READY, or on their way to that. The lock must be held."""
        waiting = len(self._order)
        return waiting + sum(each.left for each in self._batches) if self._batches else waiting

    @property
    def deferred(self) -> int:
        """Of these, tasks that are not due yet."""
        return len(self._order.deferred)

    @property
    def unattended(self) -> int:
        """How many idle threads are missing: one per due task, one to watch the deferred ones."""
        return len(self._order.ready) + bool(self._order.deferred) - self.idle

    def encode(self, value: object) -> object:
        """Return ``value`` unchanged: within one process nothing needs encoding."""
        return value

    def enqueue(
        self, meta: bytes, arguments: Arguments, *, priority: int, due_ns: int,
        time_limit: int = 0, metadata: bytes = b"", key: bytes = b"", ties: Ties | None = None,
    ) -> tuple[str, int]:  # fmt: skip
        """Store a READY task; see ``store.StoreClient``."""
        record = self.record_class(meta, arguments, priority, time_limit, metadata, key)
        if ties is not None:
            record.ties = ties
        expired: list[Record] = []  # until the lock is free
        self._let_workers_go()
        with self._lock:
            if self._expires:
                self._drop_expired(expired)
            if key in self._keys:
                raise KeyTaken(self._keys[key].result_id)
            if (accepted := self._accepted) >= self.max_pending:
                raise QueueFull(self.alias, accepted, self.max_pending)
            self._put(record, due_ns)
        return record.result_id, record.enqueued_at_ns

    def get(self, result_id: str) -> Snapshot:
        """Return the record as it is now. A read makes a finished result the most recent."""
        expired: list[Record] = []  # until the lock is free
        self._let_workers_go()
        with self._lock:
            record = self._records.get(result_id)
            if record is not None and self._expires:
                self._drop_expired(expired)
                if self._lifetimes.is_over(record):
                    record = None
            if record is not None:
                if record.finished_at_ns:
                    self._finished.touch(result_id)
                return record.snapshot()
        raise self._does_not_exist(result_id, self.alias, str(self._finished))

    def save_metadata(self, result_id: str, metadata: bytes, claim: Record | None = None) -> None:
        """Replace a task's metadata. A save makes a finished result the most recent."""
        dropped: list[Record] = []  # until the lock is free
        self._let_workers_go()
        with self._lock:
            if self._expires:
                self._drop_expired(dropped)
            # What a worker runs may be of a store that was closed meanwhile, or of another one.
            record = claim or self._records.get(result_id)
            if record is not None and self._lifetimes.is_over(record):
                record = None
            if record is not None:
                more = len(metadata) - len(record.metadata)
                record.metadata = metadata
                if result_id in self._finished:
                    self._torn = True
                    self._finished.touch(result_id)
                    self._finished.weigh(record, more)
                    self._torn = False
                    self._evict(dropped)
        if record is None:
            raise self._does_not_exist(result_id, self.alias, str(self._finished))

    def claim(self, worker_id: str = "") -> Record | None:
        """Claim the task whose turn it is; ``None`` if none is due."""
        with self._lock:
            return None if self._closed else self._claim(worker_id)

    def wait_for_claim(self, worker_id: str) -> Record | None:
        """Wait until a task is due and claim it; ``None`` once the store is closed."""
        with self._lock_of_workers:
            while not self._closed:
                if (record := self._claim(worker_id)) is not None:
                    if self._order.deferred:
                        # The thread that knew when the next one falls due may be this one.
                        self._work.notify()
                    return record
                self.idle += 1
                try:
                    self._work.wait(self._order.seconds_to_next())
                finally:
                    self.idle -= 1
            return None

    def finish(
        self, claim: Record, *, successful: bool, outcome: Any, cancelled: bool = False,
        timed_out: bool = False,
    ) -> int:  # fmt: skip
        """Store the outcome. Nothing is too large here: the latest result is always kept."""
        evicted: list[Record] = []  # keeps the records alive until the lock is free
        claim.weight = weight(outcome) + weight(claim.passed) + weight(claim.past)
        with self._lock_of_workers:
            if claim.stop_asked and not cancelled:
                raise StopAsked
            self._mend_if_torn()
            self._torn = True
            claim.ending = outcome
            self.running -= 1
            self._waiting.pop(claim.result_id, None)  # for a thread that it has left
            status = TaskResultStatus.SUCCESSFUL if successful else TaskResultStatus.FAILED
            self._end(claim, status, evicted)
        if claim.bell is not None:
            claim.bell.set()
        return claim.finished_at_ns

    def retry(self, claim: Record, *, error: TaskErrorText, due_ns: int) -> bool:
        """Make a claimed task READY again; see ``store.Store``."""
        record = claim.next_attempt(error)
        with self._lock_of_workers:
            if claim.stop_asked:
                raise StopAsked
            if self._closed:
                return False
            self._mend_if_torn()
            self._torn = True
            self.running -= 1
            self._waiting.pop(claim.result_id, None)  # for a thread that it has left
            record.metadata, record.bell = claim.metadata, claim.bell
            claim.replaced = True
            self._put(record, due_ns)
            if self._ending:
                self._quiet.notify_all()
        return True

    def cancel(self, result_id: str, *, running: bool) -> tuple[bool, Snapshot | None]:
        """Take a READY task out, or ask a RUNNING one to stop; see ``store.StoreClient``."""
        past = self.get(result_id).past  # raises for what is not there
        # Outside the lock, as it may call code of the arguments.
        held = weight(getattr(self._records.get(result_id), "passed", None)) + weight(past)
        evicted: list[Record] = []  # keeps the records alive until the lock is free
        with self._lock:
            record = self._records.get(result_id)
            if record is None or record.finished_at_ns:
                return False, None
            if record.heap is None:
                record.stop_asked = record.stop_asked or running
                return running, None
            self._torn = True
            self._order.remove(record)
            record.stop_asked = True
            cancelled = TaskCancelled(retried=record.past is not None)
            record.ending = self.encode((CANCELLED, f"{CANCELLED}: {cancelled}"))
            record.weight = held + weight(record.ending)
            self._end(record, TaskResultStatus.FAILED, evicted)
            snapshot = record.snapshot()
        if record.bell is not None:
            record.bell.set()
        return True, snapshot

    def _put(self, record: Record, due_ns: int) -> None:
        if self.idle:
            self._work.notify()  # which goes on when the lock is free
        record.due_ns = due_ns
        self._torn = True
        self._records[record.result_id] = record
        if record.key:
            self._keys[record.key] = record
        self._order.add(record, due_ns)
        self._torn = False

    def _end(self, record: Record, status: TaskResultStatus, evicted: list[Record]) -> None:
        # A clock that was set back must not make a task end before it began.
        record.finished_at_ns = max(time.time_ns(), record.started_at_ns, record.enqueued_at_ns)
        follow_up = None
        if record.ties is not NO_TIES and not self._closed:
            follow_up = record.follow_up = self._follow_up(record, status)
        record.status = status
        self._keys.pop(record.key, None)
        if self._closed:
            evicted.append(self._records.pop(record.result_id))
        else:
            record.weight += len(record.metadata)
            self._finished.add(record)
        if follow_up is not None:
            self._records[follow_up.result_id] = follow_up
            self._order.add(follow_up, 0)
            record.follow_up = None
            self._work.notify()
        self._torn = False
        if self._expires:
            self._drop_expired(evicted)
        self._evict(evicted)
        if self._ending:
            self._quiet.notify_all()

    def _drop(self, record: Record, dropped: list[Record]) -> None:
        dropped.append(record)  # which its caller keeps until the lock is free
        self._torn = True
        self._finished.remove(record)
        del self._records[record.result_id]
        self._torn = False

    def _evict(self, dropped: list[Record]) -> None:
        while (record := self._finished.surplus()) is not None:
            self._drop(record, dropped)

    def _drop_expired(self, dropped: list[Record]) -> None:
        for record in self._lifetimes.expired():
            self._drop(record, dropped)

    def _mend_if_torn(self) -> None:
        if not self._torn:
            return
        restore_follow_ups(self._records)
        waiting, running, finished = by_status(self._records.values())
        self._order.refill(waiting)
        self._finished.refill(finished)
        self._keys = {record.key: record for record in (*waiting, *running) if record.key}
        self.running = len(running)
        self._torn = False

    def close(self) -> list[Record]:
        """Stop all claims, end the waits, and drop all records but the running ones.

        Returns:
            The records that were waiting, in order.
        """
        with self._lock:
            self._closed = True
            self._work.notify_all()
            waiting = self._order.empty()
            for record in waiting:
                self._keys.pop(record.key, None)
            dropped = self._records, self._finished.empty()
            self._records = {record.result_id: record for record in self._in_progress()}
        for bell in filter(None, (record.bell for record in waiting)):
            bell.set()
        del dropped  # now that the lock is free
        return waiting

    def in_progress(self) -> list[Record]:
        """Return the records that are RUNNING, in the order in which they were enqueued."""
        with self._lock:
            return self._in_progress()

    def _let_workers_go(self) -> None:
        # What `PoliteLock` does, as far as that is safe in the main thread.
        while self._lock.locked():
            time.sleep(0)
        if self._torn:  # no other thread's, once the lock is ours
            with self._lock:
                self._mend_if_torn()

    def _in_progress(self) -> list[Record]:
        running = TaskResultStatus.RUNNING
        return [record for record in self._records.values() if record.status is running]

    def _claim(self, worker_id: str) -> Record | None:
        self._promote()
        if not self._order.ready:
            return None
        self._torn = True
        return self._begin(self._order.pop(), worker_id)

    def _begin(self, record: Record, worker_id: str) -> Record:
        record.worker_id = worker_id
        record.started_at_ns = max(time.time_ns(), record.enqueued_at_ns)
        record.status = TaskResultStatus.RUNNING
        self.running += 1
        self._torn = False
        return record

    def _promote(self) -> None:
        self._mend_if_torn()
        self._torn = True
        promoted = self._order.promote()
        self._torn = False
        for _ in range(promoted):
            self._work.notify()
