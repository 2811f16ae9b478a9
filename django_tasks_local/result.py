"""What the backends return: Django's ``TaskResult``, made from a record, with ``progress``.

A result keeps the record and computes each field when it is read: a poll for the status unpickles
nothing, however large the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.tasks import TaskResult, TaskResultStatus, task_backends
from django.tasks.base import TaskError
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local import attempts
from django_tasks_local.attempts import Past, kept
from django_tasks_local.exceptions import CANCELLED, ArgumentsDropped, LocalTasksError, describe
from django_tasks_local.metadata import decode, encode, shown
from django_tasks_local.moments import moment_of, unix_ns
from django_tasks_local.naming import add_metadata, decode_task, encode_task
from django_tasks_local.own_backend import OwnBackend
from django_tasks_local.pickled_result import snapshot_of, state_of
from django_tasks_local.store import PlainSnapshot, Snapshot, task_path
from django_tasks_local.waiting import await_finished, wait_finished

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


def _settable(read: Callable[[Any], Any]) -> Any:
    # As `_computed`, for a field that Django sets in a result where it has just stored it.
    return property(read, lambda result, value: result.set_raw_metadata(value))


class LocalTaskResult(_TaskResult):
    """A task's record as it was at one moment; `refresh` replaces it with the current one.

    The fields are those of Django's ``TaskResult``. ``args`` and ``kwargs`` are what was passed,
    not normalised to JSON types. Arguments, return value and errors are unpickled when first read;
    if that is impossible, the read raises a ``ValueError``. Large arguments of a finished task may
    have had to make room for others: reading them raises ``ArgumentsDropped``.
    """

    __slots__ = ("_read", "_snapshot")

    # (args, kwargs), (outcome,), errors and metadata; each None until it is asked for.
    _read: list[Any]
    _snapshot: Snapshot

    # This package makes results with from_record. Django's constructor normalises the arguments,
    # and takes 4 to 6 µs.
    def __init__(
        self,
        *,
        task: AnyTask,
        id: str,
        status: TaskResultStatus,
        enqueued_at: datetime | None,
        started_at: datetime | None,
        finished_at: datetime | None,
        last_attempted_at: datetime | None,
        args: list[Any],
        kwargs: dict[str, Any],
        backend: str,
        errors: list[TaskError],
        worker_ids: list[str],
        raw_metadata: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        """Make a result from Django's fields, as ``dataclasses.replace`` does.

        As with Django's ``TaskResult``, the return value is left out; `refresh` brings it back, as
        it does ``progress`` and ``loss``, and metadata where Django's ``TaskResult`` has no field
        for it.
        """
        last_ns = unix_ns(last_attempted_at) if last_attempted_at else 0
        first_ns = unix_ns(started_at) if started_at else 0
        texts = [(each.exception_class_path, each.traceback) for each in errors]
        outcome = texts.pop() if texts and status == TaskResultStatus.FAILED else None
        snapshot = PlainSnapshot(
            result_id=id,
            status=status,
            meta=encode_task(task),
            enqueued_at_ns=unix_ns(enqueued_at) if enqueued_at else 0,
            started_at_ns=last_ns,
            finished_at_ns=unix_ns(finished_at) if finished_at else 0,
            worker_id="",
            progress=None,
            arguments=lambda: (tuple(args), kwargs),
            outcome=lambda: outcome,
            metadata=encode(raw_metadata or {}),
            cancelled=outcome is not None and outcome[0] == CANCELLED,
            past=Past(tuple(worker_ids), tuple(texts), first_ns, last_ns) if worker_ids else None,
        )
        made = self.from_record(snapshot, backend, task)
        for name in ("task", "id", "backend", "_snapshot"):
            _set(self, name, getattr(made, name))
        _set(self, "_read", [(args, kwargs), (outcome,), errors, None])
        for name, default in _ADDED_FIELDS:
            _set(self, name, others[name] if name in others else default())

    @classmethod
    def from_record(cls, snapshot: Snapshot, alias: str, task: AnyTask) -> LocalTaskResult:
        """Return the result that shows ``snapshot``, a record of ``task`` in backend ``alias``."""
        result = object.__new__(cls)
        _set(result, "task", task)
        _set(result, "id", snapshot.result_id)
        _set(result, "backend", alias)
        _set(result, "_snapshot", snapshot)
        _set(result, "_read", [None, None, None, None])
        for name, default in _ADDED_FIELDS:
            _set(result, name, default())
        return result

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot, alias: str) -> LocalTaskResult:
        """Return the result that shows ``snapshot``, and look its task up.

        Raises:
            TaskResultDoesNotExist: The task's path no longer imports.
        """
        task = add_metadata(decode_task(snapshot.meta), snapshot.metadata)
        return cls.from_record(snapshot, alias, task)

    @property
    def snapshot(self) -> Snapshot:
        """The record that this result shows."""
        return self._snapshot

    @property
    def claim(self) -> Any:
        """The record as the worker holds it that runs it now; ``None`` elsewhere."""
        return self._snapshot if hasattr(type(self._snapshot), "report") else None

    def show(self, snapshot: Snapshot) -> None:
        """Show another state of the same record. Arguments and metadata that were read stay."""
        _set(self, "_snapshot", snapshot)
        self._read[1:3] = None, None

    def set_raw_metadata(self, metadata: dict[str, Any]) -> None:
        """Show other metadata: what was just saved."""
        self._read[3] = metadata

    @_computed
    def status(self) -> TaskResultStatus:
        """READY, RUNNING, SUCCESSFUL or FAILED."""
        return self._snapshot.status

    @_computed
    def enqueued_at(self) -> datetime | None:
        """When the task was enqueued."""
        return moment_of(self._snapshot.enqueued_at_ns)

    @_computed
    def started_at(self) -> datetime | None:
        """When a worker claimed the task for the first time."""
        snapshot = self._snapshot
        return moment_of(attempts.first_started_at_ns(snapshot.past, snapshot.started_at_ns))

    @_computed
    def last_attempted_at(self) -> datetime | None:
        """When a worker claimed it for its latest attempt."""
        snapshot = self._snapshot
        return moment_of(attempts.last_started_at_ns(snapshot.past, snapshot.started_at_ns))

    @_computed
    def finished_at(self) -> datetime | None:
        """When the task's outcome was stored."""
        return moment_of(self._snapshot.finished_at_ns)

    @_computed
    def worker_ids(self) -> list[str]:
        """The worker of each attempt."""
        return attempts.worker_ids(self._snapshot.past, self._snapshot.worker_id)

    @_settable
    def raw_metadata(self) -> dict[str, Any]:
        """The metadata, with the reserved keys, which begin with ``_``."""
        if self._read[3] is None:
            self._read[3] = decode(self._snapshot.metadata)
        metadata: dict[str, Any] = self._read[3]
        return metadata

    @property
    def metadata(self) -> dict[str, Any]:
        """A copy of the metadata, without the reserved keys."""
        return shown(self.raw_metadata)

    @property
    def progress(self) -> Progress | None:
        """What the task reported last, ``None`` if it reported nothing."""
        return self._snapshot.progress

    @property
    def loss(self) -> WorkerLost | None:
        """How the worker died in the middle of the task, with facts; ``None`` if it did not."""
        return self._snapshot.loss

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled before its end, and has ended."""
        return self._snapshot.cancelled

    @property
    def group(self) -> str:
        """The name of its group, ``""`` for none."""
        return self._snapshot.ties.group

    @property
    def after(self) -> str:
        """The id of the result of the task that it follows, ``""`` for none."""
        return self._snapshot.ties.after

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
        """One for each attempt that failed; of more than ten the first one and the last nine."""
        if self._read[2] is None:
            self._read[2] = self._load_errors()
        errors: list[TaskError] = self._read[2]
        return errors

    @_computed
    def _return_value(self) -> Any:
        # Django's `return_value` reads the status, then this.
        if self._snapshot.status != TaskResultStatus.SUCCESSFUL:
            return None
        return self._load_outcome()

    def _load_arguments(self) -> tuple[list[Any], dict[str, Any]]:
        if self._read[0] is None:
            args, kwargs = self._unpickle("arguments", self._snapshot.arguments)
            self._read[0] = list(args), dict(kwargs)
        arguments: tuple[list[Any], dict[str, Any]] = self._read[0]
        return arguments

    def _arguments_or_why_not(self) -> tuple[list[Any], dict[str, Any]] | ArgumentsDropped:
        try:
            return self._load_arguments()
        except ArgumentsDropped as error:
            return error

    def _load_outcome(self) -> Any:
        if self._read[1] is None:
            self._read[1] = (self._unpickle("outcome", self._snapshot.outcome),)
        return self._read[1][0]

    def _load_errors(self) -> list[TaskError]:
        snapshot = self._snapshot
        errors = list(snapshot.past.errors) if snapshot.past else []
        if snapshot.status == TaskResultStatus.FAILED:
            errors.append(self._load_outcome())
        return [TaskError(exception_class_path=path, traceback=text) for path, text in kept(errors)]

    def _unpickle(self, what: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (LocalTasksError, TaskResultDoesNotExist):
            raise  # from the store; other exceptions come from the classes of what was pickled
        except Exception as error:
            raise ValueError(
                f"The {what} of task {task_path(self._snapshot.meta)}, id={self.id}, cannot be "
                f"unpickled: {describe(error)}."
            ) from error

    def __repr__(self) -> str:
        # Django's would unpickle everything, which may raise, or put megabytes into a log line.
        path = task_path(self._snapshot.meta)
        return f"<{type(self).__name__} id={self.id} task={path} status={self.status}>"

    def cancel(self, *, running: bool = True) -> bool:
        """Take the task out if it waits, or ask it to stop if it runs.

        It does not wait for the end of a task that runs.

        Args:
            running: ``False`` to leave it alone once it runs.

        Returns:
            Whether it will be FAILED with `TaskCancelled`.

        Raises:
            TaskResultDoesNotExist: The result was evicted, or has expired.
            StoreUnavailable: The store cannot be used.
        """
        return self._own_backend().cancel(self.id, running=running)

    async def acancel(self, *, running: bool = True) -> bool:
        """Do what `cancel` does, from async code."""
        return await self._own_backend().acancel(self.id, running=running)

    def _own_backend(self) -> OwnBackend:
        backend: Any = task_backends[self.backend]
        if not isinstance(backend, OwnBackend):  # TASKS names another backend by now
            raise TaskResultDoesNotExist(self.id)
        return backend

    def refresh(self) -> None:
        """Show the record as it is now, ``progress`` included; the arguments stay.

        Raises:
            TaskResultDoesNotExist: The result was evicted or has expired, or its task no longer
                imports.
            StoreUnavailable: The store cannot be used.
        """
        # This result's alias, where Django takes the task's: they differ when a task was passed
        # directly to the enqueue() of another backend.
        self._renew(task_backends[self.backend].get_result(self.id))

    async def arefresh(self) -> None:
        """Do what `refresh` does, from async code."""
        self._renew(await task_backends[self.backend].aget_result(self.id))

    def wait_finished(self, timeout: float | timedelta | None = None) -> Self:
        """Block until the task has ended, and return this result, refreshed.

        The end of the task wakes it, within a millisecond on a machine that is not busy; waiting
        takes next to no processor time.

        Args:
            timeout: Seconds or a timedelta; ``None``: wait for as long as it takes. With 0 or less
                it looks once.

        Raises:
            TimeoutError: The task has not ended in time. It goes on.
            RuntimeError: Called inside a task of the same backend while the tasks of all its other
                workers wait, too, or for the very task that calls it: a deadlock.
            TaskResultDoesNotExist: The result was evicted, or has expired.
            TypeError: ``timeout`` is neither a number nor a timedelta.
            ValueError: ``timeout`` is not a number (NaN).
        """
        return wait_finished(self, timeout)

    async def await_finished(self, timeout: float | timedelta | None = None) -> Self:
        """Do what `wait_finished` does, for an event loop, which goes on with other work meanwhile.

        It looks with pauses that grow with the time that has passed, up to 50 ms, and may be
        cancelled at any time.
        """
        return await await_finished(self, timeout)

    def _renew(self, fresh: object) -> None:
        if not isinstance(fresh, LocalTaskResult):  # TASKS names another backend by now
            raise TaskResultDoesNotExist(self.id)
        self.show(fresh.snapshot)
        self._read[3] = None

    def __reduce__(self) -> tuple[Any, ...]:
        snapshot = self._snapshot
        outcome = (self._load_outcome(),) if snapshot.finished_at_ns else None
        arguments, metadata = self._arguments_or_why_not(), encode(self.raw_metadata)
        state = state_of(snapshot, arguments, outcome, metadata)
        return _unpickle, (type(self), self.backend, state)


def _unpickle(cls: type[LocalTaskResult], alias: str, state: tuple[Any, ...]) -> LocalTaskResult:
    return cls.from_snapshot(snapshot_of(state), alias)


_set = object.__setattr__  # the class is frozen


def _default_of(field: Field[Any]) -> Callable[[], Any]:
    if field.default_factory is not MISSING:
        return field.default_factory
    return lambda: None if field.default is MISSING else field.default


# Fields that this package does not know, because a later Django has added them. Nothing fills them:
# each result has their defaults, or None where they have none.
_ADDED_FIELDS: tuple[tuple[str, Callable[[], Any]], ...] = tuple(
    (field.name, _default_of(field))
    for field in fields(TaskResult)
    if field.name not in {*vars(LocalTaskResult), "task", "id", "backend"}
)
