"""The line in the log for a task that was lost with its worker."""

import logging

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.store import task_path

from .loss import worker_lost
from .reader import Reader
from .table import Table

logger = logging.getLogger("django_tasks_local")


def log_loss(reader: Reader, table: Table, slot: int) -> None:
    """Say which task was lost, and why; outside the lock (rule 9): log handlers may do anything."""
    head = table.head(slot)
    result_id = format_id(head.id_high, head.id_low)
    try:
        found = reader.find(result_id)
    except (TaskResultDoesNotExist, StoreUnavailable):
        return  # evicted since, or damaged
    if found.state == at.LOST:
        logger.error(
            "alias=%s Task id=%s path=%s was lost: %s", reader.alias, result_id,
            task_path(found.meta), worker_lost(found.head),
        )  # fmt: skip
