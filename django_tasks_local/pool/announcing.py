"""The ends of tasks that were lost with their workers, announced by another worker of the pool.

A worker runs code of the project anyway, and may die of it: then the pool starts another one. The
pool, which settles the dead, runs none.
"""

import logging
from contextvars import copy_context

from django.tasks.signals import task_finished

from django_tasks_local.announce import announce
from django_tasks_local.execution import current_result_id
from django_tasks_local.naming import add_metadata, load_task
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.ring import Found, lost_error
from django_tasks_local.task_connections import close_old, end_transactions

logger = logging.getLogger("django_tasks_local")


def announce_loss(lost: Found, alias: str, backend_class: type) -> None:
    """Send `task_finished` for a lost task, as after a task that has run here.

    Args:
        lost: Its record, which no other process announces.
        alias: The backend's key in ``TASKS``.
        backend_class: The sender.
    """
    held = close_old()
    try:
        copy_context().run(_announce, lost, alias, backend_class)
    except BaseException:  # code of the project
        logger.exception("Task id=%s: its end cannot be announced", lost.result_id)
    finally:
        end_transactions(lost, held)
        close_old()


def _announce(lost: Found, alias: str, backend_class: type) -> None:
    current_result_id.set(lost.result_id)
    task = add_metadata(load_task(lost.meta), lost.metadata)
    result = LocalTaskResult.from_record(lost, alias, task)
    error = lost_error(lost.head)
    try:
        raise error  # receivers look for it in sys.exc_info()
    except type(error):
        announce(task_finished, backend_class, result)
