"""One task, as the admin's templates show it: each text is harmless, and times are moments."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Final, NamedTuple

from django.tasks import TaskResultStatus
from django.tasks.base import TaskError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_tasks_local.attempts import cut
from django_tasks_local.inspection.records import (
    Row,
    duration_s,
    error_line,
    errors,
    first_ns,
    last_ns,
    latest_ns,
    values,
)
from django_tasks_local.inspection.text import harmless, harmless_lines, line_of, shown, span
from django_tasks_local.moments import moment_of, unix_ns
from django_tasks_local.naming import MissingTask

# By the names that the style sheet knows.
LABELS: Final = {
    "waiting": gettext_lazy("Waiting"),
    "deferred": gettext_lazy("Deferred"),
    "running": gettext_lazy("Running"),
    "successful": gettext_lazy("Successful"),
    "failed": gettext_lazy("Failed"),
    "cancelled": gettext_lazy("Cancelled"),
    "lost": gettext_lazy("Worker lost"),
}

# How many arguments of a task are shown, and how much of a traceback: a page is renewed often.
_MOST_ARGUMENTS: Final = 100
_MOST_CHARACTERS: Final = 50_000


class ShownError(NamedTuple):
    """How one attempt failed.

    Attributes:
        line: The exception and its message.
        path: The exception's import path.
        traceback: ``""`` where there is no more to it than the line; without its middle where it is
            very long.
    """

    line: str
    path: str
    traceback: str

    @classmethod
    def of(cls, error: TaskError) -> ShownError:
        """Return what is shown of an error."""
        lines = harmless_lines(cut(error.traceback, _MOST_CHARACTERS))
        text = "\n".join(lines) if len(lines) > 1 else ""
        return cls(line_of(error), harmless(error.exception_class_path), text)


class ShownTask:
    """A task for a template.

    Args:
        row: The task.
    """

    def __init__(self, row: Row) -> None:
        self._row, self._result = row, row.result
        self.id = row.result.id
        self.path = harmless(row.result.task.module_path)
        self.alias = harmless(row.result.backend)

    @property
    def state(self) -> str:
        """A key of `LABELS`."""
        result = self._result
        if self._row.is_orphan:
            return "lost"
        if result.status == TaskResultStatus.READY:
            run_after = result.task.run_after
            is_deferred = run_after is not None and unix_ns(run_after) > time.time_ns()
            return "deferred" if is_deferred else "waiting"
        if result.status == TaskResultStatus.FAILED:
            if result.is_cancelled:
                return "cancelled"
            return "lost" if result.loss else "failed"
        return "running" if result.status == TaskResultStatus.RUNNING else "successful"

    @property
    def label(self) -> str:
        """Its state in a word."""
        return str(LABELS[self.state])

    @property
    def is_orphan(self) -> bool:
        """Whether its worker has died, and nobody has noted that yet."""
        return self._row.is_orphan

    @property
    def is_missing(self) -> bool:
        """Whether its import path leads to no task here any more."""
        return isinstance(self._result.task, MissingTask)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return bool(self._result.is_finished)

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return harmless(self._result.task.queue_name)

    @property
    def priority(self) -> int:
        """Its priority."""
        return self._result.task.priority

    @property
    def when(self) -> datetime | None:
        """When it ended, or else started last, or else was enqueued."""
        return moment_of(latest_ns(self._row))

    @property
    def not_before(self) -> datetime | None:
        """When it may start."""
        return self._result.task.run_after

    @property
    def enqueued(self) -> datetime | None:
        """When it was enqueued."""
        return moment_of(self._result.snapshot.enqueued_at_ns)

    @property
    def started(self) -> datetime | None:
        """When its first attempt began."""
        return moment_of(first_ns(self._result))

    @property
    def last_started(self) -> datetime | None:
        """When its latest attempt began, where there was more than one."""
        return moment_of(last_ns(self._result)) if self._result.attempts > 1 else None

    @property
    def ended(self) -> datetime | None:
        """When it ended."""
        return moment_of(self._result.snapshot.finished_at_ns)

    @property
    def took(self) -> str:
        """How long its latest attempt took, or has been running."""
        seconds = duration_s(self._result)
        return "" if seconds is None else span(seconds)

    @property
    def attempts(self) -> int:
        """How many attempts have begun."""
        return self._result.attempts

    @property
    def workers(self) -> list[str]:
        """The worker of each attempt."""
        return [harmless(each) for each in self._result.worker_ids]

    @property
    def error(self) -> str:
        """Its last error in a line."""
        if self._row.is_orphan:
            return _("Its worker has died; it will be failed as soon as a process notes that.")
        return error_line(self._result) or ""

    @property
    def progress(self) -> str:
        """What it has reported of its progress, in words."""
        progress = self._result.progress
        if progress is None:
            return ""
        if progress.total is None:
            text = f"{progress.done:,}"
        else:
            numbers = {"done": f"{progress.done:,}", "total": f"{progress.total:,}"}
            text = _("%(done)s of %(total)s") % numbers
        return f"{text} · {harmless(progress.message)}" if progress.message else text

    @property
    def percent(self) -> int | None:
        """How far it is; ``None`` where it has not told, or has ended."""
        progress = None if self.has_ended else self._result.progress
        fraction = None if progress is None else progress.fraction
        return None if fraction is None else int(fraction * 100)

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """Names and values of its metadata."""
        return [(harmless(key), shown(each)) for key, each in self._result.raw_metadata.items()]

    @property
    def errors(self) -> list[ShownError]:
        """How its attempts failed."""
        return [ShownError.of(each) for each in errors(self._result)]


class Values(NamedTuple):
    """Arguments and return value of a task, as text.

    Attributes:
        arguments: Names (``""`` for positional ones) and values.
        left_out: How many more there are.
        problem: What stands in their place where they cannot be had.
        returned: What it returned; ``None`` where it has not succeeded.
    """

    arguments: list[tuple[str, str]]
    left_out: int
    problem: str
    returned: str | None

    @classmethod
    def of(cls, row: Row) -> Values:
        """Return those of a task: this unpickles them."""
        args, kwargs, returned = values(row.result)
        returned = None if returned is None else harmless(returned)
        if isinstance(args, str) or isinstance(kwargs, str):
            return cls([], 0, harmless(str(args)), returned)
        named = [*(("", each) for each in args), *kwargs.items()]
        first = [(harmless(name), each) for name, each in named[:_MOST_ARGUMENTS]]
        return cls(first, len(named) - len(first), "", returned)
