"""What is timed, in terms of Django's public task API alone.

The same functions therefore run on any backend, and `compare.py` runs them in other virtual
environments too, where this package is not installed. Each returns plain numbers: seconds for
one span, or a list of nanoseconds with one entry per call.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from django.core.signals import request_started
from django.tasks import TaskResult, TaskResultStatus, task_backends

from bench_tasks import consume, noop, produce, spin, stamp
from contenders.work import blob

# Pause between two looks at a result. Shorter ones would take the interpreter lock away from
# the threads that upstream's pools need to make progress.
POLL_S = 0.00002
# At the end of a burst only the last results are looked at: backends may keep only the newest.
TAIL = 100
UNFINISHED = (TaskResultStatus.READY, TaskResultStatus.RUNNING)


def wait(
    result: TaskResult[..., Any], poll_s: float = POLL_S, limit_s: float = 120
) -> TaskResult[..., Any]:
    """Poll until the task has ended; do not poll for one that ran inside enqueue.

    Raises:
        RuntimeError: The task failed, or took longer than `limit_s`.
    """
    backend = task_backends[result.backend]
    give_up = time.monotonic() + limit_s
    if result.status in UNFINISHED:
        result = backend.get_result(result.id)
    while result.status in UNFINISHED:
        if time.monotonic() > give_up:
            raise RuntimeError(f"{result.id} is still {result.status} after {limit_s} s")
        time.sleep(poll_s)
        result = backend.get_result(result.id)
    if result.status == TaskResultStatus.FAILED:
        raise RuntimeError(result.errors[0].traceback)
    return result


def burst(alias: str, tasks: int, cpu_ms: float = 0) -> dict[str, Any]:
    """Enqueue `tasks` as fast as possible, then wait until they are done."""
    clock = time.perf_counter_ns
    job, args = (
        (spin.using(backend=alias), (cpu_ms,)) if cpu_ms else (noop.using(backend=alias), ())
    )
    results, enqueue_ns = [], []
    begin = before = clock()
    for _ in range(tasks):
        results.append(job.enqueue(*args))
        after = clock()
        enqueue_ns.append(after - before)
        before = after
    enqueued = clock()
    for result in reversed(results[-TAIL:]):
        wait(result, poll_s=0.001)
    return {
        "seconds": (clock() - begin) / 1e9,
        "enqueue_s": (enqueued - begin) / 1e9,
        "enqueue_ns": enqueue_ns,
    }


def round_trips(alias: str, times: int) -> dict[str, list[int]]:
    """Run one task at a time: from the call of enqueue to return, start, finish and being seen.

    `start` is taken in the task's body, since not every backend records it; `finish` is what the
    result says.
    """
    job = stamp.using(backend=alias)
    enqueue, start, finish, seen = [], [], [], []
    for _ in range(times):
        wall, begin = time.time_ns(), time.monotonic_ns()
        result = job.enqueue()
        enqueue.append(time.monotonic_ns() - begin)
        result = wait(result)
        seen.append(time.monotonic_ns() - begin)
        start.append(result.return_value - begin)
        assert result.finished_at is not None
        finish.append(int(result.finished_at.timestamp() * 1e9) - wall)
    return {"enqueue": enqueue, "start": start, "finish": finish, "seen": seen}


def round_trips_under_load(
    alias: str, times: int, tasks_per_s: float, cpu_ms: float
) -> dict[str, list[int]]:
    """Do the same while a thread of this process enqueues CPU tasks at a steady rate."""
    stop = threading.Event()

    def enqueue_steadily() -> None:
        job, due = spin.using(backend=alias), time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            job.enqueue(cpu_ms)
            due += 1 / tasks_per_s

    thread = threading.Thread(target=enqueue_steadily)
    thread.start()
    try:
        return round_trips(alias, times)
    finally:
        stop.set()
        thread.join()


def returned(alias: str, size_bytes: int, times: int) -> dict[str, list[int]]:
    """Time a large return value: the whole round trip, and from `return` to `return_value`."""
    job = produce.using(backend=alias)
    whole, transfer = [], []
    for _ in range(times):
        begin = time.monotonic_ns()
        made, data = wait(job.enqueue(size_bytes)).return_value
        now = time.monotonic_ns()
        whole.append(now - begin)
        transfer.append(now - made)
        if len(data) != size_bytes:
            raise RuntimeError(f"{len(data)} bytes came back instead of {size_bytes}")
    return {"whole": whole, "transfer": transfer}


def passed(alias: str, size_bytes: int, times: int) -> dict[str, list[int]]:
    """Time a large argument: from the call of enqueue until the body has it."""
    job, data = consume.using(backend=alias), blob(size_bytes)
    enqueue, transfer = [], []
    for _ in range(times):
        begin = time.monotonic_ns()
        result = job.enqueue(data)
        enqueue.append(time.monotonic_ns() - begin)
        transfer.append(wait(result).return_value - begin)
    return {"enqueue": enqueue, "transfer": transfer}


def reads(alias: str, times: int) -> list[int]:
    """Time `get_result` of one small finished result, in the process that enqueued it."""
    result_id = wait(stamp.using(backend=alias).enqueue()).id
    clock, get_result, spans = time.perf_counter_ns, task_backends[alias].get_result, []
    for _ in range(times):
        begin = clock()
        get_result(result_id)
        spans.append(clock() - begin)
    return spans


def serve_request() -> None:
    """Become a web process in the eyes of the backends: they attach at the first request."""
    list(task_backends.all())  # made at their first use, as in any web process
    request_started.send(sender=serve_request)
