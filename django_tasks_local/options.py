"""The options of both backends: one table, from which checks, errors and defaults follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Literal

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from django_tasks_local import schedules
from django_tasks_local.attempts import MOST_ATTEMPTS
from django_tasks_local.backoff import Exponential
from django_tasks_local.exceptions import counted
from django_tasks_local.retrying import (
    Backoff,
    Retries,
    checked_backoff,
    checked_exceptions,
    checked_flag,
    imported,
    problem_of,
)
from django_tasks_local.schedules import Schedule
from django_tasks_local.store import LIMIT_MASK

type Kind = Literal["thread", "process", "inline"]

KINDS: dict[Kind, str] = {
    "thread": "ThreadPoolBackend",
    "process": "ProcessPoolBackend",
    "inline": "InlineBackend",  # of tests: it takes the options of those whose place it takes
}

KIB = 2**10
MIB = 2**20
GIB = 2**30

# Bytes that a slot takes in the segment besides SLOT_SIZE: its share of the header's columns.
SLOT_OVERHEAD = 104
# Bytes that a segment needs before its first slot. Generous, so that the layout may change.
SEGMENT_OVERHEAD = 768 * KIB

# A record's lifetime is kept in whole milliseconds; 100 years.
LEAST_TTL_S = 0.001
MOST_TTL_S = 3_155_760_000
# What a record has room for, in ms.
LEAST_TIMEOUT_S = 0.001
MOST_TIMEOUT_S = LIMIT_MASK / 1000
MOST_GRACE_S = 3600
_NO_TTL = "to keep them until MAX_RESULTS is reached"
_ANY = "for no limit"


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    Attributes:
        default: The value if the key is absent; ``None`` where it is computed.
        types: What a value may be an instance of. A bool is never accepted as an int.
        minimum, maximum: Inclusive bounds of numbers.
        unit: Of numbers, for the error text.
        kinds: The backends that know the option.
        none_means: What the value ``None`` means; empty where ``None`` is not allowed.
        check: Returns the value to use, or raises a ValueError that says what is wrong with it.
            Then nothing else above but ``default`` and ``kinds`` counts.
        values: What may be given then, in words; strings are import paths.
    """

    default: Any
    types: tuple[type, ...]
    minimum: float = 0
    maximum: float = 0
    unit: str = ""
    kinds: tuple[Kind, ...] = ("thread", "process")
    none_means: str = ""
    check: Callable[[object], Any] | None = None
    values: str = ""

    def belongs_to(self, kind: Kind) -> bool:
        """Return whether a backend of this kind accepts it."""
        return kind == "inline" or kind in self.kinds


_CLASSES = "an exception class, a list of some, or their import paths"

OPTIONS: dict[str, Option] = {
    # Threads of this process, or worker processes on the host.
    "MAX_WORKERS": Option(10, (int,), 1, 1024, "workers"),
    # Finished results kept; the least recently used goes first.
    "MAX_RESULTS": Option(1000, (int,), 1, 1_000_000, "results"),
    # About how many bytes they may hold, arguments included.
    "MAX_RESULT_BYTES": Option(256 * MIB, (int,), MIB, 1024 * GIB, "bytes", kinds=("thread",)),
    # Tasks that may wait, those with run_after included.
    "MAX_PENDING": Option(10_000, (int,), 1, 1_000_000, "tasks"),
    # A power of two.
    # In the smallest a plain task and its result still fit: 256 bytes would leave them 16.
    "SLOT_SIZE": Option(KIB, (int,), 512, MIB, "bytes", kinds=("process",)),
    # Ceiling of the segment. Default: see _derived_shm_size.
    "SHM_SIZE": Option(None, (int,), MIB, 1024 * GIB, "bytes", kinds=("process",)),
    # Which ring this is. Default: from SECRET_KEY and the settings module, see pool/spec.py.
    "NAMESPACE": Option(None, (str,), kinds=("process",)),
    # Time for work that no other process can take over. `docker stop` gives 10 seconds in all.
    "DRAIN_TIMEOUT": Option(
        8, (int, float), 0, 31_536_000, "seconds", none_means="to wait until all is done"
    ),
    # How long one attempt of a task may run, and how long it may take to stop.
    "TIMEOUT": Option(
        None, (int, float, timedelta), LEAST_TIMEOUT_S, MOST_TIMEOUT_S, "seconds", none_means=_ANY
    ),
    "TIMEOUT_GRACE": Option(5, (int, float, timedelta), 0, MOST_GRACE_S, "seconds"),
    # How often a task is tried, after what, and when: the words of `policy`.
    "MAX_ATTEMPTS": Option(1, (int,), 1, MOST_ATTEMPTS, "attempts"),
    "BACKOFF": Option(
        Exponential(1, 600), (), check=checked_backoff, values="a function, or its import path"
    ),
    "RETRY_ON": Option(Exception, (), check=checked_exceptions, values=_CLASSES),
    "NEVER": Option((), (), check=checked_exceptions, values=_CLASSES),
    "RETRY_LOST": Option(False, (), kinds=("process",), check=checked_flag, values="a bool"),
    # How long a result can be read after the end of its task, by how that ended.
    "RESULT_TTL": Option(
        None, (int, float, timedelta), LEAST_TTL_S, MOST_TTL_S, "seconds", none_means=_NO_TTL
    ),
    "FAILURE_TTL": Option(
        None, (int, float, timedelta), LEAST_TTL_S, MOST_TTL_S, "seconds", none_means=_NO_TTL
    ),
    # After so many tasks, more or less, a worker process is replaced.
    "MAX_TASKS_PER_WORKER": Option(
        None, (int,), 1, 1_000_000_000, "tasks", ("process",), "to let workers live on"
    ),
    # And when a task has ended that left it with more private memory.
    "MAX_WORKER_MEMORY": Option(
        None, (int,), MIB, 1024 * GIB, "bytes", ("process",), "to let workers grow"
    ),
    # A task whose worker has more private memory is killed.
    "MAX_TASK_MEMORY": Option(
        None, (int,), MIB, 1024 * GIB, "bytes", ("process",), "to let tasks grow"
    ),
    "ADMIN_ARGUMENTS": Option(False, (), check=checked_flag, values="a bool"),  # shown or hidden
    # Periodic tasks. Threads have none: each web process would run them.
    "SCHEDULE": Option({}, (), kinds=("process",), check=schedules.checked, values="a dict"),
    "METRICS": Option(False, (), check=checked_flag, values="a bool"),
}


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
    return errors


def check_app(kind: Kind) -> list[CheckMessage]:
    """Return a warning where the app is not installed and ``kind`` would benefit from it."""
    if kind != "process" or apps.is_installed("django_tasks_local"):
        return []
    return [
        Warning(
            "'django_tasks_local' is not in INSTALLED_APPS, and TASKS has a ProcessPoolBackend.",
            hint="Add it: manage.py then has the commands local_tasks and local_worker, and a web "
            "process that restarts keeps running tasks alive before its first request.",
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
    return option.check(imported(value)) if option.check else _plain(value)


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
        if problem := problem_of(option.check, value):
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
