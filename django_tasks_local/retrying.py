"""Whether a failed task is tried again, and when: what its function and its alias say of that.

It is decided in the process that ran the task, where the exception is an object.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

from django.utils.module_loading import import_string

from django_tasks_local.attempts import MOST_ATTEMPTS
from django_tasks_local.backoff import checked_s, exponential, fixed
from django_tasks_local.exceptions import TaskCancelled, describe

if TYPE_CHECKING:
    from django.tasks import TaskResult

type Backoff = Callable[[BaseException, TaskResult[..., Any]], float | timedelta | None]
type ExceptionClasses = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a task is tried, and after what: the words of its function and of its alias.

    Attributes:
        max_attempts: How often, the first time included.
        backoff: Says how long it waits.
        retry_on: Exceptions after which it is tried again.
        never: Those of them after which it is not.
    """

    max_attempts: int
    backoff: Backoff
    retry_on: tuple[type[BaseException], ...]
    never: tuple[type[BaseException], ...]

    def due_ns(self, path: str, error: BaseException, result: TaskResult[..., Any]) -> int | None:
        """Return when the task is to be tried again, in Unix ns; ``None``: not at all.

        Args:
            path: The task's import path, for texts.
            error: What the task raised.
            result: The task's, with the attempt that failed.

        Raises:
            TypeError: ``backoff`` returned something of a wrong type.
            ValueError: It returned seconds that are out of range.
            BaseException: What ``backoff`` raised.
        """
        if result.attempts >= self.max_attempts or isinstance(error, TaskCancelled):
            return None
        if not isinstance(error, self.retry_on) or isinstance(error, self.never):
            return None
        try:
            delay = self.backoff(error, result)
            if delay is None:
                return None
            delay_s = checked_s("its return value", delay)
        except BaseException as failure:
            failure.add_note(
                f"This comes from the backoff of task {path}, {self.backoff!r}, which was asked "
                f"after the task had failed with {describe(error)}."
            )
            raise
        return time.time_ns() + round(delay_s * 1e9) if delay_s else 0


def checked_attempts(value: object) -> int:
    """Return a number of attempts.

    Raises:
        ValueError: It is none; the text says what is wanted.
    """
    wanted = f"it must be a whole number from 1 to {MOST_ATTEMPTS:,}, the first attempt included"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{wanted}, not of type {type(value).__name__}")
    if not 1 <= value <= MOST_ATTEMPTS:
        raise ValueError(wanted)
    return value


def checked_backoff(value: object) -> Backoff:
    """Return a backoff.

    Raises:
        ValueError: It cannot be called as one; the text says what is wanted.
    """
    wanted = (
        "it must be a function of an exception and a task's result that returns seconds, a "
        "timedelta or None, such as fixed(10) or exponential(base=2, maximum=600)"
    )
    if not callable(value):
        raise ValueError(f"{wanted}, not of type {type(value).__name__}")
    # An object that can be called may have an async method for that.
    if isinstance(value, type) or any(map(iscoroutinefunction, (value, type(value).__call__))):
        raise ValueError(f"{wanted}; {'a class' if isinstance(value, type) else 'async'} is not")
    if value in (exponential, fixed):  # they are what makes one
        raise ValueError(f"{wanted}; call it with its arguments")
    backoff: Backoff = value
    return backoff


def checked_exceptions(value: object) -> tuple[type[BaseException], ...]:
    """Return one exception class or several as a tuple.

    Raises:
        ValueError: Something is not an exception class; the text says what is wanted.
    """
    several = tuple(value) if isinstance(value, tuple | list) else (value,)
    for each in several:
        if not isinstance(each, type) or not issubclass(each, BaseException):
            raise ValueError(
                f"it must be an exception class or a tuple of some, and {each!r}, of type "
                f"{type(each).__name__}, is not an exception class"
            )
    return several


def checked_flag(value: object) -> bool:
    """Return a truth value.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, bool):
        raise ValueError(f"it must be True or False, not of type {type(value).__name__}")
    return value


def imported(value: Any) -> Any:
    """Return what import paths lead to, also those in a list, and other values as they are."""
    if isinstance(value, str):
        return import_string(value)
    return [*map(imported, value)] if isinstance(value, tuple | list) else value


def problem_of(check: Callable[[object], object], value: object, *, imports: bool = True) -> str:
    """Return what is wrong with a value, or with what its import path leads to; "" for nothing.

    Args:
        check: Raises a ValueError that says it.
        value: The value or its import path, or a list of either.
        imports: False where strings are what they are.
    """
    try:
        check(imported(value) if imports else value)
    except ValueError as error:
        return str(error)
    except Exception as error:  # whatever a module raises when it is imported
        return f"it cannot be imported: {describe(error)}"
    return ""


# The words of a policy that this module knows, each with what returns the value to keep.
RETRY_WORDS: Final[dict[str, Callable[[object], Any]]] = {
    "max_attempts": checked_attempts,
    "backoff": checked_backoff,
    "retry_on": checked_exceptions,
    "never": checked_exceptions,
    "retry_lost": checked_flag,
}
