"""What the admin does to tasks: cancel them, and enqueue them again."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.utils.translation import gettext as _

from django_tasks_local.again import enqueue_again
from django_tasks_local.exceptions import LocalTasksError, StoreUnavailable
from django_tasks_local.inspection.text import harmless

from .aliases import find

if TYPE_CHECKING:
    from django_tasks_local.inspection.records import Row

    from .aliases import ShownAlias


class Verb(StrEnum):
    """An action, by its name in forms. The permission for it is that name and ``_task``."""

    CANCEL = "cancel"
    RETRY = "retry"


class Done(NamedTuple):
    """What came of an action on one task.

    Attributes:
        path: The task's import path; its id where there is no such task.
        says: What was done to it, or why nothing was, in a few words.
        new_id: The id of the task that was enqueued again; ``""`` for none.
        succeeded: Whether anything was done.
        is_unusable: Whether the ring could not be used: others would have to wait for as long.
    """

    path: str
    says: str
    new_id: str = ""
    succeeded: bool = False
    is_unusable: bool = False


def act(verb: Verb, result_id: str) -> Done:
    """Do to one task what is asked for, and return what came of it. It raises nothing for a task.

    Args:
        verb: What.
        result_id: To which task.
    """
    try:
        found = find(result_id)
        if found is None:
            raise TaskResultDoesNotExist(result_id)
        alias, row = found
        return _cancel(alias, row) if verb is Verb.CANCEL else _retry(row)
    except TaskResultDoesNotExist:
        return Done(harmless(result_id), _("There is no such task, or no longer"))
    except StoreUnavailable as error:
        return Done(harmless(result_id), harmless(str(error)), is_unusable=True)
    except (ImproperlyConfigured, InvalidTask, LocalTasksError, ValueError) as error:
        return Done(harmless(result_id), harmless(str(error)))


def _cancel(alias: ShownAlias, row: Row) -> Done:
    path = harmless(row.result.task.module_path)
    if not alias.backend.cancel(row.result.id):
        return Done(path, _("Had ended already"))
    says = _("Cancelled") if _has_ended(alias, row.result.id) else _("Asked to stop")
    return Done(path, says, succeeded=True)


def _has_ended(alias: ShownAlias, result_id: str) -> bool:
    assert alias.look is not None
    try:
        return bool(alias.look.find(result_id).finished_at_ns)
    except TaskResultDoesNotExist:  # evicted since
        return True


def _retry(row: Row) -> Done:
    path, again = harmless(row.result.task.module_path), enqueue_again(row.result)
    return Done(path, _("Enqueued again"), again.id, succeeded=True)
