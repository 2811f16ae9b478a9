"""Lists of tasks and results: ``results()``, for pages, commands and monitors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.tasks import Task, TaskResultStatus, task_backends
from django.tasks.exceptions import InvalidTaskBackend

from django_tasks_local.naming import MissingTask, add_metadata, load_or_stand_in
from django_tasks_local.own_backend import OwnBackend
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.store import Snapshot, task_path

if TYPE_CHECKING:
    from django_tasks_local.naming import AnyTask

type Listed = Callable[
    [Collection[TaskResultStatus], Callable[[bytes], bool] | None, str], Iterator[Snapshot]
]


def results(
    backend: str = "default",
    *,
    status: TaskResultStatus | str | Iterable[TaskResultStatus | str] | None = None,
    queue_name: str | None = None,
    task: AnyTask | str | None = None,
    group: str | None = None,
    limit: int | None = 100,
) -> list[LocalTaskResult]:
    """Return the tasks and results that a backend of this package holds at this moment.

    Their order: what is RUNNING, the latest start first; what is READY, in the order in which it
    will run (by priority, then by the time of its enqueue), and behind it what is deferred, by
    ``run_after``; what has finished, the latest end first.

    It takes no lock for long, starts nothing, unpickles no arguments, return values or errors
    (these are, when they are first read), and does not count as a use of a result: what is evicted
    next stays the same. Results that have expired are left out. While it reads, tasks start and
    end: the list is not of one instant.

    The task of a result whose path no longer imports is a `MissingTask`, which has that path.

    Args:
        backend: The key in ``TASKS``.
        status: One status or several; ``None``: all.
        queue_name: Only tasks of this queue.
        task: Only results of this task, whatever its ``using()``, or of the task with this import
            path (as ``task.module_path`` has it).
        group: Only tasks of this group.
        limit: How many at most; ``None``: all there are.

    Raises:
        InvalidTaskBackend: ``backend`` is not a key of ``TASKS``.
        ImproperlyConfigured: That backend is none of this package, or its options are wrong.
        StoreUnavailable: The store cannot be used.
        TypeError: An argument is of a wrong type.
        ValueError: ``status``, ``group`` or ``limit`` has an impossible value.
    """
    lister = own_backend(backend)
    return select(
        lister.listed, backend, status=status, queue_name=queue_name, task=task, group=group,
        limit=limit,
    )  # fmt: skip


async def aresults(
    backend: str = "default",
    *,
    status: TaskResultStatus | str | Iterable[TaskResultStatus | str] | None = None,
    queue_name: str | None = None,
    task: AnyTask | str | None = None,
    group: str | None = None,
    limit: int | None = 100,
) -> list[LocalTaskResult]:
    """Do what `results` does, in a thread: a long list would hold up an event loop."""
    return await asyncio.to_thread(
        results, backend, status=status, queue_name=queue_name, task=task, group=group, limit=limit
    )


def select(
    listed: Listed,
    alias: str,
    *,
    status: TaskResultStatus | str | Iterable[TaskResultStatus | str] | None = None,
    queue_name: str | None = None,
    task: AnyTask | str | None = None,
    group: str | None = None,
    limit: int | None = None,
    text: str = "",
) -> list[LocalTaskResult]:
    """Do what `results` does, with the records that ``listed`` yields.

    Args:
        listed: See ``store.StoreClient.listed``.
        alias: The backend of those records.
        status: See `results`, as for the others.
        queue_name: The same.
        task: The same.
        group: The same.
        limit: The same.
        text: Only tasks whose import path has it in it, in small or capital letters.

    Raises:
        TypeError, ValueError: As `results`.
    """
    statuses = _statuses(status)
    path = _path(task)
    if queue_name is not None:
        _check_string("queue_name", queue_name)
    if group is not None:
        _check_group(group)
    _check_limit(limit)
    wanted = _Wanted(alias, path, queue_name, text)
    accepts = wanted if path is not None or queue_name is not None or text else None
    return [
        LocalTaskResult.from_record(
            each, alias, add_metadata(wanted.task_of(each.meta), each.metadata)
        )
        for each in islice(listed(statuses, accepts, group or ""), limit)
    ]


class _Wanted:
    """Says by the bytes that name a task whether its record is wanted, and which task that is."""

    def __init__(self, alias: str, path: str | None, queue_name: str | None, text: str) -> None:
        self._alias = alias
        self._path = path
        self._queue_name = queue_name
        self._text = text.casefold()
        self._tasks: dict[bytes, AnyTask] = {}
        self._answers: dict[bytes, bool] = {}

    def __call__(self, meta: bytes) -> bool:
        answer = self._answers.get(meta)
        if answer is None:
            answer = self._answers[meta] = self._answer(meta)
        return answer

    def task_of(self, meta: bytes) -> AnyTask:
        """Return the task that ``meta`` names, or what stands for it."""
        task = self._tasks.get(meta)
        if task is None:
            task = self._tasks[meta] = load_or_stand_in(meta, self._alias)
        return task

    def _answer(self, meta: bytes) -> bool:
        if self._path is not None and task_path(meta) != self._path:
            return False
        if self._text and self._text not in task_path(meta).casefold():
            return False
        return self._queue_name is None or self.task_of(meta).queue_name == self._queue_name


def own_backend(alias: str) -> OwnBackend:
    """Return the backend of this package that has this key in ``TASKS``.

    Raises:
        TypeError, InvalidTaskBackend, ImproperlyConfigured: As `results`.
    """
    _check_string("backend", alias)
    try:
        backend: Any = task_backends[alias]
    except InvalidTaskBackend as error:
        raise InvalidTaskBackend(
            f"backend={alias!r} is not a key of TASKS, which has {_named(task_backends)}."
        ) from error
    if not isinstance(backend, OwnBackend):
        able = [each for each in task_backends if _can_list(each)]
        raise ImproperlyConfigured(
            f"backend={alias!r} cannot list results: it is a {type(backend).__name__}. "
            "ThreadPoolBackend and ProcessPoolBackend of django_tasks_local can: in TASKS "
            f"{_named(able) if able else 'no alias'}."
        )
    return backend


def _can_list(alias: str) -> bool:
    try:
        return isinstance(task_backends[alias], OwnBackend)
    except Exception:
        return False  # another alias's mistake


def _named(aliases: Iterable[str]) -> str:
    return ", ".join(map(repr, aliases))


def _statuses(status: Any) -> Collection[TaskResultStatus]:
    if status is None:
        return frozenset(TaskResultStatus)
    several = [status] if isinstance(status, str) else status
    if not isinstance(several, Iterable):
        raise TypeError(
            f"status={status!r} must be a TaskResultStatus, several of them or None, "
            f"not {type(status).__name__}."
        )
    try:
        return frozenset(TaskResultStatus(each) for each in several)
    except ValueError as error:
        raise ValueError(
            f"status={status!r}: {error}. There are {', '.join(TaskResultStatus.values)}."
        ) from error


def _path(task: object) -> str | None:
    if task is None or isinstance(task, str):
        return task
    if isinstance(task, Task):
        return task.module_path
    raise TypeError(
        f"task={task!r} must be a task, its import path or None, not {type(task).__name__}."
    )


def _check_string(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r} must be a string, not {type(value).__name__}.")


def _check_group(name: object) -> None:
    _check_string("group", name)
    if not name:  # as of a result that has none
        raise ValueError("group='' must not be empty; leave it out for the tasks of all groups.")


def _check_limit(limit: object) -> None:
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit={limit!r} must be an int or None, not {type(limit).__name__}.")
    if limit < 0:
        raise ValueError(f"limit={limit} must be 0 or more, or None for all.")


__all__ = ["MissingTask", "aresults", "results"]
