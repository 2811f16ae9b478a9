"""Progress of a running task: reported by the task, read with its result from anywhere.

The store hands each running task a way to report (``Claim.report``); ``execution`` puts it into
a context variable for as long as the task runs. Outside a task the variable is unset, and
everything here does nothing, so a function that reports can be called from a view or a shell too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.tasks import TaskResult

MESSAGE_BYTES = 64  # of UTF-8; what a record has room for

# Nobody polls faster than a screen refreshes. With a report every 20 ms, and 3 µs for one in shared
# memory, `track` spends its time on looking at the clock: 0.1 µs a row.
TRACK_INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task has come, as it said itself.

    Attributes:
        done: units finished so far, in whatever unit the task counts.
        total: units in all, ``None`` if the task does not know.
        message: what it is doing, at most 64 bytes of UTF-8.
    """

    done: float
    total: float | None = None
    message: str = ""

    @property
    def fraction(self) -> float | None:
        """``done / total`` between 0.0 and 1.0; ``None`` without a total, 1.0 of a total of 0."""
        if self.total is None:
            return None
        if self.total <= 0:
            return 1.0
        return min(1.0, max(0.0, self.done / self.total))


type Report = Callable[[float, float | None, str], None]
type Check = Callable[[], None]

_current: ContextVar[tuple[Report, Check]] = ContextVar("django_tasks_local_progress")


def report_to(report: Report, check: Check = lambda: None) -> None:
    """Send what this context reports from here on to ``report``, and what its threads report.

    Args:
        report: does nothing once its task has ended; threads and generators may outlive it.
        check: called after a report; raises what is to stop the task, and nothing once it has
            ended.
    """
    _current.set((report, check))


def report_progress(done: float, total: float | None = None, message: str = "") -> None:
    """Say how far the running task has come; ``result.progress`` shows it in any process.

    Takes no lock and may be called in a tight loop. Does nothing outside a task. A report
    replaces the one before it. A task that is to stop may be stopped here, see `check_cancelled`.

    Args:
        done: units finished so far, a finite number.
        total: units in all, a finite number; ``None`` if unknown.
        message: what is going on; cut to 64 bytes of UTF-8, never in the middle of a character.

    Raises:
        TypeError: ``done`` or ``total`` is no int or float.
        ValueError: ``done`` or ``total`` is infinite, not a number, or beyond a float's range.
    """
    # Checked outside a task too: a mistake should show in the shell, not only in a worker.
    _check_number("done", done)
    if total is not None:
        _check_number("total", total)
    current = _current.get(None)
    if current is not None:
        report, check = current
        report(done, total, _cut(message))
        check()


def track[T](rows: Iterable[T], total: float | None = None, message: str = "") -> Iterator[T]:
    """Yield ``rows`` one by one and report how many are done.

    The start and the end are always reported, what lies between at most every 20 ms. When the
    loop is left early the last report is the number of rows that were finished.

    Args:
        rows: anything iterable.
        total: how many rows there are; taken from ``len(rows)`` where that exists.
        message: as for `report_progress`.

    Yields:
        Each row, unchanged.
    """
    # Looked up once: a loop left early is closed whenever the interpreter gets to it,
    # which may be in the middle of the next task.
    current = _current.get(None)
    if total is None and isinstance(rows, Sized):
        total = len(rows)
    elif total is not None:
        _check_number("total", total)
    if current is None:
        yield from rows
        return
    report, check = current
    text = _cut(message)
    done = 0
    next_report = 0.0
    try:
        for row in rows:
            if (now := time.monotonic()) >= next_report:
                report(done, total, text)
                check()
                next_report = now + TRACK_INTERVAL_S
            yield row
            done += 1
    finally:
        report(done, total, text)


def progress_of(result: TaskResult[..., Any]) -> Progress | None:
    """Return ``result.progress``; ``None`` for the result of a backend that has no progress.

    Args:
        result: of any backend, such as Django's ``ImmediateBackend`` in tests.
    """
    progress = getattr(result, "progress", None)
    return progress if isinstance(progress, Progress) else None


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, int | float):
        raise TypeError(f"{name} must be an int or a float, not {type(value).__name__}.")
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError(f"{name} must be a finite number that fits a float.")


def _cut(message: str) -> str:
    # str() first: translated texts are lazy objects. "replace" keeps lone surrogates from raising.
    text = str(message)
    if text.isascii():
        return text[:MESSAGE_BYTES]
    return text.encode("utf-8", "replace")[:MESSAGE_BYTES].decode("utf-8", "ignore")
