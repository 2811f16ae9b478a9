"""What backends do to tasks, arguments and ids before a store gets them."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.utils import timezone

from django_tasks_local.exceptions import describe, from_a_signal_handler
from django_tasks_local.moments import unix_ns
from django_tasks_local.naming import copy_task
from django_tasks_local.store import Arguments, StoreClient

if TYPE_CHECKING:
    from django_tasks_local.naming import AnyTask


def encode_arguments(store: StoreClient, task: AnyTask, arguments: Arguments) -> Any:
    """Return a task's arguments as ``store`` takes them.

    Raises:
        ValueError: They cannot be pickled.
    """
    try:
        return store.encode(arguments)
    except Exception as error:
        if from_a_signal_handler(error):
            raise  # a time limit, say: this says nothing about the arguments
        raise ValueError(
            f"The arguments of task {task.module_path} cannot be pickled: {describe(error)}. "
            "Pass ids or plain data."
        ) from error


def with_due_time(task: AnyTask) -> tuple[AnyTask, int]:
    """Return ``task`` with a datetime in ``run_after``, and its Unix ns; 0 if that is past."""
    run_after: object = task.run_after
    if isinstance(run_after, timedelta):
        moment = moment_after(run_after)
        task = copy_task(task, run_after=moment)
    else:
        assert isinstance(run_after, datetime)
        moment = run_after
    due_ns = unix_ns(moment)
    return task, 0 if due_ns <= time.time_ns() else due_ns


def moment_after(delay: timedelta) -> datetime:
    """Return the moment so long from now.

    Raises:
        InvalidTask: There is no such date.
    """
    try:
        return timezone.now() + delay
    except OverflowError as error:
        raise InvalidTask(f"run_after={delay!r} is beyond the last date there is.") from error


def text_of(result_id: object) -> str:
    """Return a result's id as text.

    Raises:
        TaskResultDoesNotExist: It is neither a string nor a UUID.
    """
    if isinstance(result_id, str):
        return str.__str__(result_id)  # of a subclass, such as SafeString
    if isinstance(result_id, UUID):
        return str(result_id)
    raise TaskResultDoesNotExist(
        f"No result {str(result_id)[:80]!r}: an id is a string or a UUID, and this is of type "
        f"{type(result_id).__name__}."
    )
