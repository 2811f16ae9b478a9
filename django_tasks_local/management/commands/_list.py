"""``local_tasks list``: the tasks and results of this host, newest first."""

from argparse import ArgumentTypeError
from collections.abc import Iterator
from datetime import datetime
from json import dumps
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandParser
from django.tasks import TaskResultStatus
from django.utils import timezone

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.inspection.aliases import foreign_aliases
from django_tasks_local.inspection.newest import newest
from django_tasks_local.inspection.records import Row, duration_s, error_line, latest_ns, summary
from django_tasks_local.inspection.text import COLUMNS, clock, cut, cut_left, harmless, span, write
from django_tasks_local.moments import unix_ns

from ._aliases import looks_into, refuse
from ._no_ring import no_ring

_LIMIT: Final = 20
# How much of a line a path leaves to an error.
_PATH_COLUMNS: Final = 34


def add_arguments(parser: CommandParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--status", action="append", type=str.upper, choices=TaskResultStatus.values,
        help="only tasks of this status, in small or capital letters; more than one may be given",
    )  # fmt: skip
    parser.add_argument("--queue", metavar="NAME", help="only tasks of this queue")
    parser.add_argument("--task", metavar="PATH", help="only the task with this import path")
    parser.add_argument("--group", type=_name, metavar="NAME", help="only tasks of this group")
    parser.add_argument(
        "--limit",
        type=_number,
        default=_LIMIT,
        metavar="N",
        help="how many, default %(default)s; 0: all",
    )
    parser.add_argument("--json", action="store_true", help="for programs: an object in each line")


def run(
    command: BaseCommand, backends: list[ProcessPoolBackend], *, status: list[str] | None,
    queue: str | None, task: str | None, group: str | None, limit: int, json: bool, **_: Any,
) -> None:  # fmt: skip
    """Print the tasks that are asked for; which aliases cannot be shown goes to standard error.

    Raises:
        CommandError: Some rings cannot be used; what is in the others is printed all the same.
    """
    looks, problems = looks_into(backends)
    found, more = newest(looks, status=status, queue=queue, task=task, group=group, limit=limit)
    for line in objects(found) if json else lines(found, more=more, several=len(backends) > 1):
        write(command.stdout, line)
    for backend in backends:
        if backend.alias not in looks | problems:
            write(command.stderr, f"{harmless(backend.alias)}: {no_ring(backend)}")
    for alias, kind in foreign_aliases().items():
        write(command.stderr, f"Not shown: {harmless(alias)}, {harmless(kind)}.")
    refuse(problems)


def lines(rows: list[Row], *, more: bool, several: bool) -> Iterator[str]:
    """Yield the lines of a list for people: two for each task, of at most 80 columns.

    Args:
        rows: What to list.
        more: Whether there are more.
        several: Whether there are several aliases, so that each task's must be told.
    """
    if not rows:
        yield "No such tasks."
        return
    zone = datetime.now(timezone.get_default_timezone()).tzname()
    yield f"{'STATUS':10}  {f'WHEN ({zone})':20}  {'TOOK':>7}  ID"
    for row in rows:
        seconds = duration_s(row.result)
        took = "" if seconds is None else span(seconds)
        yield f"{row.result.status:10}  {clock(latest_ns(row)):20} {took:>8}  {row.result.id}"
        yield cut(f"  {_what(row, several)}", COLUMNS)
    if more:
        shown = (
            "This is the newest" if len(rows) == 1 else f"These are the newest {len(rows)} tasks"
        )
        yield f"{shown}; --limit shows more, --limit 0 all."


def objects(rows: list[Row]) -> Iterator[str]:
    """Yield the same for programs: a JSON object for each task, each in a line."""
    for row in rows:
        yield dumps(summary(row))


def _what(row: Row, several: bool) -> str:
    result = row.result
    path = harmless(result.task.module_path)
    alias = f"{harmless(result.backend)}: " if several else ""
    error = "its worker has died" if row.is_orphan else error_line(result)
    if error is not None:
        return f"{alias}{cut_left(path, _PATH_COLUMNS)}  {error}"
    run_after = getattr(result.task, "run_after", None)
    if result.status == TaskResultStatus.READY and run_after is not None:
        return f"{alias}{cut_left(path, _PATH_COLUMNS)}  not before {clock(unix_ns(run_after))}"
    return f"{alias}{path}"


def _name(text: str) -> str:
    if not text:
        raise ArgumentTypeError("a group has a name that is not empty")
    return text


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text} must be 0 or more")
    return int(text)
