"""Tasks that have ended, by id, by name, by group and by how they ended."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.tasks import TaskResultStatus, task_backends
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.listing import results
from django_tasks_local.stopping import check_cancelled
from django_tasks_local.waiting import CHUNK_S

from .options import WITHOUT_MEANING, warn_once
from .running import q_alias
from .task import Collated, Task, facts_of, is_call

if TYPE_CHECKING:
    from django_tasks_local.result import LocalTaskResult

# Between two looks at a group of which no task waits or runs.
PAUSE_S: Final = 0.05
ENDED: Final = (TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED)


def result(task_id: str | UUID, wait: float = 0, cached: object = None) -> Any:
    """Return what a task returned, or the traceback of its failure; ``None`` if it has not ended.

    Args:
        task_id: See `fetch`, as for the others.
        wait: The same.
        cached: The same.
    """
    task = fetch(task_id, wait, cached)
    return None if task is None else task.result


def fetch(task_id: str | UUID, wait: float = 0, cached: object = None) -> Task | None:
    """Return a task that has ended; ``None`` if it has not, or if there is none.

    It does not wait for a task that does not exist: one that was evicted, say.

    Args:
        task_id: As `async_task` or `async_iter` returned it; or a name, for the newest task of it.
        wait: Milliseconds to wait for the end; -1: however long it takes.
        cached: Means nothing here.

    Raises:
        RuntimeError: Called inside a task, where that wait would be a deadlock.
    """
    _warn_of(cached=cached)
    name = str(task_id)
    deadline = _Deadline(wait)
    backend: Any = task_backends[q_alias()]
    parts: list[LocalTaskResult]
    try:
        parts, as_one = [backend.get_result(name)], False
    except TaskResultDoesNotExist:
        parts, as_one = _calls_of(name), True
        if not parts:
            parts, as_one = _newest_named(name), False
    try:
        for each in parts:
            each.wait_finished(deadline.left_s())
    except (TimeoutError, TaskResultDoesNotExist):
        check_cancelled()  # a task's own time limit is a TimeoutError, too
        return None
    if as_one:
        return Collated(name, parts)
    return Task(parts[0]) if parts else None


def result_group(
    group_id: str | None, failures: bool = False, wait: float = 0, count: int | None = None,
    cached: object = None,
) -> list[Any]:  # fmt: skip
    """Return the results of a group's tasks that have ended, in the order of their ends.

    Args:
        group_id: The label that `async_task` was given.
        failures: Whether to return the tracebacks of those that failed, too.
        wait: Milliseconds to wait until there is one, or ``count``; -1: however long it takes.
        count: So many are to be waited for; without ``wait``, however long it takes.
        cached: Means nothing here.
    """
    return [each.result for each in fetch_group(group_id, failures, wait, count, cached)]


def fetch_group(
    group_id: str | None, failures: bool = True, wait: float = 0, count: int | None = None,
    cached: object = None,
) -> list[Task]:  # fmt: skip
    """Return the tasks of a group that have ended, in the order of their ends.

    Args:
        group_id: See `result_group`, as for the others.
        failures: Whether to return those that failed, too.
        wait: The same.
        count: The same.
        cached: The same.
    """
    _warn_of(cached=cached)
    deadline = _Deadline(-1 if count and not wait else wait)
    while True:
        found = _in_group(group_id)
        ended = [each for each in found if each.is_finished]
        left_s = deadline.left_s()
        if len(ended) >= (count or 1) or left_s == 0:
            break
        pause_s = CHUNK_S if left_s is None else min(left_s, CHUNK_S)
        ahead = next((each for each in found if not each.is_finished), None)
        if ahead is None:
            time.sleep(min(pause_s, PAUSE_S))
        else:
            with suppress(TimeoutError, TaskResultDoesNotExist):
                ahead.wait_finished(pause_s)
        check_cancelled()
    tasks = [Task(each) for each in reversed(ended)]
    return [each for each in tasks if failures or each.success]


def count_group(group_id: str | None, failures: bool = False, cached: object = None) -> int:
    """Return how many of a group's tasks have ended.

    Args:
        group_id: See `result_group`, as for ``cached``.
        failures: Whether to count only those that failed.
        cached: The same.
    """
    _warn_of(cached=cached)
    wanted = (TaskResultStatus.FAILED,) if failures else ENDED
    return len(_in_group(group_id, wanted))


def successes() -> list[Task]:
    """Return all tasks that ended without an exception, the latest first."""
    return [Task(each) for each in _tasks([TaskResultStatus.SUCCESSFUL])]


def failures() -> list[Task]:
    """Return all tasks that failed, the latest first."""
    return [Task(each) for each in _tasks([TaskResultStatus.FAILED])]


def queue_size(broker: object = None) -> int:
    """Return how many tasks wait on the backend, those that other code has enqueued included.

    Args:
        broker: Means nothing here.
    """
    _warn_of(broker=broker)
    return len(results(q_alias(), status=TaskResultStatus.READY, limit=None))


def _warn_of(**keywords: object) -> None:
    for name, value in keywords.items():
        if value:
            warn_once(f"{name}=", WITHOUT_MEANING[name])


class _Deadline:
    def __init__(self, wait_ms: float) -> None:
        self._at = None if wait_ms < 0 else time.monotonic() + wait_ms / 1000

    def left_s(self) -> float | None:
        return None if self._at is None else max(0.0, self._at - time.monotonic())


def _tasks(
    status: Collection[TaskResultStatus] | None = None, *, group: str | None = None
) -> list[LocalTaskResult]:
    """Return the calls of functions, those that ended last first."""
    found = results(q_alias(), status=status, group=group, limit=None)
    return [each for each in found if is_call(each)]


def _in_group(
    group_id: str | None, status: Collection[TaskResultStatus] | None = None
) -> list[LocalTaskResult]:
    # The group of a `Task` may be None: nothing is in that.
    return _tasks(status, group=group_id) if group_id else []


def _calls_of(iter_id: str) -> list[LocalTaskResult]:
    """Return the calls of an `async_iter`, in their order; none if one was evicted."""
    found = _in_group(iter_id)
    calls = [each for each in found if facts_of(each).get("calls") == len(found)]
    return sorted(calls, key=lambda each: each.args[3])


def _newest_named(name: str) -> list[LocalTaskResult]:
    """Return a task that is no call of an `async_iter`, or none."""
    named = [each for each in _tasks() if Task(each).name == name and "calls" not in facts_of(each)]
    return [max(named, key=lambda each: each.enqueued_at)] if named else []
