"""What a pickled result holds: plain values, which need no store to be read."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.tasks import TaskResultStatus

from django_tasks_local.exceptions import ArgumentsDropped
from django_tasks_local.store import PlainSnapshot, Snapshot
from django_tasks_local.ties import Ties

if TYPE_CHECKING:
    from django_tasks_local.store import Arguments


def state_of(
    snapshot: Snapshot, arguments: tuple[list[Any], dict[str, Any]] | ArgumentsDropped,
    outcome: tuple[Any] | None, metadata: bytes,
) -> tuple[Any, ...]:  # fmt: skip
    """Return what `snapshot_of` makes a snapshot of.

    Args:
        snapshot: The record.
        arguments: Its arguments, or why there are none.
        outcome: Its outcome, ``None`` before it has ended.
        metadata: As JSON.
    """
    return (
        snapshot.result_id, snapshot.status.value, snapshot.meta, snapshot.enqueued_at_ns,
        snapshot.started_at_ns, snapshot.finished_at_ns, snapshot.worker_id, arguments, outcome,
        snapshot.past, snapshot.progress, snapshot.loss, metadata, snapshot.cancelled,
        (snapshot.ties.group, snapshot.ties.after),
    )  # fmt: skip


def snapshot_of(state: tuple[Any, ...]) -> Snapshot:
    """Return the snapshot of a result that was pickled."""
    result_id, status, meta, enqueued, started, finished, worker_id, arguments, value = state[:9]
    past, progress, loss, metadata, cancelled, ties = state[9:]
    return PlainSnapshot(
        result_id, TaskResultStatus(status), meta, enqueued, started, finished, worker_id, progress,
        arguments=partial(_given, arguments), outcome=lambda: value[0], loss=loss,
        metadata=metadata, cancelled=cancelled, past=past, ties=Ties(*ties),
    )  # fmt: skip


def _given(arguments: Any) -> Arguments:
    if isinstance(arguments, ArgumentsDropped):
        raise arguments
    given: Arguments = arguments
    return given
