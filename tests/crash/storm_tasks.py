"""The tasks of a storm of cancellations: each leaves a line when it starts and when it ends.

And whoever announces its end leaves one in a file of its own.
"""

import select
import time
from typing import Any

from django.dispatch import receiver
from django.tasks import task
from django.tasks.signals import task_finished

from django_tasks_local import current_result_id, policy
from tests.crash.stack_tasks import note


@receiver(task_finished)
def note_end(task_result: Any, **kwargs: Any) -> None:
    """Leaves a line for each end that is announced."""
    note(f"{task_result.args[0]}.told", "told", task_result.id)


@task
def brief(log: str) -> str:
    """Ends about when it is cancelled, or earlier."""
    return _noting(log)


@task
def compute(log: str, for_s: float) -> str:
    """Computes in Python."""
    return _noting(log, compute_s=for_s)


@task
def rest(log: str, for_s: float) -> str:
    """Waits in one system call."""
    return _noting(log, rest_s=for_s)


@task
@policy(timeout=60)
def stubborn(log: str) -> str:
    """Swallows what it is cancelled with: only a kill ends it within its second."""
    give_up = time.monotonic() + 1
    result_id = current_result_id.get()
    note(log, "start", result_id)
    while time.monotonic() < give_up:
        try:
            while time.monotonic() < give_up:
                pass
        except BaseException:
            continue
    note(log, "end", result_id)
    return result_id


def _noting(log: str, compute_s: float = 0.0, rest_s: float = 0.0) -> str:
    result_id = current_result_id.get()
    note(log, "start", result_id)
    until = time.monotonic() + compute_s
    while time.monotonic() < until:
        pass
    select.select([], [], [], rest_s)
    note(log, "end", result_id)
    return result_id
