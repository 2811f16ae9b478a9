"""The tasks of a SCHEDULE: found and checked, and what a run knows of the time that it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.tasks import Task, task_backends
from django.tasks.exceptions import InvalidTask
from django.utils.module_loading import import_string

from .exceptions import describe
from .following import Plan
from .metadata import encode
from .naming import encode_task
from .policies import policy_of
from .schedules import Problem, Schedule, ScheduleEntry
from .ties import Ties
from .unique import key_of

if TYPE_CHECKING:
    from .naming import AnyTask

SCHEDULED_FOR: Final = "_scheduled_for"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Periodic:
    """An entry of a SCHEDULE with its task.

    Attributes:
        entry: The entry.
        task: Its task.
        meta: What names the task in a record.
        key: The digest of its key where its policy says that it is unique, else ``b""``.
    """

    entry: ScheduleEntry
    task: AnyTask
    meta: bytes
    key: bytes

    def ties(self, time_limit: Callable[[object], int]) -> Ties | None:
        """Return its ties to other tasks; ``None`` where it has none.

        Args:
            time_limit: Returns the `time_limit_word` of a task with a function.
        """
        own = policy_of(self.task.func)
        if not (own.group or own.then or own.on_failure):
            return None
        plan = Plan(self.task, self.task.backend, lambda task: time_limit(task.func))
        return plan.ties(own, own.group or "")

    def metadata(self, time_ns: int) -> bytes:
        """Return the metadata of the run for a time, as JSON."""
        own = getattr(self.task, "metadata", None) or {}
        return encode({**own, SCHEDULED_FOR: moment_text(time_ns)})


def moment_text(time_ns: int) -> str:
    """Return a moment in Unix ns as ISO 8601, in UTC."""
    return (_EPOCH + timedelta(microseconds=time_ns // 1000)).isoformat()


def find(entry: ScheduleEntry, alias: str) -> Periodic:
    """Return an entry with its task, which is imported.

    Raises:
        ImproperlyConfigured: The path leads to no task of this alias, or to one that its backend
            refuses.
    """
    try:
        task: Any = import_string(entry.task)
    except Exception as error:
        raise ImproperlyConfigured(f"{entry.task} cannot be imported: {describe(error)}") from error
    if not isinstance(task, Task):
        raise ImproperlyConfigured(f"{entry.task} is not a task but of type {type(task).__name__}")
    if task.backend != alias:
        kind = type(task_backends[task.backend]).__name__
        raise ImproperlyConfigured(f"{entry.task} belongs to alias {task.backend!r}, a {kind}")
    if task.run_after is not None:
        raise ImproperlyConfigured(f"{entry.task} has run_after, which its entry decides")
    try:
        task_backends[alias].validate_task(task)
        found = Periodic(entry, task, encode_task(task), _key(entry, task))
        found.ties(lambda function: 0)  # raises where nothing can follow
        return found
    except (InvalidTask, ValueError) as error:
        raise ImproperlyConfigured(str(error)) from error


def _key(entry: ScheduleEntry, task: AnyTask) -> bytes:
    unique = policy_of(task.func).unique
    key = None if unique is None else key_of(task, unique, entry.args, entry.kwargs)
    return key.digest if key else b""


def problems(schedule: Schedule, alias: str) -> Iterator[Problem]:
    """Yield what is wrong with the tasks of a SCHEDULE. They are imported."""
    for entry in schedule.entries:
        try:
            find(entry, alias)
        except ImproperlyConfigured as error:
            yield Problem(
                16,
                f"TASKS[{alias!r}]['OPTIONS']['SCHEDULE'][{entry.name!r}]['task']: "
                f"{str(error).rstrip('.')}.",
                f"Name a task with @task(backend={alias!r}), as in 'reports.tasks.nightly'.",
            )


def scheduled_for(thing: object) -> datetime | None:
    """Return the time for which a periodic task runs: that of its SCHEDULE, in UTC.

    It may be some moments ago, or after a downtime as long as the entry's ``grace``.

    Args:
        thing: The task's context or result, of any backend.

    Returns:
        ``None`` where no SCHEDULE has enqueued the task.
    """
    result = getattr(thing, "task_result", thing)
    raw_metadata: dict[str, Any] = getattr(result, "raw_metadata", None) or {}
    text = raw_metadata.get(SCHEDULED_FOR)
    return datetime.fromisoformat(text) if isinstance(text, str) else None
