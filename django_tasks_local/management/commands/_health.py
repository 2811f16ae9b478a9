"""``local_tasks health``: whether the rings of a site can be used and their tasks run."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.inspection.aliases import foreign_aliases
from django_tasks_local.inspection.health import FINE, MAX_WAIT_S, examine, report, worst
from django_tasks_local.inspection.rings import stranded
from django_tasks_local.inspection.text import write


def add_arguments(parser: CommandParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--max-wait", type=float, default=MAX_WAIT_S, metavar="SECONDS",
        help="how long a task that is due may wait for a worker; default %(default)g",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for programs")


def run(
    command: BaseCommand, backends: list[ProcessPoolBackend], *, max_wait: float, json: bool,
    **_: Any,
) -> None:  # fmt: skip
    """Print how the aliases are, and end with the worst status if that is not `FINE`.

    Raises:
        CommandError: ``max_wait`` is not a number of seconds.
        SystemExit: See `worst`.
    """
    try:
        found = [examine(backend, max_wait) for backend in backends]
    except ValueError as error:
        raise CommandError(f"--max-wait {error}") from None
    left = stranded()
    for line in report(found, left, foreign_aliases(), as_json=json):
        write(command.stdout, line)
    status = worst(found, left)
    if status != FINE:
        raise SystemExit(status)
