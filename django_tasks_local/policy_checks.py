"""System checks of policies: words of a task that contradict each other, or have no effect.

No decorator can tell: ``@task(...)`` may add the word that is missing, and ``OPTIONS`` another.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from django.core.checks import Warning
from django.tasks import Task

from .options import Options
from .policies import NO_POLICY, Policy, functions, policy_of

type Classes = tuple[type[BaseException], ...]

_OF_RETRIES = ("backoff", "retry_on", "never", "retry_lost")
# What decides whether there is another attempt.
_DECIDING = ("max_attempts", "retry_on", "never", "retry_lost")


def warnings(alias: str, options: Options) -> Iterator[Warning]:
    """Yield what is wrong with the policies of an alias's tasks, of those that are imported.

    Args:
        alias: The alias.
        options: Its options.
    """
    if _never_tried_again(NO_POLICY, options):
        yield Warning(
            f"TASKS[{alias!r}]['OPTIONS']: MAX_ATTEMPTS is {options.max_attempts}, and no task "
            "without words of its own is tried again: NEVER takes back all of RETRY_ON.",
            hint="Leave out of NEVER what RETRY_ON names, or leave MAX_ATTEMPTS out.",
            id="django_tasks_local.W005",
        )
    for task in sorted(_tasks(alias), key=lambda task: task.module_path):
        own = policy_of(task.func)
        if own.on_conflict is not None and own.unique is None:
            yield Warning(
                f"Task {task.module_path}: on_conflict={own.on_conflict!r} has no effect, since "
                "the task is not unique.",
                hint="Add unique=True, or what makes two of its tasks the same; or leave "
                "on_conflict out.",
                id="django_tasks_local.W002",
            )
        attempts = options.max_attempts if own.max_attempts is None else own.max_attempts
        words = [word for word in _OF_RETRIES if getattr(own, word) not in (None, False)]
        if attempts == 1 and words:
            yield Warning(
                f"Task {task.module_path}: {', '.join(words)} {_have(words)} no effect, since "
                f"{_source(own)} is 1: the task is tried once.",
                hint="Set max_attempts, which counts the first attempt too; or leave the other "
                "words out.",
                id="django_tasks_local.W003",
            )
        decides = any(getattr(own, word) is not None for word in _DECIDING)
        if decides and _never_tried_again(own, options):
            yield Warning(
                f"Task {task.module_path}: it may be tried {attempts} times, and is never tried "
                f"again: never={_names(own.never, options.never)} takes back all of "
                f"retry_on={_names(own.retry_on, options.retry_on)}.",
                hint="Leave out of never what retry_on names, or set max_attempts=1.",
                id="django_tasks_local.W005",
            )


def _tasks(alias: str) -> Iterator[Task[..., Any]]:
    """Yield the tasks whose functions have a policy, as those find them that run them."""
    for function in list(functions):
        found = getattr(sys.modules.get(function.__module__), function.__qualname__, None)
        if isinstance(found, Task) and found.func is function and found.backend == alias:
            yield found


def _never_tried_again(own: Policy, options: Options) -> bool:
    """Return whether several attempts are allowed, and ``never`` leaves no end for another."""
    attempts = options.max_attempts if own.max_attempts is None else own.max_attempts
    lost = options.retry_lost if own.retry_lost is None else own.retry_lost
    retry_on = options.retry_on if own.retry_on is None else own.retry_on
    never = options.never if own.never is None else own.never
    taken_back = bool(retry_on) and all(issubclass(each, never) for each in retry_on)
    return attempts > 1 and not lost and taken_back


def _names(own: Classes | None, given: Classes) -> str:
    classes = given if own is None else own
    return f"({', '.join(each.__name__ for each in classes)})"


def _have(words: list[str]) -> str:
    return "has" if len(words) == 1 else "have"


def _source(own: Policy) -> str:
    return "its max_attempts" if own.max_attempts else "the MAX_ATTEMPTS of its alias"
