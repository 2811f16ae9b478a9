"""One task in a store in memory, from `enqueue` to its end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from typing import Any

from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.attempts import Past, TaskErrorText, add_attempt
from django_tasks_local.heap import Heap
from django_tasks_local.progress import Progress
from django_tasks_local.ring import random_id
from django_tasks_local.store import Arguments, PlainSnapshot, Snapshot
from django_tasks_local.ties import NO_TIES, Ties


class Record:
    """One task in one attempt; also the claim of the thread that runs it."""

    __slots__ = (
        "bell",
        "due_ns",
        "ending",
        "enqueued_at_ns",
        "entry",
        "finished_at_ns",
        "follow_up",
        "heap",
        "key",
        "meta",
        "metadata",
        "passed",
        "past",
        "priority",
        "replaced",
        "reported",
        "result_id",
        "started_at_ns",
        "status",
        "stop_asked",
        "ties",
        "time_limit",
        "weight",
        "worker_id",
    )

    loss = None  # threads die with their process, and their records with them

    def __init__(
        self, meta: bytes, arguments: Arguments, priority: int, time_limit: int = 0,
        metadata: bytes = b"", key: bytes = b"", ties: Ties = NO_TIES,
    ) -> None:  # fmt: skip
        self.result_id = random_id()
        self.meta = meta
        self.passed = arguments  # as the store has encoded them
        self.metadata = metadata
        self.key = key  # of a unique task, b"" of others
        self.ties = ties
        self.follow_up: Record | None = None  # that its end is just putting into the store
        self.priority = priority
        self.time_limit = time_limit
        self.stop_asked = False  # from then on, and so it was cancelled
        self.status = TaskResultStatus.READY
        self.enqueued_at_ns = time.time_ns()
        self.started_at_ns = 0
        self.finished_at_ns = 0
        self.worker_id = ""
        self.ending: Any = None
        self.due_ns = 0  # until when it is deferred
        self.heap: Heap[Record] | None = None  # in which it waits, and its entry there
        self.entry: list[Any] = []
        self.reported: tuple[float, float | None, str] | None = None
        self.weight = 0  # about how many bytes it holds; counted when it ends
        self.bell: threading.Event | None = None  # made by the first call that waits for its end
        self.past: Past[str] | None = None
        self.replaced = False  # by the record of its next attempt

    def next_attempt(self, error: TaskErrorText) -> Record:
        """Return the READY record that takes the place of this one, whose attempt has failed.

        Another object: what a thread that outlives the attempt reports, it reports to this one.
        """
        record = type(self)(
            self.meta, self.passed, self.priority, self.time_limit, self.metadata, self.key,
            self.ties,
        )  # fmt: skip
        record.result_id, record.enqueued_at_ns = self.result_id, self.enqueued_at_ns
        record.past = add_attempt(self.past, self.worker_id, self.started_at_ns, error)
        return record

    def arguments(self) -> Arguments:
        """Return the objects that were passed, unchanged."""
        return self.passed

    def outcome(self) -> Any:
        """Return the object that the task returned, or the error's class path and traceback."""
        return self.ending

    @property
    def progress(self) -> Progress | None:
        """What the task has reported."""
        return None if self.reported is None else Progress(*self.reported)

    def report(self, done: float, total: float | None, message: str) -> None:
        """Keep the task's progress: one store of one reference, so a reader needs no lock."""
        if self.status is TaskResultStatus.RUNNING and not self.replaced:
            self.reported = (done, total, message)

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled before its end, and has ended."""
        return self.stop_asked and self.finished_at_ns > 0

    @property
    def was_put(self) -> bool:
        """Whether it has ever been READY in a store."""
        return self.heap is not None or self.started_at_ns > 0 or self.finished_at_ns > 0

    def snapshot(self) -> Snapshot:
        """Return the record as it is now. The store's lock must be held."""
        return PlainSnapshot(
            self.result_id,
            self.status,
            self.meta,
            self.enqueued_at_ns,
            self.started_at_ns,
            self.finished_at_ns,
            self.worker_id,
            self.progress,
            self.arguments,
            self.outcome,
            metadata=self.metadata,
            cancelled=self.cancelled,
            past=self.past,
            ties=self.ties,
        )


def does_not_exist(result_id: str, alias: str, kept: str) -> TaskResultDoesNotExist:
    """Return what to raise for a string that is not the id of a record here.

    Args:
        result_id: The string.
        alias: The backend's.
        kept: What is kept of finished results.
    """
    return TaskResultDoesNotExist(
        f"No result {result_id[:80]!r} in process {os.getpid()}. Task backend {alias!r} is a "
        "ThreadPoolBackend: only the process that enqueued a task can read its result, and it "
        f"keeps {kept}. ProcessPoolBackend has results that every process of the site can read."
    )


def by_status(records: Iterable[Record]) -> tuple[list[Record], list[Record], list[Record]]:
    """Return what is READY, RUNNING and finished; what has not ended is as if nothing had tried.

    Its status is what a call that ends a record writes last.
    """
    waiting: list[Record] = []
    running: list[Record] = []
    finished: list[Record] = []
    for record in records:
        if record.status is TaskResultStatus.READY:
            record.stop_asked = False
            waiting.append(record)
        elif record.status is TaskResultStatus.RUNNING:
            running.append(record)
        else:
            finished.append(record)
            continue
        record.finished_at_ns, record.ending = 0, None
    return waiting, running, finished
