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
from .policies import Policy, functions, policy_of

_OF_RETRIES = ("backoff", "retry_on", "never", "retry_lost")


def warnings(alias: str, options: Options) -> Iterator[Warning]:
    """Yield what is wrong with the policies of an alias's tasks, of those that are imported.

    Args:
        alias: The alias.
        options: Its options.
    """
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


def _tasks(alias: str) -> Iterator[Task[..., Any]]:
    """Yield the tasks whose functions have a policy, as those find them that run them."""
    for function in list(functions):
        found = getattr(sys.modules.get(function.__module__), function.__qualname__, None)
        if isinstance(found, Task) and found.func is function and found.backend == alias:
            yield found


def _have(words: list[str]) -> str:
    return "has" if len(words) == 1 else "have"


def _source(own: Policy) -> str:
    return "its max_attempts" if own.max_attempts else "the MAX_ATTEMPTS of its alias"
