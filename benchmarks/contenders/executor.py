"""`concurrent.futures.ProcessPoolExecutor`: no Django, no status, no result for anybody else."""

from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor

from . import work

TASKS: dict[str, Callable[..., object]] = {"noop": work.noop, "produce": work.produce}
pool = ProcessPoolExecutor(max_workers=2)
futures: dict[int, Future[object]] = {}


def enqueue(task: str, *args: object) -> Future[object]:
    """Submit."""
    return pool.submit(TASKS[task], *args)


def value(handle: Future[object]) -> object:
    """Wait as futures do."""
    return handle.result()


def key(handle: Future[object]) -> int:
    """Return a number that means something in this process only."""
    futures[id(handle)] = handle
    return id(handle)


def read(key: int) -> object:
    """Read the value again."""
    return futures[key].result()
