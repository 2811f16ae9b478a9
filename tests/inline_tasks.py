"""Sample tasks for InlineBackend alone: they use the test's connections, or wait for each other."""

from __future__ import annotations

from typing import Any

from django.db import connection, transaction
from django.tasks import TaskContext, task, task_backends

from django_tasks_local import metadata_of, wait_finished


@task(takes_context=True)
def wait_for_other(context: TaskContext[Any, Any]) -> None:
    """Wait for the result whose id stands in the metadata."""
    backend = task_backends[context.task_result.backend]
    wait_finished(backend.get_result(metadata_of(context)["other"]))


@task
def use_a_transaction() -> bool:
    """Say whether it runs inside one, and open another in there."""
    outer = connection.in_atomic_block
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return outer


@task
def fail_in_a_transaction() -> None:
    with transaction.atomic():
        raise ValueError("on purpose")
