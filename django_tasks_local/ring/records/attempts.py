"""The attempts of a record as readers show them: with workers by their names."""

from functools import lru_cache

from django_tasks_local.attempts import Past
from django_tasks_local.ring.format.head import Head


def named(past: Past[int], alias: str) -> Past[str]:
    """Return a history with worker ids in place of numbers."""
    workers = tuple(worker_id(alias, worker) for worker in past.workers)
    return Past(workers, past.errors, past.first_started_at_ns, past.last_started_at_ns)


def current_worker(head: Head, alias: str, past: Past[str] | None) -> str:
    """Return the worker of a record's present or last attempt, unless its history has that.

    It has between the two stores of a retry, and for good where a death came between them.
    """
    if not head.worker:
        return ""
    name = worker_id(alias, head.worker)
    told = past and (past.last_started_at_ns, past.workers[-1]) == (head.started_at_ns, name)
    return "" if told else name


@lru_cache(1024)  # arbitrary: a ring has far fewer workers at a time
def worker_id(alias: str, worker: int) -> str:
    """Return what a worker is called, by its pid << 32 | serial."""
    return f"{alias}-{worker >> 32}-{worker & 0xFFFFFFFF}"
