"""The store of a ThreadPoolBackend whose tasks are counted (METRICS), in this process's memory."""

from __future__ import annotations

import time
from bisect import bisect_left
from functools import lru_cache
from typing import Any

from django.tasks import TaskResultStatus

from django_tasks_local.attempts import TaskErrorText
from django_tasks_local.memory import MemoryStore
from django_tasks_local.memory_record import Record
from django_tasks_local.naming import load_task
from django_tasks_local.ring import BOUNDS_S, OUTCOMES, Tally


@lru_cache(maxsize=4096)
def _name(meta: bytes) -> tuple[str, str]:
    """Return import path and queue of the task that ``meta`` names; it was enqueued here."""
    task = load_task(meta)
    return task.module_path, task.queue_name


class CountedRecord(Record):
    """A record that knows as what it is counted."""

    __slots__ = ("ends_as", "name", "since_ns")

    def __init__(self, meta: bytes, *args: Any) -> None:
        super().__init__(meta, *args)
        self.name = _name(meta)
        self.since_ns = time.time_ns()  # when it began to wait, unless it is deferred
        self.ends_as = ""


class CountingStore(MemoryStore):
    """A store that counts; see ``ring.format.tally`` for what, and in which buckets."""

    record_class = CountedRecord

    def __init__(self, alias: str, **limits: Any) -> None:
        super().__init__(alias, **limits)
        self._counted: dict[tuple[str, str], _Counts] = {}

    def tallies(self) -> list[Tally]:
        """Return the counters of each task in each queue."""
        with self._lock:
            return [counts.tally(*name) for name, counts in self._counted.items()]

    def finish(
        self, claim: Any, *, successful: bool, outcome: Any, cancelled: bool = False,
        timed_out: bool = False,
    ) -> int:  # fmt: skip
        """Do what `MemoryStore.finish` does, and count it."""
        claim.ends_as = "cancelled" if cancelled else "timeout" if timed_out else "failed"
        if successful:
            claim.ends_as = "successful"
        return super().finish(
            claim, successful=successful, outcome=outcome, cancelled=cancelled, timed_out=timed_out
        )

    def retry(self, claim: Any, *, error: TaskErrorText, due_ns: int) -> bool:
        """Do what `MemoryStore.retry` does, and count it."""
        retried = super().retry(claim, error=error, due_ns=due_ns)
        if retried:
            with self._lock:
                self._counts_of(claim).end("retried", time.time_ns() - claim.started_at_ns)
        return retried

    # All below with the lock.

    def _put(self, record: Any, due_ns: int) -> None:
        super()._put(record, due_ns)
        if record.past is None:  # else it is its next attempt
            self._counts_of(record).enqueued += 1

    def _begin(self, record: Any, worker_id: str) -> Record:
        begun = super()._begin(record, worker_id)
        waited_ns = record.started_at_ns - max(record.since_ns, record.due_ns)
        self._counts_of(record).start(waited_ns)
        return begun

    def _end(self, record: Any, status: TaskResultStatus, evicted: list[Record]) -> None:
        super()._end(record, status, evicted)
        if record.ends_as:
            took_ns = record.finished_at_ns - record.started_at_ns
            self._counts_of(record).end(record.ends_as, took_ns)
        else:
            self._counts_of(record).taken_out += 1

    def _counts_of(self, record: Any) -> _Counts:
        return self._counted.setdefault(record.name, _Counts())


class _Counts:
    def __init__(self) -> None:
        self.enqueued = self.taken_out = self.waited_ns = self.ran_ns = 0
        self.waited = [0] * (len(BOUNDS_S) + 1)
        self.ran = {outcome: [0] * (len(BOUNDS_S) + 1) for outcome in OUTCOMES}

    def start(self, waited_ns: int) -> None:
        self.waited[_bucket(waited_ns)] += 1
        self.waited_ns += max(0, waited_ns)

    def end(self, outcome: str, ran_ns: int) -> None:
        self.ran[outcome][_bucket(ran_ns)] += 1
        self.ran_ns += max(0, ran_ns)

    def tally(self, task: str, queue: str) -> Tally:
        ran = {outcome: [*counts] for outcome, counts in self.ran.items()}
        return Tally(
            task, queue, self.enqueued, self.taken_out, [*self.waited], self.waited_ns, ran,
            self.ran_ns,
        )  # fmt: skip


def _bucket(took_ns: int) -> int:
    return bisect_left(BOUNDS_S, took_ns / 1e9)
