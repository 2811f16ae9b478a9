"""huey, on SQLite or Redis; two consumer processes."""

import os
import time
from typing import Any

from huey import RedisHuey, SqliteHuey

from . import work

where = os.environ["BENCH_BROKER"]
if where.startswith("redis://"):
    huey = RedisHuey("benchmarks", url=where)
else:
    huey = SqliteHuey("benchmarks", filename=where)
POLL_S = 0.00002
LIMIT_S = 60


@huey.task()  # type: ignore[untyped-decorator]
def noop() -> bool:
    """Return something: huey keeps no result of a task that returns None."""
    return True


TASKS = {"noop": noop, "produce": huey.task()(work.produce)}


def enqueue(task: str, *args: object) -> Any:
    """Enqueue."""
    return TASKS[task](*args)


def value(handle: Any) -> object:
    """Poll: huey's own blocking wait begins with a pause of 100 ms."""
    give_up = time.monotonic() + LIMIT_S
    while (found := handle.get(preserve=True)) is None:
        if time.monotonic() > give_up:
            raise TimeoutError(f"no result within {LIMIT_S} s")
        time.sleep(POLL_S)
    return found


def key(handle: Any) -> str:
    """Return the task id."""
    return str(handle.id)


def read(key: str) -> object:
    """Read the value again."""
    return huey.result(key, preserve=True)
