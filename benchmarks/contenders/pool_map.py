"""`multiprocessing.Pool.imap_unordered`: the least that a task in another process costs in Python.

No Django, no status, and no result for any process but the one that asked.
"""

from collections.abc import Callable
from multiprocessing import Pool
from multiprocessing.pool import AsyncResult

from . import work

TASKS: dict[str, Callable[..., object]] = {"noop": work.noop, "produce": work.produce}
pool = Pool(2)
results: dict[int, AsyncResult[object]] = {}


def enqueue(task: str, *args: object) -> AsyncResult[object]:
    """Send one."""
    return pool.apply_async(TASKS[task], args)


def run_all(count: int) -> None:
    """Send no-ops one by one, as fast as the pool takes them, and wait for all."""
    for _ in pool.imap_unordered(work.noop_of, range(count), chunksize=1):
        pass


def value(handle: AsyncResult[object]) -> object:
    """Wait."""
    return handle.get()


def key(handle: AsyncResult[object]) -> int:
    """Return a number that means something in this process only."""
    results[id(handle)] = handle
    return id(handle)


def read(key: int) -> object:
    """Read the value again."""
    return results[key].get()
