"""A task that has ended, as django-q shows it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from django.tasks import TaskResultStatus

from .options import warn_once

if TYPE_CHECKING:
    from django_tasks_local.result import LocalTaskResult


# In the metadata of a task, a dict: "func", the path of its function; where it has them, "name" and
# "hook"; and "calls", how many there are in its `async_iter`.
FACTS: Final = "_q"
_RUNNING: Final = "django_tasks_local.contrib.q.running"
# Methods of django-q's model that there are not here, each with what to do.
_NOT_HERE: Final = {
    "group_result": "Call result_group(task.group).",
    "group_count": "Call count_group(task.group).",
    "group_delete": "Give each run of a group a label of its own.",
}
_PATHS: Final = (f"{_RUNNING}.run_callable", f"{_RUNNING}.run_callable_with_hook")


def is_call(result: LocalTaskResult) -> bool:
    """Return whether this is a call of a function: its arguments are those of `run_callable`."""
    return result.task.module_path in _PATHS


def facts_of(result: LocalTaskResult) -> dict[str, Any]:
    """Return what is noted about a call; nothing for other tasks."""
    facts: dict[str, Any] = result.raw_metadata.get(FACTS, {})
    return facts


class Task:
    """A task that has ended, with the names of django-q's model.

    It is a view of a result: arguments and result are unpickled when they are first read, which
    raises what a result's own ``args`` and ``return_value`` raise.
    """

    def __init__(self, ended: LocalTaskResult) -> None:
        """Show a result, which may also be that of any other task of this package's backends."""
        self._ended = ended
        self._facts = facts_of(ended)

    @property
    def id(self) -> str:
        """The id of the result, a UUID with hyphens (36 characters)."""
        return self._ended.id

    @property
    def name(self) -> str:
        """The ``task_name``; without one, the function's name."""
        name: str = self._facts.get("name") or self.func.rpartition(".")[2]
        return name

    @property
    def func(self) -> str:
        """The import path of the function."""
        func: str = self._facts.get("func") or self._call[0]
        return func

    @property
    def hook(self) -> str | None:
        """The import path of the hook."""
        return self._facts.get("hook")

    @property
    def group(self) -> str | None:
        """The label of the task's group."""
        return self._ended.group or None

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments."""
        return self._call[1]

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments."""
        return self._call[2]

    @property
    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        ended = self._ended
        if is_call(ended):
            return ended.args[0], ended.args[1], ended.args[2]
        return ended.task.module_path, tuple(ended.args), ended.kwargs

    @property
    def result(self) -> Any:
        """What the function returned; of a failure, the traceback as text."""
        return self._ended.return_value if self.success else self._ended.errors[-1].traceback

    @property
    def started(self) -> datetime:
        """When a worker started the task; where it never ran, when it ended."""
        started: datetime = self._ended.started_at or self.stopped
        return started

    @property
    def stopped(self) -> datetime:
        """When its end was stored."""
        stopped: datetime = self._ended.finished_at
        return stopped

    @property
    def success(self) -> bool:
        """Whether it ended without an exception."""
        return bool(self._ended.status == TaskResultStatus.SUCCESSFUL)

    @property
    def attempt_count(self) -> int:
        """How often it was tried."""
        return self._ended.attempts

    def time_taken(self) -> float:
        """Return the seconds from `started` to `stopped`."""
        return (self.stopped - self.started).total_seconds()

    def save(self) -> None:
        """Warn, once, that there is nothing to save: a result is kept anyway."""
        warn_once(
            "task.save()", "Each result is kept until it is evicted or expires. Leave it out."
        )

    if not TYPE_CHECKING:  # a type checker is to know of attributes that there are not

        def __getattr__(self, name: str) -> Any:
            if name in _NOT_HERE:
                raise AttributeError(
                    f"task.{name}() of django-q is not in django_tasks_local. {_NOT_HERE[name]}"
                )
            return object.__getattribute__(self, name)  # says what is wrong, also in a property

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} id={self.id} func={self.func} success={self.success}>"


class Collated(Task):
    """All calls of one `async_iter` as one task."""

    def __init__(self, iter_id: str, parts: Sequence[LocalTaskResult]) -> None:
        """Show them, in the order of the iterable."""
        super().__init__(parts[0])
        self._id = iter_id
        self._parts = [Task(each) for each in parts]

    @property
    def id(self) -> str:
        """What `async_iter` returned."""
        return self._id

    @property
    def group(self) -> None:
        """None: the calls are a group of their own."""

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments of each call."""
        return tuple(each.args for each in self._parts)

    @property
    def result(self) -> list[Any]:
        """The result of each call, in the order of the iterable."""
        return [each.result for each in self._parts]

    @property
    def started(self) -> datetime:
        """When the first of them started."""
        return min(each.started for each in self._parts)

    @property
    def stopped(self) -> datetime:
        """When the last of them ended."""
        return max(each.stopped for each in self._parts)

    @property
    def success(self) -> bool:
        """Whether none of them failed."""
        return all(each.success for each in self._parts)

    @property
    def attempt_count(self) -> int:
        """How often the one was tried that took most."""
        return max(each.attempt_count for each in self._parts)
