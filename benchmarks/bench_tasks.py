"""The tasks that the benchmarks enqueue."""

import os
import time

from django.tasks import task

from contenders import work


@task
def noop() -> None:
    """Do nothing: what is left is the cost of the machinery."""


@task
def spin(cpu_ms: float) -> None:
    """Use `cpu_ms` milliseconds of CPU, however long the scheduler takes to grant them."""
    clock = time.thread_time_ns
    end = clock() + int(cpu_ms * 1_000_000)
    while clock() < end:
        pass


@task
def stamp() -> int:
    """Return the moment at which this body ran, on the clock all processes of the host share."""
    return time.monotonic_ns()


@task
def nap(seconds: float) -> None:
    """Sleep."""
    time.sleep(seconds)


@task
def hold(gate: str) -> None:
    """Stay RUNNING until the file `gate` is gone, without using CPU worth mentioning."""
    while os.path.exists(gate):
        time.sleep(0.002)


@task
def pids() -> tuple[int, int]:
    """Return the pid of this process and of its parent: for a worker, the pool."""
    return os.getpid(), os.getppid()


@task
def produce(size_bytes: int, text: bool = False) -> tuple[int, bytes | str]:
    """Return data of `size_bytes`, and the moment of returning it."""
    return work.produce(size_bytes, text)


@task
def consume(data: bytes | str) -> int:
    """Take `data` and return the moment at which it was in hand."""
    return time.monotonic_ns() if data else 0
