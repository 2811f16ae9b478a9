"""``local_tasks retry``: enqueue tasks that have ended once more, by hand."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist

from django_tasks_local.again import enqueue_again
from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.exceptions import LocalTasksError, StoreUnavailable, counted
from django_tasks_local.inspection.text import harmless, write

from . import _show


def add_arguments(parser: CommandParser) -> None:
    """Add the arguments."""
    parser.add_argument("ids", nargs="+", metavar="ID", help="of a task that has ended")


def run(
    command: BaseCommand, backends: list[ProcessPoolBackend], *, ids: list[str], **_: Any
) -> None:
    """Enqueue each task once more, and print the new ids.

    With that this process becomes a site: it starts a pool if there is none, and waits for these
    tasks at its end if no other site is attached.

    Raises:
        CommandError: For some it was not possible. The others are enqueued all the same, unless
            the ring could not be used any more.
    """
    refused = 0
    for left, result_id in zip(reversed(range(len(ids))), ids, strict=True):
        result = None
        try:
            result = _show.find(backends, result_id).result
            again = enqueue_again(result)
        except (
            CommandError, ImproperlyConfigured, InvalidTask, LocalTasksError,
            TaskResultDoesNotExist, ValueError,
        ) as error:  # fmt: skip
            refused += 1
            text = harmless(str(error))
            start = "" if isinstance(error, CommandError) else f"{harmless(result_id)}: "
            write(command.stderr, f"{start}{text}")
            if left and result is not None and isinstance(error, StoreUnavailable):
                refused += left
                # A process is stopped with the lock, say: each would wait for it as long.
                write(command.stderr, f"{counted(left, 'other task')}: not looked at.")
                break
        else:
            write(command.stdout, f"{result_id}: enqueued again as {again.id}.")
    command.stdout.flush()  # before this process waits for them
    if refused:
        raise CommandError(f"{counted(refused, 'task')} of {len(ids):,} not enqueued again.")
