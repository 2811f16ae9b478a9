"""What a later Django may do: a ``TaskResult`` with fields that this package does not know.

Where DTL_TESTS_ADDED_FIELD is set, `conftest` and, for pools, `settings` import this module before
the package looks at the class.
"""

from dataclasses import dataclass, field
from typing import Any

import django.tasks
import django.tasks.backends.dummy
import django.tasks.backends.immediate
import django.tasks.base


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult(django.tasks.base.TaskResult):  # type: ignore[type-arg, misc]
    """Django's, with what its development line has added, and a field without a default."""

    metadata: dict[str, Any] = field(default_factory=dict)
    added: str = field(init=False, default="as Django has it")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """Django's, which looks at the new field."""

    task_result: TaskResult
    metadata: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", dict(self.task_result.metadata))

    @property
    def attempt(self) -> int:
        """As Django has it."""
        return self.task_result.attempts


for module in (
    django.tasks,
    django.tasks.base,
    django.tasks.backends.dummy,
    django.tasks.backends.immediate,
):
    for new in (TaskResult, TaskContext):
        if hasattr(module, new.__name__):
            setattr(module, new.__name__, new)
