"""``local_tasks schedule``: what runs when, what came of it last, and a run by hand."""

import time
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.periodic import find
from django_tasks_local.ring import Look, format_id
from django_tasks_local.schedules import ScheduleEntry
from django_tasks_local.timings import NEVER_NS, SECOND_NS, Cron, Every

from ._facts import print_facts


def add_arguments(parser: CommandParser) -> None:
    """Add the options."""
    parser.add_argument("--run", metavar="NAME", help="enqueue this one now")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(command: BaseCommand, backends: list[ProcessPoolBackend], **options: Any) -> None:
    """Print the schedules, or enqueue the task of an entry.

    Raises:
        CommandError: There is no such entry, or it has no task.
        StoreUnavailable: A ring cannot be used.
        ImproperlyConfigured: The options of an alias are wrong.
    """
    if options["run"] is not None:
        command.stdout.write(_enqueue(backends, options["run"]))
        return
    described = {backend.alias: described_schedule(backend) for backend in backends}
    print_facts(command, described, _lines, as_json=options["json"])


def described_schedule(backend: ProcessPoolBackend) -> dict[str, dict[str, Any]]:
    """Return the facts of each entry of a backend's SCHEDULE, by name. It makes no ring."""
    look = Look.into(backend.spec().name, backend.alias)
    return {entry.name: _facts(entry, look) for entry in backend.checked_options.schedule.entries}


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


def _enqueue(backends: list[ProcessPoolBackend], name: str) -> str:
    """Enqueue the task of an entry now, with its arguments, and return the result's id.

    Raises:
        CommandError: Not exactly one backend has such an entry, or it has no task.
    """
    found = [
        (backend.alias, entry)
        for backend in backends
        for entry in backend.checked_options.schedule.entries
        if entry.name == name
    ]
    if not found:
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


def _facts(entry: ScheduleEntry, look: Look | None) -> dict[str, Any]:
    now_ns, row = time.time_ns(), look.schedule().get(entry.key) if look else None
    next_ns = entry.timing.after(max(now_ns, row.settled_ns) if row else now_ns)
    last_id = format_id(row.id_high, row.id_low) if row and row.last_ns else None
    return {
        "task": entry.task,
        "when": _when(entry),
        "next": _moment(entry, next_ns) if next_ns < NEVER_NS else None,
        "last": _moment(entry, row.last_ns) if row and row.last_ns else None,
        "outcome": look.status(last_id) if look and last_id else None,
        "id": last_id,
        "skipped": row.skipped if row else 0,
        "begun": row is not None,
    }


def _when(entry: ScheduleEntry) -> str:
    timing = entry.timing
    if isinstance(timing, Every):
        return f"every {timing.period_ns / SECOND_NS:g} s"
    assert isinstance(timing, Cron)
    return f"{timing.expression} {timing.zone}"


def _moment(entry: ScheduleEntry, moment_ns: int) -> str:
    timing = entry.timing
    zone = ZoneInfo(timing.zone) if isinstance(timing, Cron) else timezone.get_default_timezone()
    return datetime.fromtimestamp(moment_ns // SECOND_NS, zone).isoformat()
