"""Groups and follow-ups, in a store in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.tasks import TaskResultStatus

from django_tasks_local.memory_record import Record

if TYPE_CHECKING:
    from threading import Lock


class Tied:
    """A part of `MemoryStore`."""

    record_class: type[Record]
    encode: Callable[[object], Any]
    _lock: Lock
    _records: dict[str, Record]
    _let_workers_go: Callable[[], None]

    def unfinished_in(self, group: str) -> list[str]:
        """Return the ids of a group's tasks that wait or run; see ``store.StoreClient``."""
        self._let_workers_go()
        with self._lock:
            return [
                record.result_id
                for record in self._records.values()
                if record.ties.group == group and not record.finished_at_ns
            ]

    def following(self, result_id: str) -> str:
        """Return the id of the task that follows another one; ``""`` where none is there."""
        with self._lock:
            return next(
                (each.result_id for each in self._records.values() if each.ties.after == result_id),
                "",
            )

    def _follow_up(self, record: Record, status: TaskResultStatus) -> Record | None:
        """Return the record of what follows such an end; ``None`` for nothing."""
        successful = status is TaskResultStatus.SUCCESSFUL
        follow_up = record.ties.next(successful=successful)
        if follow_up is None:
            return None
        arguments = follow_up.arguments
        if arguments is None:
            arguments = self.encode(((record.result_id,), {}))
        made = self.record_class(
            follow_up.meta, arguments, follow_up.priority, follow_up.time_limit
        )
        made.ties = record.ties.passed_on(follow_up, record.result_id)
        return made


def restore_follow_ups(records: dict[str, Record]) -> None:
    """Make sure that what follows the records that have ended is there; see ``memory``."""
    for record in list(records.values()):
        if record.follow_up is not None:
            if record.status not in (TaskResultStatus.READY, TaskResultStatus.RUNNING):
                records.setdefault(record.follow_up.result_id, record.follow_up)
            record.follow_up = None
