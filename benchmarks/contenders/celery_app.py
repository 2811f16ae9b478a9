"""Celery on Redis; two prefork workers, results in Redis, as JSON: its default."""

import os
from typing import Any

from celery import Celery

from . import work

app = Celery("benchmarks", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BROKER"])
app.conf.broker_connection_retry_on_startup = True
LIMIT_S = 60
TASKS = {
    "noop": app.task(work.noop, name="noop"),
    "produce": app.task(work.produce, name="produce"),
}


def enqueue(task: str, *args: object) -> Any:
    """Enqueue."""
    return TASKS[task].delay(*args)


def value(handle: Any) -> object:
    """Wait as Celery does: it subscribes to the result."""
    return handle.get(timeout=LIMIT_S)


def key(handle: Any) -> str:
    """Return the task id."""
    return str(handle.id)


def read(key: str) -> object:
    """Read the result again, past Celery's cache."""
    return app.backend.get_task_meta(key, cache=False)
