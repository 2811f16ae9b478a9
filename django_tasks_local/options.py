"""The options of one alias: checked, complete, and with their errors in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from django_tasks_local import schedules
from django_tasks_local.exceptions import counted
from django_tasks_local.option_table import (
    KINDS,
    MIB,
    OPTIONS,
    SEGMENT_OVERHEAD,
    SLOT_OVERHEAD,
    Kind,
    Option,
)
from django_tasks_local.retrying import Backoff, Retries, imported, problem_of
from django_tasks_local.schedules import Schedule


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one alias, checked and complete. Field names are the keys in lower case.

    It is hashable: part of the key under which a process keeps its stores.
    """

    max_workers: int  # threads of this process, or worker processes on the host
    max_results: int  # finished results kept
    max_result_bytes: int  # bytes that they may hold
    max_pending: int  # waiting tasks accepted
    slot_size: int  # bytes
    shm_size: int  # bytes, a ceiling
    namespace: str | None  # None: derived by the store
    directory: str  # an absolute path
    sync: bool
    drain_timeout: float | None  # seconds; None: until all is done
    timeout: float | None  # seconds; None: no limit
    timeout_grace: float  # seconds
    max_attempts: int
    backoff: Backoff = field(hash=False)  # of the user's own, perhaps
    retry_on: tuple[type[BaseException], ...]
    never: tuple[type[BaseException], ...]
    retry_lost: bool
    result_ttl: float | None  # seconds; None: no limit
    failure_ttl: float | None  # seconds; None: no limit
    max_tasks_per_worker: int | None  # None: no limit
    max_worker_memory: int | None  # bytes; None: no limit
    max_task_memory: int | None  # bytes; None: no limit
    admin_arguments: bool  # whether the admin shows them
    schedule: Schedule  # periodic tasks
    metrics: bool  # whether tasks are counted

    @property
    def retries(self) -> Retries:
        """How often tasks are tried, and after what, where their functions say nothing."""
        return Retries(self.max_attempts, self.backoff, self.retry_on, self.never)

    @classmethod
    def from_params(cls, params: Mapping[str, Any], alias: str, kind: Kind) -> Options:
        """Return the options in ``params``, one alias's value in ``TASKS``.

        Raises:
            ImproperlyConfigured: `check` finds errors; the text has all of theirs.
        """
        known = _accepted.get((alias, kind))
        if known is not None and known[0] == params:
            return known[1]
        if errors := check(params, alias, kind):
            raise ImproperlyConfigured("\n".join(f"{e.id}: {e.msg} {e.hint}" for e in errors))
        options = _complete(params.get("OPTIONS", {}))
        _accepted[alias, kind] = _copy(params), options
        return options


# What was accepted last for each alias. Under ASGI every request makes its own backend objects, and
# comparing two dicts takes 0.3 µs where checking every value takes 5 µs.
_accepted: dict[tuple[str, Kind], tuple[dict[str, Any], Options]] = {}


def check(params: Mapping[str, Any], alias: str, kind: Kind) -> list[Error]:
    """Return what is wrong with ``params``, one alias's value in ``TASKS``, as check errors."""
    where = f"TASKS[{alias!r}]"
    errors = [*_check_queues(params, where), *_check_place(params, where)]
    options = params.get("OPTIONS", {})
    if not isinstance(options, dict):
        errors.append(
            _error(
                1,
                f"{where}['OPTIONS'] is of type {type(options).__name__}; it must be a dict.",
                "Write OPTIONS as a dict of option names and values, or leave it out.",
            )
        )
        return errors
    for name, value in options.items():
        errors.extend(_check_option(name, value, f"{where}['OPTIONS'][{name!r}]", kind))
    if not errors and kind == "process":
        errors.extend(_check_room(_complete(options), where))
        errors.extend(_check_memory(_complete(options), where))
        errors.extend(_check_sync(_complete(options), where))
    return errors


def check_app(kind: Kind) -> list[CheckMessage]:
    """Return a warning where the app is not installed and ``kind`` would benefit from it."""
    if kind != "process" or apps.is_installed("django_tasks_local"):
        return []
    return [
        Warning(
            "'django_tasks_local' is not in INSTALLED_APPS, and TASKS has a ProcessPoolBackend.",
            hint="Add it: manage.py then has the commands local_tasks and local_worker, and a "
            "server that restarts looks after waiting and running tasks before its first request.",
            id="django_tasks_local.W001",
        )
    ]


def _copy(params: Mapping[str, Any]) -> dict[str, Any]:
    # Deep enough that a value changed in place, as tests do, is seen as a change.
    copy = dict(params)
    for name in ("OPTIONS", "QUEUES"):
        if name in copy:
            copy[name] = type(copy[name])(copy[name])
    return copy


def _complete(options: Mapping[str, Any]) -> Options:
    values = {
        name.lower(): _value(option, options.get(name, option.default))
        for name, option in OPTIONS.items()
    }
    if values["shm_size"] is None:
        values["shm_size"] = _derived_shm_size(**values)
    return Options(**values)


def _value(option: Option, value: Any) -> Any:
    if option.check is None:
        return _plain(value)
    return option.check(imported(value) if option.imports else value)


def _plain(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _derived_shm_size(
    *, max_workers: int, max_results: int, max_pending: int, slot_size: int, **_: Any
) -> int:
    # Twice what all records need if each takes one slot: half of them may be chained.
    needed = 2 * (max_results + max_pending) * (slot_size + SLOT_OVERHEAD)
    least = _least_shm_size(max_workers, slot_size)
    return max(32 * MIB, math.ceil(max(needed, least) / MIB) * MIB)


def _least_shm_size(max_workers: int, slot_size: int) -> int:
    # What all workers may work on at once, and two slots for what is passed on.
    return SEGMENT_OVERHEAD + (max_workers + 2) * (slot_size + SLOT_OVERHEAD)


def _error(number: int, message: str, hint: str) -> Error:
    return schedules.Problem(number, message, hint).error()


def _check_queues(params: Mapping[str, Any], where: str) -> Iterator[Error]:
    queues = params.get("QUEUES", [])
    if not isinstance(queues, list | tuple | set | frozenset) or not all(
        isinstance(name, str) for name in queues
    ):
        yield _error(
            8,
            f"{where}['QUEUES'] is {queues!r}, not a list of strings.",
            "List the queue names, as in ['default', 'reports']; an empty list allows any.",
        )


def _check_place(params: Mapping[str, Any], where: str) -> Iterator[Error]:
    for name in params:
        if name in OPTIONS:
            yield _error(
                9,
                f"{where}[{name!r}] stands beside OPTIONS and has no effect there.",
                f"Move it: 'OPTIONS': {{{name!r}: {params[name]!r}}}.",
            )


def _check_option(name: object, value: object, where: str, kind: Kind) -> Iterator[Error]:
    option = OPTIONS.get(name) if isinstance(name, str) else None
    if option is None:
        yield _error(2, f"{where}: there is no such option.", _did_you_mean(str(name), kind))
    elif not option.belongs_to(kind):
        owners = " and ".join(KINDS[owner] for owner in option.kinds)
        yield _error(
            7,
            f"{where}: {name} belongs to {owners}, and this is {KINDS[kind]}.",
            f"Remove it, or use {owners} as the BACKEND.",
        )
    elif option.check is not None:
        if problem := problem_of(option.check, value, imports=option.imports):
            yield _error(
                3, f"{where} is {value!r}; {problem}.", f"Leave {name} out for its default."
            )
        elif name == "SCHEDULE":
            yield from (found.error() for found in schedules.problems(imported(value), where))
    elif value is None and option.none_means:
        return
    elif not isinstance(value, option.types) or isinstance(value, bool):
        yield _error(
            3,
            f"{where} is {value!r}, of type {type(value).__name__}; it must be {_wanted(option)}.",
            f"Leave {name} out for its default.",
        )
    elif not _in_bounds(option, value):
        yield _error(
            4,
            f"{where} is {value!r}; it must be {_wanted(option)}.",
            f"Leave {name} out for its default.",
        )
    elif name == "SLOT_SIZE" and isinstance(value, int) and value & (value - 1):
        lower = 1 << (value.bit_length() - 1)
        yield _error(
            5,
            f"{where} is {value:,}, not a power of two.",
            f"The nearest ones are {lower} and {2 * lower}.",
        )


def _check_room(options: Options, where: str) -> Iterator[Error]:
    least = _least_shm_size(options.max_workers, options.slot_size)
    if options.shm_size < least:
        yield _error(
            6,
            f"{where}['OPTIONS']['SHM_SIZE'] is {options.shm_size:,} bytes, too small for "
            f"{counted(options.max_workers, 'worker')} with slots of {options.slot_size:,} bytes.",
            f"At least {least:,} bytes are needed; left out, SHM_SIZE is 32 MiB or more.",
        )


def _check_memory(options: Options, where: str) -> Iterator[Error]:
    worker, task = options.max_worker_memory, options.max_task_memory
    if worker is not None and task is not None and worker >= task:
        yield _error(
            10,
            f"{where}['OPTIONS']: MAX_WORKER_MEMORY is {worker:,} bytes, MAX_TASK_MEMORY {task:,}. "
            "A worker may then keep so much that its next task is killed, however little it takes.",
            "Make MAX_WORKER_MEMORY smaller than MAX_TASK_MEMORY.",
        )


def _check_sync(options: Options, where: str) -> Iterator[Error]:
    if options.sync and options.directory == OPTIONS["DIRECTORY"].default:
        yield _error(
            18,
            f"{where}['OPTIONS']['SYNC'] is True, and the ring lies in {options.directory}: that "
            "is memory, and nothing in it survives a reboot.",
            "Set DIRECTORY to a directory on a disk, or leave SYNC out.",
        )


def _in_bounds(option: Option, value: object) -> bool:
    if isinstance(value, str):
        # White space counts as empty: it comes from an unset variable.
        return bool(value.strip())
    value = _plain(value)
    return isinstance(value, int | float) and option.minimum <= value <= option.maximum


def _wanted(option: Option) -> str:
    if str in option.types:
        return "a string that is not empty"
    number = "a number" if float in option.types else "a whole number"
    text = f"{number} of {option.unit} from {option.minimum:,} to {option.maximum:,}"
    if timedelta in option.types:
        text = f"{text}, or a timedelta of as many"
    return f"{text}, or None {option.none_means}" if option.none_means else text


def _did_you_mean(name: str, kind: Kind) -> str:
    known = [known for known, option in OPTIONS.items() if option.belongs_to(kind)]
    if close := get_close_matches(name.upper().replace("-", "_"), known, n=1):
        return f"Did you mean {close[0]}?"
    return f"The options of {KINDS[kind]} are {', '.join(known)}."
