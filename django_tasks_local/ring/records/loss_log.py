"""The line in the log for a task that was lost with its worker."""

import logging

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import StoreUnavailable, TaskCancelled, WorkerLost
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.store import task_path

from .loss import lost_error
from .reader import Reader
from .table import Table

logger = logging.getLogger("django_tasks_local")


def log_loss(reader: Reader, table: Table, slot: int) -> None:
    """Say which task was lost, and why; outside the lock (rule 9): log handlers may do anything."""
    head = table.head(slot)
    result_id = format_id(head.id_high, head.id_low)
    try:
        found = reader.find(result_id)
        path = task_path(found.meta)
    except (TaskResultDoesNotExist, StoreUnavailable):
        return  # evicted since, or damaged
    if found.state == at.LOST:
        error = lost_error(found.head)
        how = "was lost" if isinstance(error, WorkerLost) else "was ended"
        logger.log(
            logging.INFO if isinstance(error, TaskCancelled) else logging.ERROR,
            "alias=%s Task id=%s path=%s %s: %s",
            reader.alias, result_id, path, how, error,
        )  # fmt: skip
