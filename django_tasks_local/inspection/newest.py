"""The tasks of one or more aliases in one list, newest first."""

from collections.abc import Iterator, Mapping
from heapq import nlargest
from typing import Final

from django.tasks import TaskResultStatus

from django_tasks_local.listing import select

from .looks import TaskLook
from .records import Row, latest_ns

_READY: Final = frozenset({TaskResultStatus.READY})
_RUNNING: Final = frozenset({TaskResultStatus.RUNNING})
_ENDED: Final = frozenset({TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED})


def newest(
    looks: Mapping[str, TaskLook], *, status: list[str] | None, queue: str | None,
    task: str | None, limit: int, text: str = "", group: str | None = None,
) -> tuple[list[Row], bool]:  # fmt: skip
    """Return the tasks, newest first, and whether there are more.

    It takes no lock, and leaves no trace. A task's moment is that of its end, or else of its
    latest start, or else of its enqueue.

    Args:
        looks: By alias.
        status: Which statuses; ``None``: all.
        queue: Of which queue; ``None``: of all.
        task: Of the task with which import path; ``None``: of all.
        limit: At most so many; 0: all.
        text: Of tasks whose import path has this in it.
        group: Of which group; ``None``: of all.
    """
    wanted = frozenset(map(TaskResultStatus, status or TaskResultStatus.values))
    found = list(_found(looks, wanted, queue, task, text, limit + 1 if limit else None, group))
    if not limit:
        return sorted(found, key=latest_ns, reverse=True), False
    return nlargest(limit, found, key=latest_ns), len(found) > limit


def next_to_run(
    looks: Mapping[str, TaskLook], *, queue: str | None, task: str | None, limit: int, text: str
) -> tuple[list[Row], bool]:
    """Return the tasks that wait, alias by alias in the order in which they will run.

    Args:
        looks: As for `newest`, and likewise the others.
        queue: The same.
        task: The same.
        limit: The same, at least 1.
        text: The same.
    """
    found: list[Row] = []
    for alias, look in looks.items():
        found += _selected(look, alias, _READY, queue, task, text, limit + 1 - len(found))
    return found[:limit], len(found) > limit


def _found(
    looks: Mapping[str, TaskLook], wanted: frozenset[TaskResultStatus], queue: str | None,
    task: str | None, text: str, limit: int | None, group: str | None,
) -> Iterator[Row]:  # fmt: skip
    for alias, look in looks.items():
        # What waits comes in the order in which it will run, the others come the newest first.
        for some, at_most in ((_RUNNING, limit), (_ENDED, limit), (_READY, None)):
            if status := some & wanted:
                yield from _selected(look, alias, status, queue, task, text, at_most, group)


def _selected(
    look: TaskLook, alias: str, status: frozenset[TaskResultStatus], queue: str | None,
    task: str | None, text: str, limit: int | None, group: str | None = None,
) -> Iterator[Row]:  # fmt: skip
    for result in select(
        look.listed, alias, status=status, queue_name=queue, task=task, group=group, limit=limit,
        text=text,
    ):  # fmt: skip
        yield Row(result, look.is_orphan(result.snapshot))
