"""What a list in the admin is asked for: the parameters of its URL, and what can be chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from django.tasks import TaskResultStatus
from django.utils.translation import gettext_lazy as _

from django_tasks_local.inspection.newest import newest, next_to_run
from django_tasks_local.naming import load_or_stand_in
from django_tasks_local.store import task_path

if TYPE_CHECKING:
    from django_tasks_local.inspection.records import Row

    from .aliases import ShownAlias

PAGE_ROWS: Final = 50
_LAST_PAGE: Final = 1000
# How many tasks of each alias are looked at for the queues and import paths to choose from.
_LOOKED_AT: Final = 500

# By their names in URLs.
STATUSES: Final = {
    "failed": (TaskResultStatus.FAILED, _("Failed")),
    "running": (TaskResultStatus.RUNNING, _("Running")),
    "waiting": (TaskResultStatus.READY, _("Waiting")),
    "successful": (TaskResultStatus.SUCCESSFUL, _("Successful")),
}


class Asked(NamedTuple):
    """The parameters of a list's URL; ``""`` where one is not given, or names nothing.

    Attributes:
        status: A key of `STATUSES`.
        alias: A key of ``TASKS``.
        queue: A queue's name.
        task: A task's import path.
        text: A part of one, or the id of a result.
        page: From 1 on.
    """

    status: str
    alias: str
    queue: str
    task: str
    text: str
    page: int

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Asked:
        """Return what the parameters of a request ask for."""
        status, page = parameters.get("status", ""), parameters.get("p", "1")
        return cls(
            status if status in STATUSES else "",
            parameters.get("alias", ""),
            parameters.get("queue", ""),
            parameters.get("task", ""),
            parameters.get("q", "").strip(),
            min(max(int(page), 1), _LAST_PAGE) if page.isdecimal() and len(page) < 9 else 1,
        )

    @property
    def result_id(self) -> str | None:
        """The id that is searched for, as results have it; ``None`` for another text."""
        try:
            return str(UUID(self.text))
        except ValueError:
            return None

    @property
    def narrows(self) -> bool:
        """Whether more than a status and an alias is asked for."""
        return bool(self.queue or self.task or self.text)

    def rows(self, aliases: Iterable[ShownAlias]) -> tuple[list[Row], bool]:
        """Return the tasks of the page that is asked for, and whether there is a next one."""
        looks = {
            each.name: each.look for each in self.chosen(aliases) if each.look is not None
        }  # fmt: skip
        first = (self.page - 1) * PAGE_ROWS
        wanted: dict[str, Any] = {
            "queue": self.queue or None, "task": self.task or None, "text": self.text,
            "limit": first + PAGE_ROWS,
        }  # fmt: skip
        if self.status == "waiting":
            rows, more = next_to_run(looks, **wanted)
        else:
            status = [STATUSES[self.status][0].value] if self.status else None
            rows, more = newest(looks, status=status, **wanted)
        return rows[first:], more

    def chosen(self, aliases: Iterable[ShownAlias]) -> list[ShownAlias]:
        """Return the aliases whose tasks are asked for."""
        return [each for each in aliases if self.alias in ("", each.name)]


class Choices(NamedTuple):
    """What a list can be narrowed down to."""

    aliases: list[str]
    queues: list[str]
    tasks: list[str]


def choices(aliases: list[ShownAlias], asked: Asked) -> Choices:
    """Return what there is to choose from, and what is chosen: found among the newest tasks."""
    queues, tasks = {asked.queue}, {asked.task}
    for alias in asked.chosen(aliases):
        queues.update(alias.backend.queues)
        listed = alias.look.listed(frozenset(TaskResultStatus), None) if alias.look else ()
        for meta in {found.meta for found in islice(listed, _LOOKED_AT)}:
            tasks.add(task_path(meta))
            queues.add(load_or_stand_in(meta, alias.name).queue_name)
    return Choices([each.name for each in aliases], _printable(queues), _printable(tasks))


def _printable(values: Iterable[str]) -> list[str]:
    # Text in a form is sent as it stands: no escapes can stand for control characters.
    return sorted(value for value in values if value and value.isprintable())
