"""The protocols that stores, backends and workers share.

It does no I/O, and imports Django only for type checking: a pool that loses the race to start must
be able to end before it has imported Django.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from django_tasks_local.ties import NO_TIES, Ties

if TYPE_CHECKING:
    from django.tasks import TaskResultStatus

    from django_tasks_local.attempts import Past, TaskErrorText
    from django_tasks_local.exceptions import WorkerLost
    from django_tasks_local.progress import Progress

type Arguments = tuple[tuple[Any, ...], dict[str, Any]]

# How long a task may run, how long it may take to stop, and how often it is tried where its worker
# dies, as a word of its record: attempts << 54 | grace in ms << 32 | time limit in ms, 0 for none.
LOST_ATTEMPTS_SHIFT: Final = 54
GRACE_SHIFT: Final = 32
LIMIT_MASK: Final = 2**32 - 1
GRACE_MASK: Final = 2**22 - 1


def time_limit_word(limit_s: float | None, grace_s: float, lost_attempts: int = 0) -> int:
    """Return the word of a record that says how long its task may run.

    Args:
        limit_s: At most `LIMIT_MASK` ms; ``None`` for no limit.
        grace_s: At most `GRACE_MASK` ms.
        lost_attempts: As `lost_attempts` returns it, at most 1,023.
    """
    limit_ms = 0 if limit_s is None else max(1, round(limit_s * 1000))
    return lost_attempts << LOST_ATTEMPTS_SHIFT | round(grace_s * 1000) << GRACE_SHIFT | limit_ms


def limit_s(word: int) -> float:
    """Return how many seconds a task may run; 0 for any."""
    return (word & LIMIT_MASK) / 1000


def grace_s(word: int) -> float:
    """Return how many seconds a task may take to stop."""
    return (word >> GRACE_SHIFT & GRACE_MASK) / 1000


def lost_attempts(word: int) -> int:
    """Return how often a task may be tried where its worker dies; 0: it is not tried again."""
    return word >> LOST_ATTEMPTS_SHIFT


class StopAsked(Exception):
    """A task was asked to stop before its end was stored. Nothing was stored."""


class KeyTaken(Exception):
    """A task with this key waits or runs already. Nothing was stored.

    Attributes:
        result_id: Its id.
    """

    def __init__(self, result_id: str) -> None:
        self.result_id = result_id
        super().__init__(result_id)


class Snapshot(Protocol):
    """One record as a reader saw it at one moment. Times are Unix ns, 0 where not reached yet."""

    @property
    def result_id(self) -> str:
        """The id of the task's result."""

    @property
    def status(self) -> TaskResultStatus:
        """READY, RUNNING, SUCCESSFUL or FAILED."""

    @property
    def meta(self) -> bytes:
        """The bytes that name the task, see ``naming.encode_task``."""

    @property
    def enqueued_at_ns(self) -> int:
        """When the task was enqueued."""

    @property
    def started_at_ns(self) -> int:
        """When a worker claimed the task, for its present or last attempt."""

    @property
    def finished_at_ns(self) -> int:
        """When the task ended."""

    @property
    def worker_id(self) -> str:
        """The worker of its present or last attempt, unless ``past`` has that; else ``""``."""

    @property
    def past(self) -> Past[str] | None:
        """The attempts before that one; ``None`` where there were none."""

    @property
    def progress(self) -> Progress | None:
        """What the task reported last, ``None`` if nothing."""

    @property
    def metadata(self) -> bytes:
        """Its metadata as JSON, reserved keys included; ``b""`` for none."""

    @property
    def ties(self) -> Ties:
        """Its ties to other tasks."""

    @property
    def loss(self) -> WorkerLost | None:
        """How the worker was lost in the middle of the task, ``None`` where it was not."""

    @property
    def cancelled(self) -> bool:
        """Whether it was taken out, or asked to stop before its end."""

    def arguments(self) -> Arguments:
        """Return the arguments, unpickled. A poll for the status never calls this."""

    def outcome(self) -> Any:
        """Return the return value, or the exception's class path and the traceback.

        Only for a record that is SUCCESSFUL or FAILED.
        """


@dataclass(slots=True)
class PlainSnapshot:
    """A `Snapshot` with nothing left to compute."""

    result_id: str
    status: TaskResultStatus
    meta: bytes
    enqueued_at_ns: int
    started_at_ns: int
    finished_at_ns: int
    worker_id: str
    progress: Progress | None
    arguments: Callable[[], Arguments]
    outcome: Callable[[], Any]
    loss: WorkerLost | None = None
    metadata: bytes = b""
    cancelled: bool = False
    past: Past[str] | None = None
    ties: Ties = NO_TIES


class Ended:
    """The `Snapshot` of a task that has just ended: what has changed, and for the rest ``running``.

    One is made for each task, and mostly nobody reads it: hence no copy of fields.
    """

    __slots__ = ("_outcome", "_running", "cancelled", "finished_at_ns", "status")

    def __init__(
        self, running: Snapshot, status: TaskResultStatus, finished_at_ns: int, outcome: object,
        *, cancelled: bool = False,
    ) -> None:  # fmt: skip
        self._running = running
        self.status = status
        self.finished_at_ns = finished_at_ns
        self._outcome = outcome
        self.cancelled = cancelled

    def outcome(self) -> Any:
        """Return the outcome that the constructor got."""
        return self._outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(self._running, name)


class Claim(Snapshot, Protocol):
    """One task that a worker has claimed and must bring to its end."""

    @property
    def time_limit(self) -> int:
        """How long it may run, a `time_limit_word`."""

    @property
    def stop_asked(self) -> bool:
        """Whether it was asked to stop; ``False`` once it has ended."""

    def report(self, done: float, total: float | None, message: str) -> None:
        """Store the task's progress. Cheap, no lock; does nothing once the task has ended."""


class StoreClient(Protocol):
    """What a backend needs of a store."""

    def encode(self, value: object) -> Any:
        """Return ``value`` as `enqueue` and `finish` take it. May raise what pickling raises."""

    def enqueue(
        self, meta: bytes, arguments: Any, *, priority: int, due_ns: int, time_limit: int = 0,
        metadata: bytes = b"", key: bytes = b"", ties: Ties | None = None,
    ) -> tuple[str, int]:  # fmt: skip
        """Store a READY task; ``due_ns`` 0 means now, and metadata is JSON.

        ``time_limit`` is a `time_limit_word`, ``key`` the digest of a unique task's key. Arguments
        in ``ties`` are encoded.

        Returns:
            The result id, and when it was enqueued in Unix ns.

        Raises:
            KeyTaken: A task with this key is READY or RUNNING.
            QueueFull: MAX_PENDING tasks are waiting.
            PayloadTooLarge: The arguments or the metadata do not fit.
            StoreUnavailable: The store cannot be used.
        """

    def get(self, result_id: str) -> Snapshot:
        """Return the record as it is now.

        Raises:
            TaskResultDoesNotExist: The string is not the id of a record here.
        """

    def wait_for_change(self, snapshot: Any, timeout_s: float) -> None:
        """Block until a record of this store has ended, or for ``timeout_s``; it may return early.

        Args:
            snapshot: The record, as `get` has given it.
            timeout_s: For how long at most.
        """

    def begin_waiting(self, task_id: str) -> bool:
        """Note that a running task of this store, the caller, waits for others.

        Returns:
            False where then the task of every worker would wait. Nothing is noted then.
        """

    def end_waiting(self, task_id: str) -> None:
        """Note that it waits no longer."""

    def listed(
        self, statuses: Collection[TaskResultStatus], accepts: Callable[[bytes], bool] | None,
        group: str = "",
    ) -> Iterator[Snapshot]:  # fmt: skip
        """Yield the records that are there, without using them.

        What is RUNNING, the latest start first; READY, in the order in which it will run, the
        deferred last; finished, the latest end first.

        Args:
            statuses: Which of them.
            accepts: Says by a record's ``meta`` whether it is wanted; ``None``: all are.
            group: Only those of this group; ``""``: all.
        """

    def unfinished_in(self, group: str) -> list[str]:
        """Return the ids of a group's tasks that wait or run: exact for one moment.

        A task and what follows it change places in that: there is no moment between them.
        """

    def save_metadata(self, result_id: str, metadata: bytes, claim: Any = None) -> None:
        """Replace the metadata of a task in any state.

        Args:
            result_id: The task's.
            metadata: JSON, ``b""`` for none.
            claim: The task as its worker claimed it, where the worker saves.

        Raises:
            TaskResultDoesNotExist: There is no such record any more.
            PayloadTooLarge: It does not fit. What was stored before stays.
            StoreUnavailable: The store cannot be used.
        """

    def cancel(self, result_id: str, *, running: bool) -> tuple[bool, Snapshot | None]:
        """Take a READY task out, or ask a RUNNING one to stop if ``running`` says so.

        Returns:
            Whether it was taken out or asked, and the record if it was taken out.

        Raises:
            TaskResultDoesNotExist: For any string that is not the id of a record here.
        """


class BulkStore(StoreClient, Protocol):
    """What a backend needs of a store to enqueue many tasks at once."""

    def enqueue_many(
        self, meta: bytes, arguments: Sequence[Any], *, priority: int, due_ns: int,
        time_limit: int = 0, metadata: bytes = b"", keys: Sequence[bytes] = (),
        ties: Ties | None = None,
    ) -> tuple[list[str], dict[int, str], int]:  # fmt: skip
        """Store tasks that differ in their arguments and keys, all of them or none.

        Args:
            meta: As for `enqueue`, and likewise the others.
            arguments: Those of each task; at least one.
            keys: That of each task, b"" for none; or nothing.

        Returns:
            The ids; by place the ids of other tasks, for those whose keys were taken while this was
            done; and when they were enqueued, in Unix ns.

        Raises:
            QueueFull, PayloadTooLarge, StoreUnavailable: As `enqueue`.
        """

    def held(self, keys: Sequence[bytes]) -> dict[int, str]:
        """Return which of these keys READY or RUNNING tasks have: by place, their ids."""


class Store(StoreClient, Protocol):
    """What a worker needs of a store, besides what a backend does."""

    def claim(self) -> Claim | None:
        """Turn the task whose turn it is from READY to RUNNING; ``None`` if none is due."""

    def finish(
        self, claim: Any, *, successful: bool, outcome: Any, cancelled: bool = False,
        timed_out: bool = False,
    ) -> int:  # fmt: skip
        """Store the encoded outcome and the end of a claimed task.

        Args:
            claim: The task.
            successful: How it ended.
            outcome: Its return value or its error, encoded.
            cancelled: The outcome tells that it was asked to stop.
            timed_out: The outcome tells that it ran too long.

        Returns:
            When it finished, in Unix ns.

        Raises:
            PayloadTooLarge: The outcome does not fit. Nothing was stored: call again, with the
                error as the outcome.
            StopAsked: The task was asked to stop, and the outcome does not tell it. Nothing was
                stored: call again with ``cancelled``.
        """

    def retry(self, claim: Any, *, error: TaskErrorText, due_ns: int) -> bool:
        """Make a claimed task READY again, and keep this attempt and its error in its ``past``.

        It takes its place as one that was enqueued just now.

        Args:
            claim: The task.
            error: Exception class path and traceback.
            due_ns: Not before then, Unix ns; 0 for at once.

        Returns:
            False where it cannot wait here any more. Nothing was stored: call `finish`.

        Raises:
            StopAsked: The task was asked to stop, likewise.
        """


def task_path(meta: bytes) -> str:
    """Return the dotted import path of the task that ``meta`` names, for texts and logs."""
    return meta.partition(b"\0")[0].decode("utf-8", "replace").replace(":", ".")
