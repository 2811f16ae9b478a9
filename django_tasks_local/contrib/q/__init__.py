"""What django-q calls its tasks by: ``async_task`` and what belongs to it, over our backends."""

from typing import Final, NoReturn

from .chaining import Chain, async_chain
from .enqueueing import async_iter, async_task
from .objects import AsyncTask, Iter
from .reading import (
    count_group,
    failures,
    fetch,
    fetch_group,
    queue_size,
    result,
    result_group,
    successes,
)
from .schedules import schedule
from .task import Task

__all__ = [
    "AsyncTask",
    "Chain",
    "Iter",
    "Task",
    "async_chain",
    "async_iter",
    "async_task",
    "count_group",
    "failures",
    "fetch",
    "fetch_group",
    "queue_size",
    "result",
    "result_group",
    "schedule",
    "successes",
]

_EVICTED = (
    "Results are never deleted by hand: they are evicted (MAX_RESULTS), or expire (RESULT_TTL)."
)
# Names of django-q that there are not here, each with what to do.
NOT_HERE: Final = {
    "delete_group": f"{_EVICTED} Give each run a label of its own.",
    "delete_cached": _EVICTED,
    "get_broker": "There is no broker: leave it out.",
    "Schedule": "Periodic tasks stand in the settings: SCHEDULE in the OPTIONS of the backend.",
    "Success": "successes() returns a list of them.",
    "Failure": "failures() returns a list of them.",
}


def __getattr__(name: str) -> NoReturn:
    if name in NOT_HERE:
        # Not an AttributeError: `from ... import` would drop its text.
        raise ImportError(f"{name} of django-q is not in django_tasks_local. {NOT_HERE[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
