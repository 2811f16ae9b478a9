"""Which aliases a command handles."""

from collections.abc import Callable, Iterable

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.tasks import task_backends

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.inspection.aliases import kind_of, load
from django_tasks_local.inspection.text import harmless
from django_tasks_local.ring import Look, Ring, ring_exists


def add_alias_argument(parser: CommandParser) -> None:
    """Add ``--alias``."""
    parser.add_argument(
        "--alias",
        help="key in TASKS; by default every ProcessPoolBackend, for local_worker the only one",
    )


def process_backends(alias: str | None) -> list[ProcessPoolBackend]:
    """Return the process backends in ``TASKS``, or the one that ``alias`` names.

    Raises:
        CommandError: There is none, or the named one is of another kind.
    """
    if alias is not None and alias not in task_backends.settings:
        raise CommandError(f"TASKS has no alias {alias!r}; it has {', '.join(task_backends)}.")
    names = [alias] if alias is not None else list(task_backends)
    loaded = {name: load(name) for name in names}
    found = [each for each in loaded.values() if isinstance(each, ProcessPoolBackend)]
    if not found:
        backend = "django_tasks_local.ProcessPoolBackend"
        if alias is None:
            raise CommandError(
                f"No alias of TASKS has {backend} as its BACKEND, so there is no shared memory."
            )
        raise CommandError(f"TASKS[{alias!r}] is not a {backend} but {kind_of(loaded[alias])}.")
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


def refuse(problems: dict[str, str]) -> None:
    """Say what is wrong with the rings of some aliases, after all that is to be said of others.

    Raises:
        CommandError: There are any.
    """
    if problems:
        said = (f"{harmless(alias)}: {harmless(each)}" for alias, each in problems.items())
        raise CommandError("\n".join(said))


def looks_into(backends: Iterable[ProcessPoolBackend]) -> tuple[dict[str, Look], dict[str, str]]:
    """Return a look into each ring that there is, and what is wrong with others, by their aliases.

    Args:
        backends: Whose rings.
    """
    return _of_each(backends, lambda each: Look.into(each.spec().name, each.alias))


def rings_of(backends: Iterable[ProcessPoolBackend]) -> tuple[dict[str, Ring], dict[str, str]]:
    """Do the same with rings to which this process is attached.

    Args:
        backends: Whose rings.
    """
    return _of_each(backends, _ring_of)


def _ring_of(backend: ProcessPoolBackend) -> Ring | None:
    name = backend.spec().name
    if ring_exists(name):
        return backend.site().ring
    Look.into(name, backend.alias)  # raises where there can be none
    return None


def _of_each[T](
    backends: Iterable[ProcessPoolBackend], find: Callable[[ProcessPoolBackend], T | None]
) -> tuple[dict[str, T], dict[str, str]]:
    found, problems = dict[str, T](), dict[str, str]()
    for each in backends:
        try:
            value = find(each)
        except (StoreUnavailable, ImproperlyConfigured) as error:
            problems[each.alias] = str(error)
        else:
            if value is not None:
                found[each.alias] = value
    return found, problems
