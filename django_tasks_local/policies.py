"""How a task is to be run, as its function says: the decorator `policy`, and what it stores.

A new word is a field of `Policy` with a validator in ``_VALIDATORS``, and a keyword of `policy`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from inspect import isfunction
from typing import Any, Final
from weakref import WeakSet

from django.tasks import Task, task_backends
from django.tasks.exceptions import InvalidTask

from django_tasks_local.options import Options
from django_tasks_local.retrying import RETRY_WORDS, Backoff, ExceptionClasses, Retries
from django_tasks_local.store import LIMIT_MASK, time_limit_word
from django_tasks_local.ties import checked_group
from django_tasks_local.unique import Unique, checked_conflict, checked_unique, missing_parameter

# Where a function's policy is kept. Other backends do not look there.
_ATTRIBUTE: Final = "_django_tasks_local_policy"
LONGEST_TIMEOUT_S: Final = LIMIT_MASK / 1000


@dataclass(frozen=True, slots=True)
class Policy:
    """What a task's function says of how it is to be run; ``None`` where it says nothing.

    Attributes:
        timeout: Seconds that one attempt may run; infinite for no limit.
        max_attempts, backoff, retry_on, never, retry_lost: As `policy` was given them; exception
            classes as a tuple.
        unique: What makes two such tasks the same.
        on_conflict: What `enqueue` does where the same one waits or runs.
        group: The group of such tasks, unless `in_group` names another.
        then: The import path of the task that follows a success.
        on_failure: The import path of the task that follows every other end.
    """

    timeout: float | None = None
    max_attempts: int | None = None
    backoff: Backoff | None = None
    retry_on: tuple[type[BaseException], ...] | None = None
    never: tuple[type[BaseException], ...] | None = None
    retry_lost: bool | None = None
    unique: Unique | None = None
    on_conflict: str | None = None
    group: str | None = None
    then: str | None = None
    on_failure: str | None = None


NO_POLICY: Final = Policy()
# The functions that have one, for the system checks.
functions: Final[WeakSet[Callable[..., Any]]] = WeakSet()


def policy[F: Callable[..., Any]](
    *,
    timeout: float | timedelta | None = None,
    max_attempts: int | None = None,
    backoff: Backoff | None = None,
    retry_on: ExceptionClasses | None = None,
    never: ExceptionClasses | None = None,
    retry_lost: bool | None = None,
    unique: bool | str | tuple[str, ...] | Callable[..., Any] | None = None,
    on_conflict: str | None = None,
    group: str | None = None,
    then: str | Task[..., Any] | None = None,
    on_failure: str | Task[..., Any] | None = None,
) -> Callable[[F], F]:
    """Say how a task is to be run: a decorator, to stand below ``@task``.

    It stores its values on the function, and means nothing to backends of others. What is left out
    comes from the alias's ``OPTIONS``.

    Args:
        timeout: Seconds that one attempt may run, more than 0 and at most 4,294,967.295; or a
            ``timedelta``; or ``math.inf`` for no limit, whatever the alias says.
        max_attempts: How often the task may be tried, the first time included: 1 to 1,000.
        backoff: Called as ``backoff(exception, task_result)`` after a failed attempt. Returns how
            long to wait for the next one, in seconds or as a ``timedelta``, or ``None`` to give up.
        retry_on: The exception class, or several, after which the task is tried again.
        never: Those of them after which it is not.
        retry_lost: Whether it is tried again when its worker died, or was killed at the time
            limit. Such a task may do part of its work twice.
        unique: Which of its tasks are the same, so that only one of them waits or runs: ``True``,
            those with the same arguments; the name of a parameter, or a tuple of names, those with
            the same values there, ``()`` all of them; a function that is called with the task's
            arguments, those for which it returns the same, unless that is ``None``.
        on_conflict: What `enqueue` does where the same task waits or runs already: ``"existing"``
            (the default) returns the result of that one, ``"raise"`` raises ``AlreadyEnqueued``.
        group: The name of the group that its tasks are in, unless `in_group` says another.
        then: The task that follows each of them that succeeds, of the same backend: its import
            path, or itself. It is called with the id of the result.
        on_failure: The same for each that does not, however it ends: failed for good, lost,
            stopped at a limit or cancelled.

    Returns:
        A decorator that returns the function itself.

    Raises:
        InvalidTask: A value is of a wrong type or out of range, or ``@task`` stands below.
    """
    return _decorator(
        {
            "timeout": timeout,
            "max_attempts": max_attempts,
            "backoff": backoff,
            "retry_on": retry_on,
            "never": never,
            "retry_lost": retry_lost,
            "unique": unique,
            "on_conflict": on_conflict,
            "group": group,
            "then": then,
            "on_failure": on_failure,
        }
    )


def run_limits(
    function: object, timeout_s: float | None, grace_s: float, *, max_attempts: int = 1,
    retry_lost: bool = False,
) -> int:  # fmt: skip
    """Return the `time_limit_word` of a task with this function.

    Args:
        function: The task's; what it says itself counts first.
        timeout_s: Its alias's, as are the others.
        grace_s: How long it may take to stop.
        max_attempts: How often it may be tried.
        retry_lost: Whether that is so when its worker died, too.
    """
    own = policy_of(function)
    if own.timeout is not None:
        timeout_s = None if own.timeout == math.inf else own.timeout
    if own.max_attempts is not None:
        max_attempts = own.max_attempts
    if own.retry_lost is not None:
        retry_lost = own.retry_lost
    return time_limit_word(timeout_s, grace_s, max_attempts if retry_lost else 0)


def time_limit_of(function: object, options: Options) -> int:
    """Return the `time_limit_word` of a task with this function, in an alias with these options."""
    return run_limits(
        function, options.timeout, options.timeout_grace, max_attempts=options.max_attempts,
        retry_lost=options.retry_lost,
    )  # fmt: skip


def retries_of(alias: str, function: object) -> Retries | None:
    """Return how often a task with this function is tried, and after what; ``None`` for once.

    Args:
        alias: Its backend's; what the function says itself counts first.
        function: The task's.
    """
    options = getattr(task_backends[alias], "checked_options", None)
    if options is None:  # TASKS names another backend by now
        return None
    own, given = policy_of(function), options.retries
    retries = Retries(
        *(
            getattr(given, each.name) if (said := getattr(own, each.name)) is None else said
            for each in fields(Retries)
        )
    )
    return retries if retries.max_attempts > 1 else None


def policy_of(function: object) -> Policy:
    """Return what a task's function says of how it is to be run."""
    found: Policy = getattr(function, _ATTRIBUTE, NO_POLICY)
    return found


def set_policy(function: Callable[..., Any], words: dict[str, Any]) -> None:
    """Check some words of a policy and store them on a function, beside those that are there.

    Raises:
        InvalidTask: A word is unknown, wrong or there already with another value.
    """
    where = f"{function.__module__}.{function.__qualname__}"
    policy = policy_of(function)
    values = {field.name: getattr(policy, field.name) for field in fields(Policy)}
    for name, value in words.items():
        if value is None:
            continue
        try:
            checked = _VALIDATORS[name](value)
        except ValueError as error:
            raise InvalidTask(f"Task {where}: {name}={value!r}: {error}.") from None
        if values[name] not in (None, checked):
            raise InvalidTask(
                f"Task {where}: {name} is {values[name]!r} in one place and {checked!r} in another."
            )
        values[name] = checked
    if unknown := missing_parameter(function, values["unique"]):
        raise InvalidTask(
            f"Task {where}: unique={values['unique']!r}: it has no parameter {unknown!r}."
        )
    function.__dict__[_ATTRIBUTE] = Policy(**values)
    if isfunction(function):
        functions.add(function)


def split_words(keywords: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the words of a policy among these keywords of ``@task``, and the others."""
    words = {name: value for name, value in keywords.items() if name in _VALIDATORS}
    return words, {name: value for name, value in keywords.items() if name not in words}


def checked_timeout(value: object) -> float:
    """Return a time limit in seconds.

    Raises:
        ValueError: It is none; the text says what is wanted.
    """
    wanted = (
        "it must be a number of seconds or a timedelta, more than 0 and at most "
        f"{LONGEST_TIMEOUT_S:,}, or math.inf for no limit"
    )
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{wanted}, not of type {type(value).__name__}")
    if not 0 < value <= LONGEST_TIMEOUT_S and value != math.inf:
        raise ValueError(wanted)
    return float(value)


def _follow_up(value: object) -> str:
    if isinstance(value, Task):
        value = f"{value.func.__module__}.{value.func.__qualname__}"
    if isinstance(value, str) and "." in value and all(map(str.isidentifier, value.split("."))):
        return value
    raise ValueError('it must be a task, or its import path, as in "reports.tasks.send"')


# By field of `Policy`: returns the value to keep, or raises ValueError.
_VALIDATORS: Final[dict[str, Callable[[object], Any]]] = {
    "timeout": checked_timeout,
    "unique": checked_unique,
    "on_conflict": checked_conflict,
    "group": checked_group,
    "then": _follow_up,
    "on_failure": _follow_up,
    **RETRY_WORDS,
}


def _decorator[F: Callable[..., Any]](words: dict[str, Any]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        if isinstance(function, Task):
            raise InvalidTask(
                f"Task {function.module_path}: @policy stands above @task; it must stand below it."
            )
        if not hasattr(function, "__dict__"):
            raise InvalidTask(f"@policy is for functions of Python, and {function!r} is not one.")
        set_policy(function, words)
        return function

    return decorate
