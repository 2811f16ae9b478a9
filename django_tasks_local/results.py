"""What our backends return: Django's ``TaskResult``, made from a record, with ``progress``.

A record names its task by import path (``encode_task``), because tasks of Django 6.0 cannot be
pickled and those of later versions may have more fields. A result keeps the record and computes
each field when it is read: a poll for the status costs no unpickling, however large the result.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.tasks import Task, TaskResult, TaskResultStatus, task_backends
from django.tasks.base import TaskError
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist

from django_tasks_local.exceptions import describe
from django_tasks_local.store.records import Snapshot, task_path

if TYPE_CHECKING:
    from django_tasks_local.progress import Progress

    type AnyTask = Task[..., Any]
    _TaskResult = TaskResult[..., Any]
else:
    _TaskResult = TaskResult


# --- naming a task ------------------------------------------------------------------------------

# id(task) -> (task, meta) of tasks that are what their path names; the task is held, so that its
# id stays its own. There are as many as the project has decorated functions.
_encoded: dict[int, tuple[AnyTask, bytes]] = {}
_ENCODED_LIMIT = 4096  # arbitrary; reached only by a program that makes tasks in a loop


def encode_task(task: AnyTask) -> bytes:
    """Return the bytes that name ``task`` in a record; `decode_task` is the way back.

    They are the import path, ``module:qualname``, and after a NUL byte the pickled fields that
    differ from the task found there (all fields, where the path names the plain function).

    Raises:
        InvalidTask: the path does not lead back to this task's function, or a field that has to
            be stored cannot be pickled.
    """
    known = _encoded.get(id(task))
    if known is not None:
        return known[1]
    func = task.func
    path = f"{func.__module__}:{func.__qualname__}"
    try:
        found = _find(path)
    except Exception as error:
        raise InvalidTask(_not_found(task, describe(error))) from error
    if found is task:
        if len(_encoded) >= _ENCODED_LIMIT:
            _encoded.clear()
        meta = path.encode()
        _encoded[id(task)] = task, meta
        return meta
    if found is func:
        changes = {"": type(task), **_values(task)}
    elif isinstance(found, Task) and found.func is func:
        original = _values(found)
        changes = {n: v for n, v in _values(task).items() if not _same(v, original[n])}
        if type(found) is not type(task):
            changes[""] = type(task)
    else:
        raise InvalidTask(_not_found(task, f"what stands there is {found!r}"))
    changes.pop("func", None)
    if not changes:
        return path.encode()
    try:
        return path.encode() + b"\0" + pickle.dumps(changes, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise InvalidTask(
            f"Task {task.module_path}: its fields cannot be pickled: {describe(error)}."
        ) from error


def decode_task(meta: bytes) -> AnyTask:
    """Return the task that ``meta`` names. Cached.

    Raises:
        TaskResultDoesNotExist: the path no longer imports; the cause says why.
    """
    try:
        return load_task(meta)
    except Exception as error:
        raise TaskResultDoesNotExist(
            f"Task {task_path(meta)} cannot be imported: {describe(error)}."
        ) from error


@lru_cache(maxsize=1024)
def load_task(meta: bytes) -> AnyTask:
    """As `decode_task`, but raises whatever the import raised."""
    path, _, changed = meta.partition(b"\0")
    found = _find(path.decode())
    changes = pickle.loads(changed) if changed else {}
    task_class = changes.pop("", None)
    if isinstance(found, Task):
        if not changes and task_class is None:
            return found
        return _build(task_class or type(found), _values(found) | changes)
    if task_class is None or not callable(found):
        raise ImportError(f"{task_path(meta)} is no task any more but {found!r}.")
    return _build(task_class, {**changes, "func": found})


def copy_task(task: AnyTask, **changes: object) -> AnyTask:
    """Return a copy of ``task`` with other fields, without asking its backend to validate it."""
    return _build(type(task), _values(task) | changes)


def _build(task_class: type[AnyTask], values: dict[str, Any]) -> AnyTask:
    # Not dataclasses.replace: its validation would let a change of settings (a queue dropped, an
    # alias renamed) turn a task that was accepted into one that can be neither run nor read.
    task = object.__new__(task_class)
    for field in fields(task_class):
        if field.name in values:
            value = values[field.name]
        elif field.default is not MISSING:
            value = field.default
        elif field.default_factory is not MISSING:
            value = field.default_factory()
        else:
            continue
        object.__setattr__(task, field.name, value)
    return task


def _values(task: AnyTask) -> dict[str, Any]:
    return {f.name: getattr(task, f.name) for f in fields(task) if hasattr(task, f.name)}


def _same(one: object, other: object) -> bool:
    # By type too: 1.0 == True, and a task must get back what it was given.
    return one is other or (type(one) is type(other) and one == other)


def _find(path: str) -> Any:
    """Return what ``module:qualname`` names; ``__main__`` is the script that is running."""
    module_name, _, qualname = path.partition(":")
    found: Any = sys.modules.get(module_name)
    if found is None:
        found = import_module(module_name)
    for name in qualname.split("."):
        found = getattr(found, name)
    return found


def _not_found(task: AnyTask, reason: str) -> str:
    return (
        f"Task {task.module_path} cannot be found again by its import path: {reason}. "
        "A task must be what its module's name for it leads to, as with the @task decorator."
    )


# --- the result ---------------------------------------------------------------------------------


def _computed(read: Callable[[Any], Any]) -> Any:
    # A property in place of a dataclass field; typed as Any, since a field may be assigned to.
    return property(read)


class LocalTaskResult(_TaskResult):
    """A task's record as it was at one moment; `refresh` replaces it by the present one.

    Fields are those of Django's ``TaskResult``. ``args`` and ``kwargs`` are what was passed, not
    normalised to JSON types. Arguments, return value and errors are unpickled when first read,
    and may then raise what unpickling raises.
    """

    __slots__ = ("_arguments", "_outcome", "_snapshot")

    _arguments: tuple[list[Any], dict[str, Any]] | None
    _outcome: tuple[Any] | None
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
        result.show(snapshot)
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
        """Show another state of the same record; what was unpickled before is dropped."""
        _set(self, "_snapshot", snapshot)
        _set(self, "_arguments", None)
        _set(self, "_outcome", None)

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
        """As ``started_at``: a task is started once."""
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
        if self._arguments is None:
            args, kwargs = self._snapshot.arguments()
            _set(self, "_arguments", (list(args), dict(kwargs)))
        assert self._arguments is not None
        return self._arguments

    def _load_outcome(self) -> Any:
        if self._outcome is None:
            assert self._snapshot.outcome is not None  # finished, or nobody would ask
            _set(self, "_outcome", (self._snapshot.outcome(),))
        assert self._outcome is not None
        return self._outcome[0]

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
        arguments = self._arguments
        self.show(fresh.snapshot)
        _set(self, "_arguments", arguments)

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
            None if snapshot.outcome is None else (self._load_outcome(),),
            snapshot.progress,
        )
        return _unpickle, (type(self), self.backend, state)


def _unpickle(cls: type[LocalTaskResult], alias: str, state: tuple[Any, ...]) -> LocalTaskResult:
    result_id, status, meta, enqueued, started, finished, worker_id, arguments, value, progress = (
        state
    )
    snapshot = Snapshot(
        result_id=result_id,
        status=TaskResultStatus(status),
        meta=meta,
        enqueued_at_ns=enqueued,
        started_at_ns=started,
        finished_at_ns=finished,
        worker_id=worker_id,
        arguments=lambda: arguments,
        outcome=None if value is None else lambda: value[0],
        progress=progress,
    )
    return cls.from_snapshot(snapshot, alias)


_set = object.__setattr__  # the class is frozen


def _moment(ns: int) -> datetime | None:
    """Return the moment as ``timezone.now()`` would have given it then; ``None`` for 0."""
    if not ns:
        return None
    return datetime.fromtimestamp(ns / 1e9, UTC if settings.USE_TZ else None)
