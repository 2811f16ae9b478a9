"""``local_tasks destroy``: remove the rings of a site, with all tasks and results."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.ring import (
    Look,
    ring_exists,
    ring_is_attached,
    unlink_objects,
    unlink_unattached,
)

from ._no_ring import no_ring
from ._questions import confirmed


def add_arguments(parser: CommandParser) -> None:
    """Add the options."""
    parser.add_argument("--no-input", action="store_true", help="do not ask")
    parser.add_argument("--force", action="store_true", help="even if processes are attached")


def run(
    command: BaseCommand, backends: list[ProcessPoolBackend], *, no_input: bool, force: bool,
    **_: Any,
) -> None:  # fmt: skip
    """Remove the rings, and print what became of each.

    Raises:
        CommandError: Processes are attached, or nobody can be asked.
        StoreUnavailable: A ring is another user's.
    """
    for backend in backends:
        said = _destroy(backend, ask=not no_input, force=force)
        command.stdout.write(said)


def _destroy(backend: ProcessPoolBackend, *, ask: bool, force: bool) -> str:
    name = backend.spec().name
    if not ring_exists(name):
        Look.into(name, backend.alias)  # raises where there can be none
        return f"{backend.alias}: {no_ring(backend)}"
    if ring_is_attached(name) and not force:
        raise _attached(backend.alias)
    if ask and not confirmed(f"Remove the ring of {backend.alias!r}"):
        return "Left as it is."
    if force:
        unlink_objects(name)
    elif not unlink_unattached(name):  # while the question was being answered
        raise _attached(backend.alias)
    return f"{backend.alias}: removed."


def _attached(alias: str) -> CommandError:
    return CommandError(
        f"{alias}: processes are attached (`local_tasks status` lists them). Stop the site, and "
        "wait until its pool has ended too, about two seconds later if it is idle; or use --force: "
        "they go on with a new ring, and what is in this one is out of reach."
    )
