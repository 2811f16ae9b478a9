"""The attempts of a task before its present or last one: what is kept of them, and how much.

Every worker is kept, so that ``attempts`` counts truly, and of the errors the first and the last
nine: how it began, and how it went lately.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# What a task raised, or how its worker was lost: exception class path and traceback.
type TaskErrorText = tuple[str, str]

MOST_ATTEMPTS: Final = 1000
KEPT_ERRORS: Final = 10
# Of a traceback that is not the task's last one; the store may keep less.
MOST_ERROR_CHARACTERS: Final = 4096
_MOST_PATH_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Past[Worker]:
    """The attempts of a task that were followed by another one, or are to be.

    Attributes:
        workers: Who made them, in their order.
        errors: How they failed; see `kept`.
        first_started_at_ns: When the first of them began, Unix ns.
        last_started_at_ns: When the last of them began.
    """

    workers: tuple[Worker, ...]
    errors: tuple[TaskErrorText, ...]
    first_started_at_ns: int
    last_started_at_ns: int


def add_attempt[Worker](
    past: Past[Worker] | None, worker: Worker, started_at_ns: int, error: TaskErrorText
) -> Past[Worker]:
    """Return ``past`` with one more attempt, its error cut to `MOST_ERROR_CHARACTERS`."""
    path, text = error
    error = path[:_MOST_PATH_CHARACTERS], cut(text, MOST_ERROR_CHARACTERS)
    if past is None:
        return Past((worker,), (error,), started_at_ns, started_at_ns)
    return Past(
        (*past.workers, worker), tuple(kept((*past.errors, error))), past.first_started_at_ns,
        started_at_ns,
    )  # fmt: skip


def first_started_at_ns(past: Past[str] | None, started_at_ns: int) -> int:
    """Return when the first attempt of a task began, Unix ns; 0 before that.

    Args:
        past: The task's.
        started_at_ns: When its present or last attempt began, 0 where it waits for it.
    """
    return past.first_started_at_ns if past else started_at_ns


def last_started_at_ns(past: Past[str] | None, started_at_ns: int) -> int:
    """Return when its latest attempt began, likewise."""
    return past.last_started_at_ns if past and not started_at_ns else started_at_ns


def worker_ids(past: Past[str] | None, worker_id: str) -> list[str]:
    """Return the worker of each attempt; ``worker_id`` is that of one that is not past, or ""."""
    workers = list(past.workers) if past else []
    return [*workers, worker_id] if worker_id else workers


def kept[Each](errors: Sequence[Each]) -> Sequence[Each]:
    """Return the first and the last nine of all errors."""
    return errors if len(errors) <= KEPT_ERRORS else [errors[0], *errors[1 - KEPT_ERRORS :]]


def cut(text: str, limit: int) -> str:
    """Leave out the middle: a traceback's last line says what happened, its first lines where."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 4]}\n  [...]\n{text[len(text) - limit * 3 // 4 :]}" if limit else ""
