"""What the site of `scaling.py` does: it keeps rings full and queues long."""

import pickle
import time
from collections import deque
from itertools import islice
from pathlib import Path
from random import Random

from django.tasks import TaskResultStatus, task_backends
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.exceptions import TaskResultDoesNotExist

from bench_tasks import noop
from django_tasks_local.naming import encode_task
from django_tasks_local.ring import Ring
from readers import held, process_backend, read
from workloads import UNFINISHED, round_trips, wait

# Arguments and return value of a no-op, as the ring holds them.
NOTHING = pickle.dumps(((), {}))
NO_OUTCOME = pickle.dumps(None)

# By alias, oldest first: finished ids that the ring still keeps, and ids that wait.
kept: dict[str, deque[str]] = {}
queued: dict[str, deque[str]] = {}


def enqueue(alias: str, tasks: int) -> tuple[list[str], list[int]]:
    """Enqueue no-ops; return their ids, and nanoseconds for each call."""
    job, ids, spans, clock = noop.using(backend=alias), [], [], time.perf_counter_ns
    for _ in range(tasks):
        begin = clock()
        result = job.enqueue()
        spans.append(clock() - begin)
        ids.append(result.id)
    return ids, spans


def finish(alias: str, tasks: int) -> tuple[list[int], float]:
    """Enqueue and finish no-ops; return spans of enqueue, and tasks per second."""
    begin = time.perf_counter()
    ids, spans = enqueue(alias, tasks)
    wait(task_backends[alias].get_result(ids[-1]), poll_s=0.0005)
    kept[alias].extend(ids)
    return spans, tasks / (time.perf_counter() - begin)


def fill(alias: str, size: int) -> None:
    """Keep `size` finished records, and evict some more.

    They go through the store's own door in this process, which is what a worker does, only
    without the tasks; a million tasks would take minutes.
    """
    ring = process_backend(alias).site().ring
    # Of these ids only the newer half is read later: they are kept for certain.
    kept[alias] = deque((add_finished(ring) for _ in range(size + size // 10)), maxlen=size // 2)


def add_finished(ring: Ring) -> str:
    """Take one record through its whole life: enqueue, claim, finish."""
    result_id, _ = ring.enqueue(encode_task(noop), NOTHING, priority=0, due_ns=0)
    claim = ring.claim()
    if claim is not None:  # else a worker was faster
        ring.finish(claim, successful=True, outcome=NO_OUTCOME)
    return result_id


def full_ring(alias: str, tasks: int) -> dict[str, float | list[int]]:
    """Run one round on a full ring: an eviction follows every enqueue."""
    spans, rate = finish(alias, tasks)
    trips = round_trips(alias, max(10, tasks // 10))
    finish(alias, 1)
    ids = Random(0).sample(list(kept[alias]), min(tasks, len(kept[alias])))
    return {
        "enqueue_us": spans,
        "tasks_per_s": rate,
        "round_trip_us": trips["seen"],
        "read_newest_us": read(alias, [kept[alias][-1]], tasks),
        "read_older_us": read(alias, ids, tasks),
    }


def lengthen(alias: str, gate: str, length: int) -> None:
    """Hold the only worker and enqueue until `length` tasks wait."""
    Path(gate).touch()
    held(alias, gate, priority=100)
    waiting = queued.setdefault(alias, deque())
    backend = task_backends[alias]
    while waiting and not is_waiting(backend, waiting[0]):
        waiting.popleft()
    waiting.extend(enqueue(alias, length - len(waiting))[0])


def is_waiting(backend: BaseTaskBackend, result_id: str) -> bool:
    """Return whether the task has not ended: a result that was evicted has."""
    try:
        return backend.get_result(result_id).status == TaskResultStatus.READY
    except TaskResultDoesNotExist:
        return False


def long_queue(alias: str, gate: str, length: int, tasks: int) -> dict[str, float | list[int]]:
    """Run one round: enqueue behind the queue, read waiting tasks, let the oldest run, fill up."""
    ids, spans = enqueue(alias, tasks)
    waiting = queued[alias]
    waiting.extend(ids)
    reads = read(alias, Random(0).choices(ids, k=tasks), tasks)
    backend = task_backends[alias]
    last = next(islice(waiting, tasks - 1, None))
    begin = time.perf_counter()
    Path(gate).unlink()
    while backend.get_result(last).status in UNFINISHED:
        time.sleep(0.0005)
    seconds = time.perf_counter() - begin
    lengthen(alias, gate, length)
    return {"enqueue_us": spans, "read_waiting_us": reads, "drained_per_s": tasks / seconds}
