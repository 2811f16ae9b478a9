"""A task that has ended, as django-q shows it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.tasks import TaskResultStatus

from .running import FACTS

if TYPE_CHECKING:
    from django_tasks_local.result import LocalTaskResult


class Task:
    """A task that has ended, with the names of django-q's model.

    It is a view of a result: arguments and result are unpickled when they are first read, which
    raises what a result's own ``args`` and ``return_value`` raise.
    """

    def __init__(self, ended: LocalTaskResult) -> None:
        """Show a result, which may also be that of any other task of this package's backends."""
        self._ended = ended
        self._facts: dict[str, Any] = ended.raw_metadata.get(FACTS, {})

    @property
    def id(self) -> str:
        """The id of the result: a UUID with hyphens, 36 characters."""
        return self._ended.id

    @property
    def name(self) -> str:
        """The ``task_name``; without one, the function's name."""
        name: str = self._facts.get("name") or self.func.rpartition(".")[2]
        return name

    @property
    def func(self) -> str:
        """The import path of the function."""
        func: str = self._facts.get("func") or self._ended.task.module_path
        return func

    @property
    def hook(self) -> str | None:
        """The import path of the hook."""
        return self._facts.get("hook")

    @property
    def group(self) -> str | None:
        """The label of the task's group."""
        return self._facts.get("group")

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments."""
        args = self._ended.args
        return tuple(args[1] if self._facts else args)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments."""
        kwargs: dict[str, Any] = self._ended.args[2] if self._facts else self._ended.kwargs
        return kwargs

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
