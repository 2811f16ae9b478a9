"""What `floors.py` times: each function returns the nanoseconds of every call."""

from __future__ import annotations

import mmap
import os
import pickle
import time
import zlib
from collections.abc import Callable
from typing import Any

import posix_ipc
from django.tasks import Task, TaskResult, TaskResultStatus
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.signals import task_enqueued, task_finished, task_started

from bench_tasks import noop
from readers import process_backend

MOVES = 5
# Long enough for a process that waits to be asleep, and its core idle.
REST_S = 0.001


class StoresNothing(BaseTaskBackend):
    """What Django asks of any backend, and nothing else."""

    def enqueue(self, task: Task[..., Any], args: Any, kwargs: Any) -> Any:
        """Tell the receivers; the task was validated when it was made."""
        task_enqueued.send(type(self), task_result=RESULT)
        return RESULT


RESULT = TaskResult(
    task=noop,
    id="0" * 36,
    status=TaskResultStatus.READY,
    enqueued_at=None,
    started_at=None,
    finished_at=None,
    last_attempted_at=None,
    args=[],
    kwargs={},
    backend="nothing",
    errors=[],
    worker_ids=[],
)


def timed(call: Callable[[], object], times: int) -> list[int]:
    """Return each call's nanoseconds."""
    clock, spans = time.perf_counter_ns, []
    for _ in range(times):
        begin = clock()
        call()
        spans.append(clock() - begin)
    return spans


def enqueue(times: int) -> list[int]:
    """Time `Task.enqueue` down to a backend that stores nothing."""
    return timed(noop.using(backend="nothing").enqueue, times)


def log_records(times: int) -> list[int]:
    """Time the signals of a task's start and end, with Django's own receivers."""

    def both() -> None:
        task_started.send_robust(StoresNothing, task_result=RESULT)
        task_finished.send_robust(StoresNothing, task_result=RESULT)

    return timed(both, times)


def pickle_small(times: int) -> list[int]:
    """Time pickling the arguments of a no-op."""
    return timed(lambda: pickle.dumps(((), {}), protocol=5), times)


def unpickle_small(times: int) -> list[int]:
    """Time unpickling them."""
    data = pickle.dumps(((), {}), protocol=5)
    return timed(lambda: pickle.loads(data), times)


def empty_operation(times: int) -> list[int]:
    """Time the way into the ring's lock and out; enqueue, claim and finish each do it once."""
    mutex = process_backend("process").site().ring._mutex
    return timed(lambda: mutex.run(int), times)


def wake_up(times: int) -> list[int]:
    """Time from a semaphore's post to the process that it wakes: half a round trip."""
    there, back = (posix_ipc.Semaphore(None, posix_ipc.O_CREX) for _ in range(2))
    there.unlink()
    back.unlink()
    child = os.fork()
    if not child:
        for _ in range(times):
            there.acquire()
            back.release()
        os._exit(0)
    spans = []
    for _ in range(times):
        time.sleep(REST_S)
        begin = time.perf_counter_ns()
        there.release()
        back.acquire()
        spans.append((time.perf_counter_ns() - begin) // 2)
    os.waitpid(child, 0)
    return spans


def sleep_20_us(times: int) -> list[int]:
    """Time the poller's pause, as long as it really is."""
    return timed(lambda: time.sleep(0.00002), times)


def copy_to_present_pages(mib: int) -> list[int]:
    """Time a copy into memory that this process has written to before."""
    data, target = os.urandom(mib * 2**20), memoryview(bytearray(b"x" * (mib * 2**20)))

    def copy() -> None:
        target[:] = data

    return timed(copy, MOVES)


def copy_to_fresh_pages(mib: int) -> list[int]:
    """Time a copy into shared memory that nobody has touched."""
    data, spans = os.urandom(mib * 2**20), []
    for _ in range(MOVES):
        with mmap.mmap(-1, len(data)) as fresh:
            begin = time.perf_counter_ns()
            fresh[:] = data
            spans.append(time.perf_counter_ns() - begin)
    return spans


def crc32(mib: int) -> list[int]:
    """Time the CRC once; each side computes it."""
    data = os.urandom(mib * 2**20)
    return timed(lambda: zlib.crc32(data), MOVES)


def pickle_bytes(mib: int) -> list[int]:
    """Time pickle.dumps and pickle.loads, as a pool without shared memory needs them."""
    data = os.urandom(mib * 2**20)
    return timed(lambda: pickle.loads(pickle.dumps(data, protocol=5)), MOVES)
