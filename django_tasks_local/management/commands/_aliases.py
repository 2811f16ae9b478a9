"""Which aliases a command is about."""

from django.core.management.base import CommandError, CommandParser
from django.tasks import task_backends

from django_tasks_local.backends.process import ProcessPoolBackend


def add_alias_argument(parser: CommandParser) -> None:
    """Adds ``--alias``."""
    parser.add_argument("--alias", help="Key in TASKS. Default: the ProcessPoolBackend there.")


def process_backends(alias: str | None) -> list[ProcessPoolBackend]:
    """The process backends in TASKS, or the one that is named.

    Raises:
        CommandError: There is none, or the named one is of another kind.
    """
    if alias is not None and alias not in task_backends.settings:
        raise CommandError(f"TASKS has no alias {alias!r}; it has {', '.join(task_backends)}.")
    names = [alias] if alias is not None else list(task_backends)
    found = [b for b in map(task_backends.__getitem__, names) if isinstance(b, ProcessPoolBackend)]
    if not found:
        what = f"TASKS[{alias!r}] is no" if alias is not None else "There is no"
        raise CommandError(f"{what} django_tasks_local.ProcessPoolBackend in TASKS.")
    return found


def process_backend(alias: str | None) -> ProcessPoolBackend:
    """The one process backend that is meant.

    Raises:
        CommandError: There is none, or more than one and no ``--alias``.
    """
    found = process_backends(alias)
    if len(found) > 1:
        names = ", ".join(backend.alias for backend in found)
        raise CommandError(f"TASKS has several process backends ({names}): choose with --alias.")
    return found[0]
