"""What our backends return: Django's ``TaskResult``, made from a record, with ``progress``.

A result keeps the record and computes each field when it is read: a poll for the status costs no
unpickling, however large the result.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.tasks import TaskResult, TaskResultStatus, task_backends
from django.tasks.base import TaskError
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.naming import decode_task
from django_tasks_local.store.records import PlainSnapshot, Snapshot, task_path

if TYPE_CHECKING:
    from django_tasks_local.exceptions import WorkerLost
    from django_tasks_local.naming import AnyTask
    from django_tasks_local.progress import Progress

    _TaskResult = TaskResult[..., Any]
else:
    _TaskResult = TaskResult


def _computed(read: Callable[[Any], Any]) -> Any:
    # A property in place of a dataclass field; typed as Any, since a field may be assigned to.
    return property(read)


class LocalTaskResult(_TaskResult):
    """A task's record as it was at one moment; `refresh` replaces it by the present one.

    Fields are those of Django's ``TaskResult``. ``args`` and ``kwargs`` are what was passed, not
    normalised to JSON types. Arguments, return value and errors are unpickled when first read,
    and may then raise what unpickling raises.
    """

    __slots__ = ("_read", "_snapshot")

    _read: list[Any]  # (args, kwargs) and (outcome,), None until they are asked for
    _snapshot: Snapshot

    # A result is made by from_record and never by calling the class: Django's constructor
    # normalises the arguments, and takes 4 to 6 µs.
    @classmethod
    def from_record(cls, snapshot: Snapshot, alias: str, task: AnyTask) -> LocalTaskResult:
        """Return the result that shows ``snapshot``, a record of ``task`` in backend ``alias``."""
        result = object.__new__(cls)
        _set(result, "task", task)
        _set(result, "id", snapshot.result_id)
        _set(result, "backend", alias)
        _set(result, "_snapshot", snapshot)
        _set(result, "_read", [None, None])
        return result

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot, alias: str) -> LocalTaskResult:
        """As `from_record`, with the task looked up.

        Raises:
            TaskResultDoesNotExist: the task's path no longer imports.
        """
        return cls.from_record(snapshot, alias, decode_task(snapshot.meta))

    @property
    def snapshot(self) -> Snapshot:
        """The record that is shown."""
        return self._snapshot

    def show(self, snapshot: Snapshot) -> None:
        """Show another state of the same record; what has been read of it stays what it was."""
        _set(self, "_snapshot", snapshot)

    @_computed
    def status(self) -> TaskResultStatus:
        """READY, RUNNING, SUCCESSFUL or FAILED."""
        return self._snapshot.status

    @_computed
    def enqueued_at(self) -> datetime | None:
        """When it was enqueued."""
        return _moment(self._snapshot.enqueued_at_ns)

    @_computed
    def started_at(self) -> datetime | None:
        """When a worker claimed it."""
        return _moment(self._snapshot.started_at_ns)

    @_computed
    def last_attempted_at(self) -> datetime | None:
        """The same as ``started_at``, since a task is started once."""
        return _moment(self._snapshot.started_at_ns)

    @_computed
    def finished_at(self) -> datetime | None:
        """When its outcome was stored."""
        return _moment(self._snapshot.finished_at_ns)

    @_computed
    def worker_ids(self) -> list[str]:
        """The worker that claimed it, in a list as Django has it."""
        worker_id = self._snapshot.worker_id
        return [worker_id] if worker_id else []

    @property
    def progress(self) -> Progress | None:
        """What the task reported last, ``None`` if it reported nothing."""
        return self._snapshot.progress

    @property
    def loss(self) -> WorkerLost | None:
        """How the worker died in the middle of the task, with facts; ``None`` if it did not."""
        return self._snapshot.loss

    @_computed
    def args(self) -> list[Any]:
        """The positional arguments, as they were passed."""
        return self._load_arguments()[0]

    @_computed
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments, as they were passed."""
        return self._load_arguments()[1]

    @_computed
    def errors(self) -> list[TaskError]:
        """What the task raised, in a list as Django has it."""
        if self._snapshot.status != TaskResultStatus.FAILED:
            return []
        class_path, traceback = self._load_outcome()
        return [TaskError(exception_class_path=class_path, traceback=traceback)]

    @_computed
    def _return_value(self) -> Any:
        # Django's `return_value` looks at the status, then here.
        if self._snapshot.status != TaskResultStatus.SUCCESSFUL:
            return None
        return self._load_outcome()

    def _load_arguments(self) -> tuple[list[Any], dict[str, Any]]:
        if self._read[0] is None:
            args, kwargs = self._snapshot.arguments()
            self._read[0] = list(args), dict(kwargs)
        arguments: tuple[list[Any], dict[str, Any]] = self._read[0]
        return arguments

    def _load_outcome(self) -> Any:
        if self._read[1] is None:
            self._read[1] = (self._snapshot.outcome(),)
        return self._read[1][0]

    def __repr__(self) -> str:
        # Django's would unpickle everything, which may be megabytes in a line of a log, or raise.
        path = task_path(self._snapshot.meta)
        return f"<{type(self).__name__} id={self.id} task={path} status={self.status}>"

    def refresh(self) -> None:
        """Show the record as it is now, ``progress`` included; the arguments stay.

        Raises:
            TaskResultDoesNotExist: the result has been evicted, or its task no longer imports.
        """
        # The alias, where Django takes the task's: the two differ when a task was given straight
        # to the enqueue() of another backend.
        self._renew(task_backends[self.backend].get_result(self.id))

    async def arefresh(self) -> None:
        """As `refresh`."""
        self._renew(await task_backends[self.backend].aget_result(self.id))

    def _renew(self, fresh: object) -> None:
        if not isinstance(fresh, LocalTaskResult):  # TASKS names another backend by now
            raise TaskResultDoesNotExist(self.id)
        self.show(fresh.snapshot)

    def __reduce__(self) -> tuple[Any, ...]:
        snapshot = self._snapshot
        state = (
            snapshot.result_id,
            snapshot.status.value,
            snapshot.meta,
            snapshot.enqueued_at_ns,
            snapshot.started_at_ns,
            snapshot.finished_at_ns,
            snapshot.worker_id,
            self._load_arguments(),
            (self._load_outcome(),) if snapshot.finished_at_ns else None,
            snapshot.progress,
            snapshot.loss,
        )
        return _unpickle, (type(self), self.backend, state)


def _unpickle(cls: type[LocalTaskResult], alias: str, state: tuple[Any, ...]) -> LocalTaskResult:
    result_id, status, meta, enqueued, started, finished, worker_id, arguments, value = state[:9]
    progress, loss = state[9:]
    snapshot = PlainSnapshot(
        result_id=result_id,
        status=TaskResultStatus(status),
        meta=meta,
        enqueued_at_ns=enqueued,
        started_at_ns=started,
        finished_at_ns=finished,
        worker_id=worker_id,
        progress=progress,
        arguments=lambda: arguments,
        outcome=lambda: value[0],
        loss=loss,
    )
    return cls.from_snapshot(snapshot, alias)


_set = object.__setattr__  # the class is frozen


def _moment(ns: int) -> datetime | None:
    """Return the moment as ``timezone.now()`` would have given it then; ``None`` for 0."""
    if not ns:
        return None
    return datetime.fromtimestamp(ns / 1e9, UTC if settings.USE_TZ else None)
