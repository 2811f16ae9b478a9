"""Progress of a running task: reported by the task, read with its result from anywhere.

The store hands each running task a way to report (``Claim.report``); ``execution`` puts it into
a context variable for as long as the task runs. Outside a task the variable is unset, and the
functions here do nothing, so a view or a shell can call a function that reports too.
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

# Nobody polls faster than a screen refreshes. With a report every 20 ms, which costs 3 µs in shared
# memory, `track` spends its time on reading the clock: 0.1 µs a row.
TRACK_INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task has come, as the task itself reported.

    Attributes:
        done: Units finished so far, in whatever unit the task counts.
        total: Units in all, ``None`` if the task does not know.
        message: What it is doing, at most 64 bytes of UTF-8.
    """

    done: float
    total: float | None = None
    message: str = ""

    @property
    def fraction(self) -> float | None:
        """``done / total`` between 0.0 and 1.0; ``None`` without a total, 1.0 for a total of 0."""
        if self.total is None:
            return None
        if self.total <= 0:
            return 1.0
        return min(1.0, max(0.0, self.done / self.total))


type Report = Callable[[float, float | None, str], None]
type Check = Callable[[], None]

_current: ContextVar[tuple[Report, Check]] = ContextVar("django_tasks_local_progress")


def report_to(report: Report, check: Check = lambda: None) -> None:
    """Send later reports of this context, and of its threads, to ``report``.

    Args:
        report: Does nothing once its task has ended; threads and generators may outlive it.
        check: Called after a report; raises what is to stop the task, and nothing once it has
            ended.
    """
    _current.set((report, check))


def report_progress(done: float, total: float | None = None, message: str = "") -> None:
    """Report how far the running task has come; ``result.progress`` shows it in any process.

    Takes no lock and may be called in a tight loop. Does nothing outside a task. A report
    replaces the one before it. A task that is to stop may be stopped here, see `check_cancelled`.

    Args:
        done: Units finished so far, a finite number.
        total: Units in all, a finite number; ``None`` if unknown.
        message: What is going on; cut to 64 bytes of UTF-8, never in the middle of a character.

    Raises:
        TypeError: ``done`` or ``total`` is neither an int nor a float.
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

    It always reports the start and the end, and in between at most every 20 ms. If the loop is
    left early, the last report is the number of rows that were finished.

    Args:
        rows: Anything iterable.
        total: How many rows there are; taken from ``len(rows)`` where that exists.
        message: As for `report_progress`.

    Yields:
        Each row, unchanged.
    """
    # Looked up once: the interpreter closes a loop that was left early whenever it gets to it,
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
    """Return ``result.progress``, or ``None`` for the result of a backend that has no progress.

    Args:
        result: Of any backend, such as Django's ``ImmediateBackend`` in tests.
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
    # str() first: translated texts are lazy objects. With "replace", lone surrogates do not raise.
    text = str(message)
    if text.isascii():
        return text[:MESSAGE_BYTES]
    return text.encode("utf-8", "replace")[:MESSAGE_BYTES].decode("utf-8", "ignore")
