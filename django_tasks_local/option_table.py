"""The table of the options of both backends, from which checks, errors and defaults follow."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from django_tasks_local import schedules
from django_tasks_local.attempts import MOST_ATTEMPTS
from django_tasks_local.backoff import Exponential
from django_tasks_local.retrying import checked_backoff, checked_exceptions, checked_flag
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
        values: What may be given then, in words.
        imports: Whether strings are import paths then.
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
    imports: bool = True

    def belongs_to(self, kind: Kind) -> bool:
        """Return whether a backend of this kind accepts it."""
        return kind == "inline" or kind in self.kinds


def _checked_directory(value: object) -> str:
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"it is of type {type(value).__name__}, and must be a path")
    path = os.fspath(value)
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise ValueError("it must be an absolute path")
    path = os.path.normpath(path)
    if not path.strip("/"):
        raise ValueError("it must be a directory below /")
    return f"/{path.lstrip('/')}"


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
    # Where the segment lies: in memory, or in a directory on a disk, which survives a reboot.
    "DIRECTORY": Option(
        "/dev/shm",
        (),
        kinds=("process",),
        check=_checked_directory,
        values="an absolute path",
        imports=False,
    ),
    # Whether `enqueue` returns only when the task is on that disk.
    "SYNC": Option(False, (), kinds=("process",), check=checked_flag, values="a bool"),
    # Time for work that no other process can take over. `docker stop` gives 10 seconds in all.
    "DRAIN_TIMEOUT": Option(
        8, (int, float), 0, 31_536_000, "seconds", none_means="to wait until all is done"
    ),
    # How long one attempt of a task may run, and how long it may take to stop.
    "TIMEOUT": Option(
        None,
        (int, float, timedelta),
        LEAST_TIMEOUT_S,
        MOST_TIMEOUT_S,
        "seconds",
        none_means="for no limit",
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
