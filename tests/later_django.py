"""What a later Django has: metadata, as on its development line, and a field nobody knows yet.

Where DTL_TESTS_ADDED_FIELD is set, `conftest` and, for pools, `settings` import this module before
the package looks at Django's classes. It has as much of the feature as backends see.
"""

import functools
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import django.tasks
import django.tasks.backends.base
import django.tasks.backends.dummy
import django.tasks.backends.immediate
import django.tasks.base
from asgiref.sync import sync_to_async
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.exceptions import InvalidTask
from django.utils.json import normalize_json

_using: Any = django.tasks.base.Task.using


def _of_users(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key[:1] != "_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(django.tasks.base.Task):  # type: ignore[type-arg]
    """Django's, with metadata."""

    metadata: dict[str, Any] = field(default_factory=dict, hash=False)

    def using(self, *, metadata: Any = None, **changes: Any) -> Any:
        """As Django has it: metadata is replaced, and validated with the rest."""
        task: Any = _using(self, **changes)
        return task if metadata is None else replace(task, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult(django.tasks.base.TaskResult):  # type: ignore[type-arg, misc]
    """Django's, with metadata, and a field without a default."""

    raw_metadata: dict[str, Any] = field(default_factory=dict)
    added: str = field(init=False, default="as Django has it")

    @property
    def metadata(self) -> dict[str, Any]:
        """What users see."""
        return _of_users(self.raw_metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """Django's, which looks at the new field."""

    task_result: TaskResult
    metadata: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", deepcopy(self.task_result.metadata))

    @property
    def attempt(self) -> int:
        """As Django has it."""
        return self.task_result.attempts

    @property
    def metadata_modified(self) -> bool:
        """Whether there is anything to save."""
        return self.metadata != self.task_result.metadata

    def save_metadata(self) -> None:
        """As Django has it: through the backend, then in the result."""
        metadata = self._to_save()
        backend: Any = self.task_result.task.get_backend()
        backend.save_metadata(self.task_result, metadata)
        object.__setattr__(self.task_result, "raw_metadata", metadata)

    async def asave_metadata(self) -> None:
        """Likewise."""
        metadata = self._to_save()
        backend: Any = self.task_result.task.get_backend()
        await backend.asave_metadata(self.task_result, metadata)
        object.__setattr__(self.task_result, "raw_metadata", metadata)

    def _to_save(self) -> Any:
        raw = self.task_result.raw_metadata
        kept = {key: value for key, value in raw.items() if key[:1] == "_"}
        return normalize_json(kept | _of_users(self.metadata))


def save_metadata(self: Any, task_result: Any, metadata: dict[str, Any]) -> None:
    """A backend's own business."""
    raise NotImplementedError


async def asave_metadata(self: Any, task_result: Any, metadata: dict[str, Any]) -> None:
    """As `save_metadata`."""
    await sync_to_async(self.save_metadata)(task_result, metadata)


_validate_task = BaseTaskBackend.validate_task


@functools.wraps(_validate_task)
def validate_task(self: Any, task: Any) -> None:
    """As Django has it: what no backend may be given."""
    _validate_task(self, task)
    if not isinstance(task.metadata, dict):
        raise InvalidTask("metadata must be a dict.")
    if task.metadata and not self.supports_metadata:
        raise InvalidTask("Backend does not support metadata.")
    if not all(isinstance(key, str) for key in task.metadata):
        raise InvalidTask("metadata keys must be strings.")
    try:
        normalize_json(task.metadata)
    except (TypeError, ValueError) as error:
        raise InvalidTask(f"metadata must be JSON-serializable: {error}") from error


for name, value in {
    "supports_metadata": False, "task_class": Task, "validate_task": validate_task,
    "save_metadata": save_metadata, "asave_metadata": asave_metadata,
}.items():  # fmt: skip
    setattr(BaseTaskBackend, name, value)

for module in (
    django.tasks,
    django.tasks.base,
    django.tasks.backends.base,
    django.tasks.backends.dummy,
    django.tasks.backends.immediate,
):
    for new in (Task, TaskResult, TaskContext):
        if hasattr(module, new.__name__):
            setattr(module, new.__name__, new)
