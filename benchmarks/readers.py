"""What the reading and writing processes of `get_result.py` do."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

from django.tasks import TaskResult, TaskResultStatus, task_backends
from django.utils import timezone

from bench_tasks import hold, noop
from django_tasks_local import ProcessPoolBackend
from workloads import wait

# Enough timed calls for a p99, few enough to send as one line of JSON.
KEPT_SPANS = 5000


def waiting(alias: str) -> list[str]:
    """Return the id of a task that stays READY: it is due in an hour."""
    return [noop.using(backend=alias, run_after=timezone.now() + timedelta(hours=1)).enqueue().id]


def running(alias: str, gate: str) -> list[str]:
    """Return the id of a task that stays RUNNING until the file `gate` is removed."""
    return [held(alias, gate).id]


def held(alias: str, gate: str, priority: int = 0) -> TaskResult[..., Any]:
    """Keep one worker busy until the file `gate` is removed."""
    result = hold.using(backend=alias, priority=priority).enqueue(gate)
    backend = task_backends[alias]
    while backend.get_result(result.id).status != TaskResultStatus.RUNNING:
        time.sleep(0.0005)
    return result


def finished(alias: str, count: int) -> list[str]:
    """Return the ids of `count` finished no-ops, the newest last."""
    job = noop.using(backend=alias)
    results = [job.enqueue() for _ in range(count)]
    for result in results:
        wait(result)
    return [result.id for result in results]


def construct(times: int) -> list[int]:
    """Time Django's own `TaskResult` from ready-made fields: the floor under any `get_result`."""
    now, spans, clock = timezone.now(), [], time.perf_counter_ns
    for _ in range(times):
        begin = clock()
        TaskResult(
            task=noop,
            id="0" * 36,
            status=TaskResultStatus.SUCCESSFUL,
            enqueued_at=now,
            started_at=now,
            finished_at=now,
            last_attempted_at=now,
            args=[],
            kwargs={},
            backend="default",
            errors=[],
            worker_ids=["worker"],
        )
        spans.append(clock() - begin)
    return spans


def process_backend(alias: str) -> ProcessPoolBackend:
    """Return the backend of an alias, for what Django's base class does not have."""
    backend = task_backends[alias]
    assert isinstance(backend, ProcessPoolBackend)
    return backend


def read(alias: str, ids: list[str], times: int) -> list[int]:
    """Time `times` calls of get_result, over `ids` in random order."""
    return timed(task_backends[alias].get_result, ids, times)


def read_ring(alias: str, ids: list[str], times: int) -> list[int]:
    """Time the store below get_result, which makes no result of Django's."""
    return timed(process_backend(alias).site().ring.get, ids, times)


def timed(get: Callable[[str], object], ids: list[str], times: int) -> list[int]:
    """Return each call's nanoseconds."""
    spans, clock = [], time.perf_counter_ns
    for result_id in Random(0).choices(ids, k=times):
        begin = clock()
        get(result_id)
        spans.append(clock() - begin)
    return spans


def read_for(alias: str, ids: list[str], seconds: float) -> dict[str, float | list[int]]:
    """Read as fast as possible for a while."""
    get_result, spans, clock = task_backends[alias].get_result, [], time.perf_counter_ns
    order = itertools.cycle(Random(0).sample(ids, len(ids)))
    begin = before = clock()
    end = begin + int(seconds * 1e9)
    while before < end:
        get_result(next(order))
        after = clock()
        spans.append(after - before)
        before = after
    rate = len(spans) / (before - begin) * 1e9
    return {"reads_per_s": rate, "spans": spans[:: len(spans) // KEPT_SPANS + 1]}


def write_for(alias: str, seconds: float, batch: int = 50) -> float:
    """Enqueue and finish no-ops without a pause; return tasks per second."""
    job, count = noop.using(backend=alias), 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        wait([job.enqueue() for _ in range(batch)][-1])
        count += batch
    return count / (time.perf_counter() - begin)
