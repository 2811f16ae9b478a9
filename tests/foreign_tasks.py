"""Tasks with all that this package has to say of them, for any backend."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from django.tasks import TaskContext, task

from django_tasks_local import (
    check_cancelled,
    current_result_id,
    is_cancel_requested,
    metadata_of,
    policy,
    report_progress,
    track,
)


@task
@policy(timeout=60)
def count(rows: int) -> list[Any]:
    """Return what the functions for the inside of tasks say."""
    for row in track(range(rows), message="counting"):
        check_cancelled()
        report_progress(row, rows)
    return [rows, is_cancel_requested(), bool(current_result_id.get(""))]


@task
@policy(timeout=0.01)
async def take_too_long() -> str:
    await asyncio.sleep(0.05)
    return "to its end"


@task(takes_context=True)
@policy(timeout=timedelta(minutes=1))
def note(context: TaskContext[Any, Any], rows: int) -> int:
    metadata_of(context)["rows"] = rows
    return rows


@task
@policy(timeout=60)
def fail() -> None:
    raise ValueError("on purpose")
