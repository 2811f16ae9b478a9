"""Enqueue when the open transaction is committed: a worker must find what was written before it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.tasks import Task

from django_tasks_local.naming import enqueues_as_django
from django_tasks_local.own_backend import OwnBackend

if TYPE_CHECKING:
    from django_tasks_local.naming import AnyTask


def enqueue_on_commit(
    task: AnyTask, /, *args: Any, using: str | None = None, **kwargs: Any
) -> None:
    """Enqueue ``task`` once the open transaction is committed, and never if it is rolled back.

    Outside a transaction it is enqueued at once. It works with any backend. What is wrong with the
    task is raised here, and with this package's backends also what is wrong with the arguments:
    ProcessPoolBackend pickles them now, so the task gets them as they are now. A timedelta in
    ``run_after`` counts from the commit.

    There is no result to return yet. Where the caller needs one, use
    ``transaction.on_commit(lambda: ...)`` and keep it there.

    Args:
        task: Of any backend.
        args: Its positional arguments.
        using: The alias of the database; ``None``: the default one. A parameter of the task with
            this name can only be given by position.
        kwargs: Its keyword arguments.

    Raises:
        TypeError: ``task`` is not a task.
        InvalidTask: Its backend cannot run it.
        ValueError: The arguments cannot be pickled (ProcessPoolBackend).
        StoreUnavailable: The store of this package's backend cannot be used.
        TransactionManagementError: Django's, with autocommit switched off and no ``atomic`` block.

    What the enqueue itself raises, as ``QueueFull``, comes out of the end of the ``atomic`` block,
    when the transaction is committed already.
    """
    if not isinstance(task, Task):
        raise TypeError(
            f"{task!r} is not a task but of type {type(task).__name__}. "
            "Decorate the function with @task of django.tasks."
        )
    backend: Any = task.get_backend()
    backend.validate_task(task)
    is_ours = isinstance(backend, OwnBackend)
    prepared = backend.prepare(task, args, kwargs) if is_ours else None
    transaction.on_commit(partial(_enqueue, task, args, kwargs, prepared), using=using)


def _enqueue(
    task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any], prepared: object
) -> None:
    backend: Any = task.get_backend()
    prepares = prepared is not None and isinstance(backend, OwnBackend)
    if prepares and enqueues_as_django(task):
        backend.enqueue_prepared(task, args, kwargs, prepared)
    else:
        task.enqueue(*args, **kwargs)
