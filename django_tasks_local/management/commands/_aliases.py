"""Which aliases a command handles."""

from django.core.management.base import CommandError, CommandParser
from django.tasks import task_backends

from django_tasks_local.backends.process import ProcessPoolBackend


def add_alias_argument(parser: CommandParser) -> None:
    """Add ``--alias``."""
    parser.add_argument("--alias", help="Key in TASKS. Default: the ProcessPoolBackend there.")


def process_backends(alias: str | None) -> list[ProcessPoolBackend]:
    """Return the process backends in ``TASKS``, or the one that ``alias`` names.

    Raises:
        CommandError: There is none, or the named one is of another kind.
    """
    if alias is not None and alias not in task_backends.settings:
        raise CommandError(f"TASKS has no alias {alias!r}; it has {', '.join(task_backends)}.")
    names = [alias] if alias is not None else list(task_backends)
    found = [b for b in map(task_backends.__getitem__, names) if isinstance(b, ProcessPoolBackend)]
    if not found:
        backend = "django_tasks_local.ProcessPoolBackend"
        if alias is None:
            raise CommandError(f"There is no {backend} in TASKS.")
        raise CommandError(f"TASKS[{alias!r}] is not a {backend}.")
    return found


def process_backend(alias: str | None) -> ProcessPoolBackend:
    """Return the process backend that ``alias`` names, or the only one.

    Raises:
        CommandError: There is none, or more than one and no ``--alias``.
    """
    found = process_backends(alias)
    if len(found) > 1:
        names = ", ".join(backend.alias for backend in found)
        raise CommandError(f"TASKS has several process backends ({names}): choose with --alias.")
    return found[0]
