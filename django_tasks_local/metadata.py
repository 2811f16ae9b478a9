"""Metadata of tasks, on every Django: checked, made JSON, handed to a task, saved while it runs.

Names and rules are those of Django's development line. Where this Django has no metadata, the
backends of this package bring a `Task` and a `TaskContext` that have them; nothing of Django's own
is changed. Which Django that is shows in what it has, not in its version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, cast

from asgiref.sync import sync_to_async
from django.tasks import Task, TaskContext, task_backends
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.exceptions import InvalidTask
from django.utils.json import normalize_json

if TYPE_CHECKING:
    type AnyTask = Task[..., Any]
    _Task = Task[..., Any]
    _TaskContext = TaskContext[..., Any]
else:
    _Task, _TaskContext = Task, TaskContext

# Keys that begin so belong to backends and libraries: kept, and neither shown nor written by tasks.
RESERVED_PREFIX: Final = "_"
# A Task that is Django's own has the field where its backends know of it.
DJANGO_HAS_METADATA: Final = hasattr(BaseTaskBackend, "supports_metadata")


def encode(metadata: Mapping[str, Any]) -> bytes:
    """Return metadata as JSON, b"" where there is none; `decode` is the way back.

    Raises:
        TypeError: It is no dict, a key is no string, or a value has no form in JSON.
        ValueError: A value is not UTF-8, or is nested too deeply.
    """
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict. It is of type {type(metadata).__name__}.")
    if not metadata:
        return b""
    for key in metadata:
        if not isinstance(key, str):
            raise TypeError(f"metadata keys must be strings. {key!r} is not.")
    try:
        return json.dumps(normalize_json(metadata), separators=(",", ":")).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply, or contains itself") from error


def decode(data: bytes) -> dict[str, Any]:
    """Return the metadata that `encode` has made JSON of; each call makes new objects."""
    metadata: dict[str, Any] = json.loads(data) if data else {}
    return metadata


def encode_of(task: AnyTask) -> bytes:
    """Return the metadata of a task as JSON.

    Raises:
        InvalidTask: It cannot be stored.
    """
    metadata = getattr(task, "metadata", None)
    return b"" if metadata is None or metadata == {} else _encode_for(task, metadata)


def _encode_for(task: AnyTask, metadata: Any) -> bytes:
    try:
        return encode(metadata)
    except (TypeError, ValueError) as error:
        text = str(error)
        if not text.startswith("metadata "):
            text = f"metadata must be JSON-serializable: {text}"
        raise InvalidTask(f"Task {task.module_path}: {text}") from error


def shown(raw_metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tasks and users see of metadata: all but the reserved keys."""
    return {
        key: value
        for key, value in raw_metadata.items()
        if not str(key).startswith(RESERVED_PREFIX)  # what is no string is refused later
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTask(_Task):
    """A task with metadata, for a Django whose own has none."""

    metadata: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _Task.__post_init__(self)
        if self.metadata and not _supports_metadata(self):
            raise InvalidTask(f"Task {self.module_path}: its backend does not support metadata.")

    def using(self, *, metadata: dict[str, Any] | None = None, **changes: Any) -> Any:
        """Return a copy with other fields. New metadata replaces the old, ``{}`` clears it."""
        task: Any = _Task.using(self, **changes)
        return task if metadata is None else replace(task, metadata=metadata)


# Of this class, or one made of it, is what the decorator makes where the backend is one of ours.
TASK_CLASS: Final[Any] = Task if DJANGO_HAS_METADATA else LocalTask


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTaskContext(_TaskContext):  # type: ignore[misc]  # frozen in Django, not in stubs
    """What a task with ``takes_context`` is given.

    Attributes:
        metadata: A copy of the task's metadata without the reserved keys, to be changed at will.
            It is saved at the end of the task, however that ends, and by `save_metadata`.
    """

    metadata: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", deepcopy(shown(self._raw_metadata)))

    @property
    def metadata_modified(self) -> bool:
        """Whether there is anything to save."""
        return self.metadata != shown(self._raw_metadata)

    def save_metadata(self) -> None:
        """Save the metadata now, for all who read the result.

        Raises:
            TypeError: A value has no form in JSON; likewise ``ValueError``.
            PayloadTooLarge: There is no room for it.
        """
        metadata = self._metadata_to_save()
        self._backend.save_metadata(self.task_result, metadata)
        object.__setattr__(self.task_result, "raw_metadata", metadata)

    async def asave_metadata(self) -> None:
        """Do what `save_metadata` does, in a thread."""
        await sync_to_async(self.save_metadata, thread_sensitive=True)()

    @property
    def _raw_metadata(self) -> dict[str, Any]:
        raw_metadata: dict[str, Any] = getattr(self.task_result, "raw_metadata", {})
        return raw_metadata

    @property
    def _backend(self) -> Any:
        # The alias of the result, where Django takes the task's: see `LocalTaskResult.refresh`.
        return task_backends[self.task_result.backend]

    def _metadata_to_save(self) -> dict[str, Any]:
        old = self._raw_metadata
        hidden = {key: old[key] for key in old.keys() - shown(old).keys()}
        return decode(encode(hidden | shown(self.metadata)))


def with_metadata[T: Task[..., Any]](task: T, metadata: dict[str, Any]) -> T:
    """Return ``task`` with this metadata, on any backend and any Django.

    It is ``task.using(metadata=metadata)`` where that works. A task whose backend knows no
    metadata, such as ``ImmediateBackend`` in tests with Django 6.1, is returned as it is.

    Raises:
        InvalidTask: The metadata is not a dict with string keys, or cannot be stored as JSON.
    """
    if not _supports_metadata(task):
        _encode_for(task, metadata)  # what is wrong there is wrong here
        return task
    noted: Any = task
    if not hasattr(task, "metadata"):  # decorated for a foreign backend, which has another class
        noted = LocalTask(**{each.name: getattr(task, each.name) for each in fields(task)})
    return cast(T, noted.using(metadata=metadata))


def _supports_metadata(task: AnyTask) -> bool:
    return bool(getattr(task.get_backend(), "supports_metadata", False))


def metadata_of(thing: object) -> dict[str, Any]:
    """Return the metadata of a task's context, a result or a task, of any backend and any Django.

    Where there is none, a dict that is not kept: so that a task may write
    ``metadata_of(context)["rows"] = 7`` and still run on ``ImmediateBackend``.
    """
    metadata: dict[str, Any] | None = getattr(thing, "metadata", None)
    return {} if metadata is None else metadata
