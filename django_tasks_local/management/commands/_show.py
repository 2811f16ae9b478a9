"""``local_tasks show``: all that is known of one task."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from json import dumps
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.attempts import cut
from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.exceptions import StoreUnavailable, listed
from django_tasks_local.inspection.looks import look_into, row_of
from django_tasks_local.inspection.records import (
    Row,
    details,
    duration_s,
    errors,
    first_ns,
    last_ns,
    values,
)
from django_tasks_local.inspection.text import clock, harmless, harmless_lines, shown, span, write
from django_tasks_local.moments import unix_ns
from django_tasks_local.naming import MissingTask
from django_tasks_local.result import LocalTaskResult


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments."""
    parser.add_argument("id", metavar="ID", help="of the task's result")
    parser.add_argument(
        "--arguments", action="store_true", help="its arguments and its return value, too"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(
    command: BaseCommand, backends: list[ProcessPoolBackend], *, id: str, arguments: bool,
    json: bool, **_: Any,
) -> None:  # fmt: skip
    """Print all of one task.

    Raises:
        CommandError: No backend has it.
        StoreUnavailable: A ring cannot be used, or the record is damaged.
        ImproperlyConfigured: The options of an alias are wrong.
    """
    row = find(backends, id)
    if json:
        command.stdout.write(dumps(details(row, arguments=arguments), indent=2))
        return
    for line in lines(row, arguments=arguments):
        write(command.stdout, line)


def find(backends: Iterable[ProcessPoolBackend], result_id: str) -> Row:
    """Return the task whose result has this id, without a trace.

    Raises:
        CommandError: No backend has it.
        StoreUnavailable: No other has it, and a ring cannot be used; or the record is damaged.
        ImproperlyConfigured: No other has it, and the options of an alias are wrong.
    """
    looked: list[str] = []
    problem: Exception | None = None
    for backend in backends:
        looked.append(backend.alias)
        try:
            look = look_into(backend)
        except (StoreUnavailable, ImproperlyConfigured) as error:
            problem = error
            continue
        if look is not None:
            with suppress(TaskResultDoesNotExist):
                return row_of(look, backend.alias, result_id)
    if problem is not None:
        raise problem
    raise CommandError(
        f"{harmless(result_id)}: {listed(looked)} has no such task, or no longer: finished results "
        "are evicted beyond MAX_RESULTS, and expire (RESULT_TTL, FAILURE_TTL)."
    )


def lines(
    row: Row,
    *,
    arguments: bool,
    how: str = "--arguments shows them, and the return value",
    longest: int = 0,
) -> Iterator[str]:
    """Yield the lines for people.

    Args:
        row: The task.
        arguments: Whether to show its arguments and its return value.
        how: What shows them, if not.
        longest: How many characters of a traceback are shown; 0: all.
    """
    result = row.result
    yield result.id
    for name, text in _fields(row):
        yield f"  {name:12}{text}"
    if arguments:
        yield from _values(result)
    else:
        yield f"  {'arguments':12}not shown; {how}"
    for number, error in enumerate(errors(result), 1):
        yield f"  error {number}: {harmless(error.exception_class_path)}"
        for line in harmless_lines(cut(error.traceback, longest or len(error.traceback))):
            yield f"    {line}"


def _fields(row: Row) -> Iterator[tuple[str, str]]:
    result = row.result
    snapshot, task, progress = result.snapshot, result.task, result.progress
    missing = "  (no such task here any more)" if isinstance(task, MissingTask) else ""
    yield "task", harmless(task.module_path) + missing
    yield "backend", harmless(result.backend)
    yield "status", f"{result.status}{_how(row)}"
    yield "queue", harmless(task.queue_name) or "unknown"
    yield "priority", str(task.priority)
    yield from _ties(result)
    if task.run_after:
        yield "not before", clock(unix_ns(task.run_after))
    yield "enqueued", clock(snapshot.enqueued_at_ns)
    if first_ns(result):
        yield "started", clock(first_ns(result))
    if result.attempts > 1 or (snapshot.past and not snapshot.finished_at_ns):
        yield "last start", clock(last_ns(result))
    seconds = duration_s(result)
    ran = None if seconds is None else span(seconds)
    if snapshot.finished_at_ns:
        how = f"after {ran}" if ran else "before it started"
        yield "ended", f"{clock(snapshot.finished_at_ns)}, {how}"
    elif ran:
        yield "running", f"for {ran}"
    yield "attempts", str(result.attempts)
    for worker in result.worker_ids:
        yield "worker", harmless(worker)
    if progress is not None:
        total = "" if progress.total is None else f" of {progress.total:,}"
        yield "progress", f"{progress.done:,}{total}  {harmless(progress.message)}".rstrip()
    for key, value in result.raw_metadata.items():
        yield "metadata", f"{harmless(key)} = {shown(value)}"


def _ties(result: LocalTaskResult) -> Iterator[tuple[str, str]]:
    if result.group:
        yield "group", harmless(result.group)
    if result.after:
        yield "follows", harmless(result.after)


def _how(row: Row) -> str:
    if row.is_orphan:
        return "  (its worker has died, and it will be FAILED as soon as a process notes that)"
    if row.result.is_cancelled:
        return "  (cancelled)"
    return "  (lost with its worker)" if row.result.loss else ""


def _values(result: LocalTaskResult) -> Iterator[str]:
    args, kwargs, value = values(result)
    if isinstance(args, str) or isinstance(kwargs, str):
        yield f"  {'arguments':12}{harmless(str(args))}"
    else:
        for each in args:
            yield f"  {'argument':12}{each}"
        for name, each in kwargs.items():
            yield f"  {'argument':12}{harmless(name)} = {each}"
        if not (args or kwargs):
            yield f"  {'arguments':12}none"
    if value is not None:
        yield f"  {'returned':12}{harmless(value)}"
