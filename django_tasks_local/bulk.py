"""Enqueue many tasks at once, as plain functions that take a task of any backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.tasks import Task

from django_tasks_local.naming import enqueues_as_django

if TYPE_CHECKING:
    from django.tasks import TaskResult

    from django_tasks_local.naming import AnyTask

# The arguments of one of them, as `Task.enqueue` would take them.
type Call = tuple[Iterable[Any], Mapping[str, Any]]


def enqueue_many(task: AnyTask, calls: Iterable[Call]) -> list[TaskResult[..., Any]]:
    """Enqueue ``task`` once for each pair of arguments: all of these or, with an exception, none.

    Priority, ``run_after`` and metadata are those of the task: set them with ``task.using(…)``. It
    takes at most a third of the time of as many calls of ``enqueue``, and no other process waits
    for it longer than for one. ``task_enqueued`` is sent for each, once all are stored.

    A unique task that waits or runs already stands for those that are the same: its result takes
    their places, as the first one's does among the calls themselves.

    On backends of others it is a loop of ``enqueue``, which an exception ends in the middle.

    Args:
        task: Of any backend.
        calls: Pairs ``(args, kwargs)``.

    Returns:
        The results, in the order of the calls.

    Raises:
        TypeError: ``task`` is not a task, or one of ``calls`` is not such a pair.
        InvalidTask: Its backend cannot run it.
        ValueError: Some arguments cannot be pickled (ProcessPoolBackend), or the task is unique
            and the key of some cannot be made.
        AlreadyEnqueued: One of these unique tasks waits or runs, or two of the calls are the same,
            and its policy says "raise".
        PayloadTooLarge: Some arguments or the metadata do not fit the store.
        QueueFull: With all of them more than MAX_PENDING tasks would wait.
        StoreUnavailable: The store cannot be used.
    """
    if not isinstance(task, Task):
        raise TypeError(
            f"{task!r} is not a task but of type {type(task).__name__}. "
            "Decorate the function with @task of django.tasks."
        )
    pairs = [_checked(number, call) for number, call in enumerate(calls)]
    backend: Any = task.get_backend()
    if hasattr(backend, "enqueue_many") and enqueues_as_django(task):
        results: list[TaskResult[..., Any]] = backend.enqueue_many(task, pairs)
        return results
    return [task.enqueue(*args, **kwargs) for args, kwargs in pairs]


async def aenqueue_many(task: AnyTask, calls: Iterable[Call]) -> list[TaskResult[..., Any]]:
    """Do what `enqueue_many` does, in a thread."""
    return await sync_to_async(enqueue_many, thread_sensitive=True)(task, calls)


def _checked(number: int, call: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        args, kwargs = call
        if type(args) is tuple and type(kwargs) is dict:  # as most are
            return args, dict(**kwargs)
        if isinstance(args, str | bytes | Mapping):
            raise TypeError
        return tuple(args), dict(**kwargs)
    except (TypeError, ValueError):
        raise TypeError(
            f"calls[{number}] is {str(call)[:200]!r}. It must be a pair (args, kwargs): a list or "
            "tuple, and a dict with strings for keys."
        ) from None
