"""Run what waits on inline backends, and wait for results of any backend, with a limit."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from django.tasks import TaskResultStatus, task_backends
from django.utils import timezone

from django_tasks_local.listing import results
from django_tasks_local.moments import unix_ns
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.waiting import wait_finished

from .backend import InlineBackend

if TYPE_CHECKING:
    from django.tasks import TaskResult

# Longer than any task of a test should take, and shorter than a developer's patience.
TIMEOUT_S: Final = 10.0


def wait_for[Result: TaskResult[..., Any]](
    result: Result, timeout: float | timedelta = TIMEOUT_S
) -> Result:
    """Return ``result`` when its task has ended, refreshed; it may be of any backend.

    On an `InlineBackend` a task that waits is run now, whatever its ``run_after`` says; and so is
    each further attempt of one that is retried. On other backends it is `wait_finished`.

    Args:
        result: The task's.
        timeout: Seconds or a timedelta; 10 seconds by default.

    Raises:
        TimeoutError: The task has not ended in time.
        TaskResultDoesNotExist: The result was evicted, or has expired.
        NotImplementedError: The task has not ended, and its backend cannot read results.
    """
    return wait_finished(result, timeout)


def run_waiting(until: datetime | timedelta | None = None) -> list[LocalTaskResult]:
    """Run the tasks that wait on inline backends, as if their time had come.

    Each of those that wait now runs once, in the order in which workers would take them, alias by
    alias. What they enqueue with a ``run_after``, and what is to be tried again, waits for the next
    call. The clock stays as it is.

    Args:
        until: Leave alone what is deferred beyond this moment: an aware datetime, or a timedelta
            from now. ``None``: none.

    Returns:
        The results of the tasks that were run.
    """
    if isinstance(until, timedelta):
        until = timezone.now() + until
    until_ns = None if until is None else unix_ns(until)
    ran: list[LocalTaskResult] = []
    for alias in task_backends:
        backend = task_backends[alias]
        if isinstance(backend, InlineBackend):
            waiting = results(alias, status=TaskResultStatus.READY, limit=None)
            for result in waiting:
                if backend.run_once(result, until_ns):
                    ran.append(result)
                    backend.run_followers(result.id)
    return ran
