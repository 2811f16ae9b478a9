"""What the processes of `bulk.py` do."""

from __future__ import annotations

import time
from typing import Any

from bench_tasks import noop
from django_tasks_local import enqueue_many, results


def enqueue(alias: str, way: str, tasks: int) -> float:
    """Return the microseconds that each of so many tasks takes."""
    job = noop.using(backend=alias)
    calls: list[tuple[Any, Any]] = [((), {})] * tasks
    begin = time.perf_counter()
    if way == "enqueue_many":
        found = enqueue_many(job, calls)
    else:
        found = [job.enqueue(*args, **kwargs) for args, kwargs in calls]
    took = time.perf_counter() - begin
    assert len(found) == tasks
    return took / tasks * 1e6


def drain(alias: str) -> None:
    """Wait until nothing waits or runs."""
    while results(alias, status="READY", limit=1) or results(alias, status="RUNNING", limit=1):
        time.sleep(0.01)
