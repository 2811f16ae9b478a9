"""``local_tasks cancel``: take tasks out, or ask them to stop."""

from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.exceptions import counted, listed
from django_tasks_local.inspection.text import harmless

from ._aliases import refuse, rings_of


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments."""
    parser.add_argument("ids", nargs="+", metavar="ID", help="of the task's result")
    parser.add_argument("--waiting", action="store_true", help="leave alone what runs")


def run(
    command: BaseCommand, backends: list[ProcessPoolBackend], *, ids: list[str], waiting: bool,
    **_: Any,
) -> None:  # fmt: skip
    """Cancel each task, and print what that has done.

    Raises:
        CommandError: Some ids are unknown, or some rings cannot be used; the other tasks are
            cancelled all the same.
        StoreUnavailable: A ring could not be used any more.
    """
    rings, unusable = rings_of(backends)
    unknown = 0
    for result_id in ids:
        for backend in backends:
            if backend.alias not in rings:
                continue
            with suppress(TaskResultDoesNotExist):
                done = cancelled(backend, result_id, not waiting)
                command.stdout.write(f"{result_id}: {done}")
                break
        else:
            unknown += 1
            command.stderr.write(f"{harmless(result_id)}: there is no such task, or no longer.")
    if unknown:
        refuse(unusable)
        raise CommandError(
            f"{counted(unknown, 'id')} unknown to {listed([each.alias for each in backends])}."
        )


def cancelled(backend: ProcessPoolBackend, result_id: str, running: bool) -> str:
    """Cancel a task, and say what that has done.

    Raises:
        TaskResultDoesNotExist: The id is not that of a result in this backend.
    """
    done = backend.cancel(result_id, running=running)
    try:
        finished = bool(backend.site().get(result_id).finished_at_ns)
    except TaskResultDoesNotExist:  # it has ended, and was evicted since
        finished = True
    if not done:
        return "had ended." if finished else "runs, and was left alone."
    return "cancelled." if finished else "runs, and was asked to stop."
