"""SCHEDULE: the periodic tasks of an alias, read from its options and checked.

No task is imported here: a process that enqueues reads the options, and may be in the middle of
importing the task's module.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from hashlib import blake2s
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.checks import Error

from .exceptions import describe
from .timings import NEVER_NS, SECOND_NS, Cron, Every, Timing

KEYS: Final = ("task", "cron", "every", "timezone", "args", "kwargs", "overlap", "grace")
# What a ring has rows for.
MOST_ENTRIES: Final = 128
LEAST_EVERY_S: Final = 1
MOST_EVERY_S: Final = 366 * 86_400
# How long ago a time may be that still fires: by default, the restart of a host.
GRACE_S: Final = 600
LEAST_GRACE_S: Final = 1
MOST_GRACE_S: Final = 31 * 86_400
# Their `repr` is the same in every process; not so that of a set, or of a project's own objects.
_PLAIN: Final = (
    str, bytes, int, float, complex, bool, type(None), Decimal, UUID, date, datetime, time,
    timedelta,
)  # fmt: skip


class Problem(NamedTuple):
    """What is wrong with a setting: the number of the check error, its text, and the way out."""

    number: int
    message: str
    hint: str

    def error(self) -> Error:
        """Return it as Django's checks have it."""
        return Error(self.message, hint=self.hint, id=f"django_tasks_local.E{self.number:03}")


@dataclass(frozen=True, slots=True, eq=False)
class ScheduleEntry:
    """One periodic task.

    Attributes:
        name: Its key in SCHEDULE.
        task: The import path of its task.
        timing: When it runs.
        args, kwargs: What it is called with.
        overlap: Whether it may run while an earlier run waits or runs.
        grace_ns: How long ago a time may be that still fires.
    """

    name: str
    task: str
    timing: Timing
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    overlap: bool
    grace_ns: int

    @property
    def key(self) -> int:
        """The number by which a ring knows it: that of its name."""
        return _number(self.name)

    @property
    def timing_key(self) -> int:
        """The number of its times: where it changes, the entry begins afresh."""
        return _number(self.timing.text)


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """All periodic tasks of an alias.

    Attributes:
        entries: In the order of the settings.
        digest: Tells it from other schedules, in every process; 0 where it is empty.
    """

    entries: tuple[ScheduleEntry, ...] = ()
    digest: int = 0


EMPTY: Final = Schedule()


def checked(value: object) -> Schedule:
    """Return the option's value as it is read, without its entries if `problems` finds any.

    Raises:
        ValueError: It is not a dict.
    """
    if not isinstance(value, dict):
        raise ValueError(f"it must be a dict, not of type {type(value).__name__}")
    return EMPTY if any(True for _ in problems(value, "")) else read(value)


def read(value: Mapping[str, Mapping[str, Any]]) -> Schedule:
    """Return a SCHEDULE in which `problems` found nothing."""
    if not value:
        return EMPTY
    entries = tuple(_entry(name, found) for name, found in value.items())
    return Schedule(entries, _number(repr(sorted(_fingerprint(each) for each in entries))))


def problems(value: Mapping[Any, Any], where: str) -> Iterator[Problem]:
    """Yield what is wrong with a SCHEDULE, as far as that can be said without its tasks.

    Args:
        value: The option's value, a dict.
        where: How the settings lead to it.
    """
    if len(value) > MOST_ENTRIES:
        yield Problem(
            11,
            f"{where} has {len(value)} entries; a ring has room for {MOST_ENTRIES}.",
            "Let one task do several things, or give part of the tasks another alias.",
        )
    for name, entry in value.items():
        yield from _entry_problems(name, entry, f"{where}[{name!r}]")


def _entry_problems(name: object, entry: object, where: str) -> Iterator[Problem]:
    if not isinstance(name, str) or not name.strip():
        yield Problem(
            11, f"{where}: the name {name!r} must be a string that is not empty.",
            "Name each entry, as in {'nightly-report': {'task': ...}}.",
        )  # fmt: skip
    if not isinstance(entry, dict):
        yield Problem(
            11, f"{where} is of type {type(entry).__name__}; it must be a dict.",
            "Write {'task': 'reports.tasks.nightly', 'cron': '15 3 * * *'}.",
        )  # fmt: skip
        return
    for key in entry:
        if key not in KEYS:
            close = get_close_matches(str(key).lower(), KEYS, n=1)
            yield Problem(
                12, f"{where}[{key!r}]: there is no such key.",
                f"Did you mean {close[0]}?" if close else f"The keys are {', '.join(KEYS)}.",
            )  # fmt: skip
    task = entry.get("task")
    if not isinstance(task, str) or "." not in task.strip("."):
        yield Problem(
            12, f"{where}['task'] is {task!r}; it must be the import path of a task.",
            "Write it as in 'reports.tasks.nightly'.",
        )  # fmt: skip
    yield from _timing_problems(entry, where)
    yield from _value_problems(entry, where)


def _timing_problems(entry: dict[str, Any], where: str) -> Iterator[Problem]:
    if ("cron" in entry) == ("every" in entry):
        yield Problem(
            12, f"{where} has {'both' if 'cron' in entry else 'neither'} of cron and every.",
            "Give it one of them: 'cron': '15 3 * * *', or 'every': timedelta(minutes=5).",
        )  # fmt: skip
    if "every" in entry:
        every = _seconds(entry["every"])
        if every is None or not LEAST_EVERY_S <= every <= MOST_EVERY_S:
            yield Problem(
                13, f"{where}['every'] is {entry['every']!r}; it must be a number of seconds from "
                f"{LEAST_EVERY_S} to {MOST_EVERY_S:,}, or a timedelta of as many.",
                "For times of the day or the week, use cron.",
            )  # fmt: skip
        if "timezone" in entry and "cron" not in entry:
            yield Problem(
                12, f"{where}['timezone'] has no effect: every counts from 1970-01-01 00:00 UTC.",
                "Remove it, or use cron.",
            )  # fmt: skip
    if "cron" in entry:
        zone = _zone(entry)
        if not _is_zone(zone):
            yield Problem(
                13, f"{where}['timezone'] is {zone!r}, which is not a time zone here.",
                "Write it as in 'Europe/Berlin'; the names are those of zoneinfo.",
            )  # fmt: skip
            zone = "UTC"
        yield from _cron_problems(entry["cron"], zone, where)


def _cron_problems(cron: object, zone: str, where: str) -> Iterator[Problem]:
    try:
        from cronsim import CronSimError
    except ImportError:
        yield Problem(
            14, f"{where}['cron'] needs the library cronsim, which is not installed.",
            "pip install 'django-tasks-local[schedule]', or use every.",
        )  # fmt: skip
        return
    reason = f"it is of type {type(cron).__name__}"
    if isinstance(cron, str):
        try:
            if Cron(cron, zone).after(0) != NEVER_NS:
                return
            reason = "there is no such day"
        except CronSimError as error:
            reason = str(error)
    yield Problem(
        13, f"{where}['cron'] is {cron!r}, which is not a cron expression ({reason}).",
        "Write minute, hour, day of the month, month and day of the week: '15 3 * * mon-fri'.",
    )  # fmt: skip


def _value_problems(entry: dict[str, Any], where: str) -> Iterator[Problem]:
    if not isinstance(entry.get("overlap", True), bool):
        yield Problem(
            13, f"{where}['overlap'] is {entry['overlap']!r}; it must be True or False.",
            "False skips a run while an earlier one waits or runs.",
        )  # fmt: skip
    grace = _seconds(entry.get("grace", GRACE_S))
    if grace is None or not LEAST_GRACE_S <= grace <= MOST_GRACE_S:
        yield Problem(
            13, f"{where}['grace'] is {entry['grace']!r}; it must be a number of seconds from "
            f"{LEAST_GRACE_S} to {MOST_GRACE_S:,}, or a timedelta of as many.",
            f"Leave it out for {GRACE_S}.",
        )  # fmt: skip
    args, kwargs = entry.get("args", ()), entry.get("kwargs", {})
    if not isinstance(args, list | tuple):
        yield Problem(
            15, f"{where}['args'] is of type {type(args).__name__}; it must be a list or a tuple.",
            "Write ['monthly'], or name the arguments in kwargs.",
        )  # fmt: skip
    elif not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        yield Problem(
            15, f"{where}['kwargs'] is {kwargs!r}; it must be a dict with strings for keys.",
            "Write {'full': True}.",
        )  # fmt: skip
    else:
        try:
            pickle.dumps((args, kwargs), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            yield Problem(
                15, f"{where}: its arguments cannot be pickled: {describe(error)}.",
                "Use ids or plain data.",
            )  # fmt: skip


def _entry(name: str, found: Mapping[str, Any]) -> ScheduleEntry:
    timing: Timing
    if "cron" in found:
        timing = Cron(" ".join(found["cron"].split()), _zone(found))
    else:
        timing = Every(_ns(found["every"]))
    return ScheduleEntry(
        name, found["task"], timing, tuple(found.get("args", ())), dict(found.get("kwargs", {})),
        found.get("overlap", True), _ns(found.get("grace", GRACE_S)),
    )  # fmt: skip


def _zone(entry: Mapping[str, Any]) -> Any:
    return entry.get("timezone", settings.TIME_ZONE)


def _is_zone(name: object) -> bool:
    try:
        ZoneInfo(name)  # type: ignore[arg-type]  # whatever stands there
    except Exception:
        return False
    return True


def _seconds(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value


def _ns(value: Any) -> int:
    if isinstance(value, timedelta):
        milliseconds = value / timedelta(milliseconds=1)
    else:
        milliseconds = value * 1000
    return round(milliseconds) * (SECOND_NS // 1000)


def _fingerprint(entry: ScheduleEntry) -> str:
    timing, grace_ns = entry.timing.text, entry.grace_ns
    arguments = _canonical((entry.args, entry.kwargs))
    return repr((entry.name, entry.task, timing, grace_ns, entry.overlap, arguments))


def _canonical(value: object) -> str:
    """Return a text that is the same in every process, whatever its hashes and addresses are.

    What it cannot spell it names by its type.
    """
    if type(value) in _PLAIN:
        return repr(value)
    name = type(value).__qualname__
    if isinstance(value, dict):
        return f"{name}{sorted((_canonical(k), _canonical(v)) for k, v in value.items())}"
    if isinstance(value, set | frozenset):
        return f"{name}{sorted(map(_canonical, value))}"
    if isinstance(value, list | tuple):
        return f"{name}{list(map(_canonical, value))}"
    return name


def _number(text: str) -> int:
    """Return 64 bits that stand for a text, never 0."""
    digest = blake2s(text.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1
