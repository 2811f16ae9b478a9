"""``local_tasks check``: every broken invariant of the rings, and their repair."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_tasks_local.backends.process import ProcessPoolBackend

from ._aliases import refuse, rings_of
from ._no_ring import no_ring


def add_arguments(parser: CommandParser) -> None:
    """Add the options."""
    parser.add_argument("--fix", action="store_true", help="keep what is whole, drop the rest")


def run(command: BaseCommand, backends: list[ProcessPoolBackend], *, fix: bool, **_: Any) -> None:
    """Print what is broken, repaired first if ``fix`` says so.

    Raises:
        CommandError: Something is broken, or some rings cannot be used; the others are checked
            all the same.
        StoreUnavailable: A ring could not be used any more.
    """
    broken = 0
    rings, unusable = rings_of(backends)
    for backend in backends:
        if backend.alias in unusable:
            continue
        ring = rings.get(backend.alias)
        if ring is None:
            command.stdout.write(f"{backend.alias}: {no_ring(backend)}")
            continue
        problems = ring.upkeep.repair() if fix else ring.upkeep.check()
        for problem in problems:
            command.stdout.write(f"{backend.alias}: {problem}")
        left = ring.upkeep.check() if fix else problems
        broken += len(left)
        if not left:
            holds = f"{backend.alias}: every invariant holds."
            command.stdout.write(command.style.SUCCESS(holds))
    refuse(unusable)
    if broken:
        raise CommandError("The ring is damaged. `local_tasks check --fix` repairs it.")
