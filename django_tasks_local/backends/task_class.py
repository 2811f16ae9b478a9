"""The tasks of our backends, where Django hands unknown keywords of ``@task`` to their class.

Django 6.0 does not, and `policy` is then the only way to say the same.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from django.tasks import Task, task

from django_tasks_local.metadata import TASK_CLASS as WITH_METADATA
from django_tasks_local.policies import set_policy, split_words

if TYPE_CHECKING:
    _Task = Task[..., Any]
else:
    _Task = WITH_METADATA


class LocalTask(_Task):
    """A task with metadata, made with the words of `policy` among its keywords.

    They are stored on the function, where `policy` stores them. So two spellings have one truth,
    and a task has no further fields.
    """

    __slots__ = ()

    def __init__(self, **keywords: Any) -> None:
        words, fields = split_words(keywords)
        super().__init__(**fields)
        if words:
            set_policy(self.func, words)


# Whether `@task(timeout=…)` comes as far as the class.
HAS_KEYWORDS: Final = any(
    parameter.kind is parameter.VAR_KEYWORD
    for parameter in inspect.signature(task).parameters.values()
)
TASK_CLASS: Final[type[Task[..., Any]]] = LocalTask if HAS_KEYWORDS else WITH_METADATA
