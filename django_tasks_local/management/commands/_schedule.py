"""``local_tasks schedule``: what runs when, what came of it last, and a run by hand."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.inspection.schedule import Periodic, schedule_of
from django_tasks_local.periodic import find
from django_tasks_local.ring import Look

from ._aliases import looks_into, refuse
from ._facts import print_facts


def add_arguments(parser: CommandParser) -> None:
    """Add the options."""
    parser.add_argument("--run", metavar="NAME", help="enqueue this one now")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(command: BaseCommand, backends: list[ProcessPoolBackend], **options: Any) -> None:
    """Print the schedules, or enqueue the task of an entry.

    Raises:
        CommandError: There is no such entry, or it has no task; or some rings cannot be used, and
            the schedules of the others are printed all the same.
        StoreUnavailable: The ring of the entry cannot be used.
    """
    looks, unusable = looks_into(backends)
    usable = [each for each in backends if each.alias not in unusable]
    if options["run"] is not None:
        command.stdout.write(_enqueue(usable, options["run"], unusable))
        return
    described = {each.alias: _described(each, looks.get(each.alias)) for each in usable}
    print_facts(command, described, _lines, as_json=options["json"])
    refuse(unusable)


def _described(backend: ProcessPoolBackend, look: Look | None) -> dict[str, dict[str, Any]]:
    """Return the facts of each entry of a backend's SCHEDULE, by name."""
    return {each.entry.name: _facts(each) for each in schedule_of(backend, look)}


def _lines(facts: dict[str, dict[str, Any]]) -> list[str]:
    """Return the same for people, an entry in a line."""
    if not facts:
        return ["no SCHEDULE"]
    width = max(map(len, facts))
    found = []
    for name, each in facts.items():
        last = f"{each['last']} {each['outcome'] or 'no longer kept'}" if each["last"] else "never"
        begun = "" if each["begun"] else "   (no pool has served it yet)"
        found.append(
            f"{name:{width}}  {each['when']}   next {each['next'] or 'never'}   last {last}   "
            f"skipped {each['skipped']:,}{begun}"
        )
    return found


def _enqueue(backends: list[ProcessPoolBackend], name: str, unusable: dict[str, str]) -> str:
    """Enqueue the task of an entry now, with its arguments, and return the result's id.

    Raises:
        CommandError: Not exactly one backend has such an entry, or it has no task; or none has it,
            and there are some that cannot be used.
    """
    found = [
        (backend.alias, entry)
        for backend in backends
        for entry in backend.checked_options.schedule.entries
        if entry.name == name
    ]
    if not found:
        refuse(unusable)
        names = sorted({e.name for b in backends for e in b.checked_options.schedule.entries})
        raise CommandError(
            f"No SCHEDULE has an entry {name!r}; there are {', '.join(names) or 'none'}."
        )
    if len(found) > 1:
        aliases = ", ".join(alias for alias, _ in found)
        raise CommandError(
            f"Several aliases have an entry {name!r}: choose with --alias {aliases}."
        )
    ((alias, entry),) = found
    try:
        task = find(entry, alias).task
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from error
    return task.enqueue(*entry.args, **entry.kwargs).id


def _facts(periodic: Periodic) -> dict[str, Any]:
    return {
        "task": periodic.entry.task,
        "when": periodic.when,
        "next": periodic.next_at and periodic.next_at.isoformat(),
        "last": periodic.last_at and periodic.last_at.isoformat(),
        "outcome": periodic.outcome,
        "id": periodic.result_id,
        "skipped": periodic.skipped,
        "begun": periodic.has_begun,
    }
