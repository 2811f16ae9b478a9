"""How a record names its task: by import path, and by what differs from the task found there.

Tasks of Django 6.0 cannot be pickled, and those of later versions may have more fields; so nothing
here depends on which fields exist.
"""

from __future__ import annotations

import pickle
import sys
from contextlib import suppress
from dataclasses import MISSING, fields
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import django.tasks.base
from django.tasks import Task
from django.tasks.base import DEFAULT_TASK_PRIORITY
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist

from django_tasks_local.exceptions import describe, from_a_signal_handler
from django_tasks_local.metadata import TASK_CLASS, decode
from django_tasks_local.store import task_path

if TYPE_CHECKING:
    type AnyTask = Task[..., Any]
    _Task = Task[..., Any]
else:
    _Task = TASK_CLASS

# id(task) -> (task, meta) of tasks that are what their path names. The dict holds the task, so that
# its id stays its own. It has as many entries as the project has decorated functions.
_encoded: dict[int, tuple[AnyTask, bytes]] = {}
_ENCODED_LIMIT = 4096  # arbitrary; reached only by a program that makes tasks in a loop


def encode_task(task: AnyTask) -> bytes:
    """Return the bytes that name ``task`` in a record; `decode_task` is the way back.

    They are the import path, ``module:qualname``, and after a NUL byte the pickled fields that
    differ from the task found there (all fields, where the path names the plain function).
    Metadata is not among them: it differs from task to task, and has a place of its own.

    Raises:
        InvalidTask: The path does not lead back to this task's function, or a field that has to
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
    changes = _changes(task, found)
    if not changes:
        return path.encode()
    try:
        return path.encode() + b"\0" + pickle.dumps(changes, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise InvalidTask(
            f"Task {task.module_path}: its fields cannot be pickled: {describe(error)}."
        ) from error


def enqueues_as_django(task: AnyTask) -> bool:
    """Return whether ``task.enqueue`` does nothing but call its backend.

    A Task class of the project's, or a tracing library, may have one of its own.
    """
    code = getattr(type(task).enqueue, "__code__", None)
    return code is not None and code.co_filename == django.tasks.base.__file__


def decode_task(meta: bytes) -> AnyTask:
    """Return the task that ``meta`` names. Cached.

    Raises:
        TaskResultDoesNotExist: The path no longer imports; the cause says why.
    """
    try:
        return load_task(meta)
    except Exception as error:
        if from_a_signal_handler(error):
            raise  # a time limit, say: this says nothing about the result
        raise TaskResultDoesNotExist(
            f"Task {task_path(meta)} cannot be imported: {describe(error)}."
        ) from error


@lru_cache(maxsize=1024)
def load_task(meta: bytes) -> AnyTask:
    """Return the task that ``meta`` names, or raise whatever the import raised. Cached."""
    path, _, changed = meta.partition(b"\0")
    found = _find(path.decode())
    changes = pickle.loads(changed) if changed else {}
    task_class = changes.pop("", None)
    if isinstance(found, Task):
        if not changes and task_class is None:
            return found
        return _build(task_class or type(found), _values(found) | changes)
    if task_class is None or not callable(found):
        raise ImportError(f"{task_path(meta)} is not a task any more but {found!r}.")
    return _build(task_class, {**changes, "func": found})


class MissingTask(_Task):
    """Stands for a task whose import path leads to no task here any more.

    It has the path (``module_path``, ``name``), and those fields that its record names; of the
    others it has Django's defaults, and ``""`` for ``queue_name``. It cannot be enqueued; to call
    it raises ``ImportError``.
    """

    __slots__ = ()

    def enqueue(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise ``InvalidTask``, with the reason why the task cannot be imported."""
        try:
            self.func()
        except ImportError as error:
            raise InvalidTask(str(error)) from error
        raise AssertionError("the function of a MissingTask always raises")

    async def aenqueue(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Do what `enqueue` does."""
        self.enqueue()


def load_or_stand_in(meta: bytes, alias: str) -> AnyTask:
    """Return the task that ``meta`` names, or a `MissingTask` where that no longer imports."""
    try:
        return load_task(meta)
    except Exception as error:
        return _stand_in(meta, alias, describe(error))


def _stand_in(meta: bytes, alias: str, reason: str) -> MissingTask:
    path, _, changed = meta.partition(b"\0")
    module, _, qualname = path.decode("utf-8", "replace").partition(":")

    def missing(*args: object, **kwargs: object) -> None:
        raise ImportError(f"Task {module}.{qualname} cannot be imported: {reason}.")

    missing.__module__, missing.__qualname__ = module, qualname
    missing.__name__ = qualname.rpartition(".")[2]
    # Django 6.0 has no defaults for priority and run_after.
    known: dict[str, Any] = {
        "priority": DEFAULT_TASK_PRIORITY, "queue_name": "", "run_after": None, "backend": alias,
        "func": missing,
    }  # fmt: skip
    with suppress(Exception):  # a class that has gone with the task
        known |= pickle.loads(changed) if changed else {}
    known.pop("", None)
    stand_in = _build(MissingTask, known)
    assert isinstance(stand_in, MissingTask)
    return stand_in


def copy_task(task: AnyTask, **changes: object) -> AnyTask:
    """Return a copy of ``task`` with changed fields, without having its backend validate it."""
    return _build(type(task), _values(task) | changes)


def add_metadata(task: AnyTask, data: bytes) -> AnyTask:
    """Return ``task`` as it was enqueued, with the metadata of its record, which is JSON."""
    if not (data or getattr(task, "metadata", None)) or not hasattr(task, "metadata"):
        return task
    return copy_task(task, metadata=decode(data))


def _changes(task: AnyTask, found: object) -> dict[str, Any]:
    """Return the fields in which ``task`` differs from what its path names; ``""`` is its class."""
    values = _values(task)
    del values["func"]
    values.pop("metadata", None)
    if found is task.func:
        return {"": type(task), **values}
    if not isinstance(found, Task) or found.func is not task.func:
        raise InvalidTask(_not_found(task, f"the path leads to {found!r}"))
    original = _values(found)
    changes = {n: v for n, v in values.items() if not _same(v, original.get(n, MISSING))}
    if type(found) is not type(task):
        changes[""] = type(task)
    return changes


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
    # By type too: 1.0 == True, and a task must get back exactly what it was given.
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
