"""The tasks by which functions and their hooks run, and the backend on which they do."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.tasks import DEFAULT_TASK_BACKEND_ALIAS, Task, task, task_backends

from django_tasks_local.chains import previous_result
from django_tasks_local.metadata import with_metadata
from django_tasks_local.naming import copy_task
from django_tasks_local.own_backend import OwnBackend
from django_tasks_local.policies import policy

from .paths import find
from .task import FACTS, facts_of
from .task import Task as Ended

if TYPE_CHECKING:
    from django_tasks_local.naming import AnyTask

SETTING: Final = "DJANGO_TASKS_LOCAL_Q_BACKEND"


def q_alias() -> str:
    """Return the key in ``TASKS`` of the backend on which the tasks of this module run.

    Raises:
        ImproperlyConfigured: There is none.
    """
    chosen: str | None = getattr(settings, SETTING, None)
    for alias in task_backends if chosen is None else [chosen]:
        if isinstance(task_backends[alias], OwnBackend):
            return str(alias)
    raise ImproperlyConfigured(
        f"django_tasks_local.contrib.q finds no backend of django_tasks_local in TASKS, where "
        f"{SETTING} is {chosen!r}: name the alias of a ThreadPoolBackend or a ProcessPoolBackend "
        "there, or in tests that of an InlineBackend."
    )


def _home() -> str:
    # Without a backend of ours, `async_task` says so; the module can be imported all the same.
    with suppress(ImproperlyConfigured):
        return q_alias()
    return DEFAULT_TASK_BACKEND_ALIAS


_HOME: Final = _home()


@task(backend=_HOME)
def run_callable(path: str, args: tuple[Any, ...], kwargs: dict[str, Any], place: int = 0) -> Any:
    """Call what an import path leads to: the task that `async_task` enqueues.

    Args:
        path: See `find`.
        args, kwargs: What to call it with.
        place: Where in its `async_iter` this call is; for the order of the results.
    """
    found = find(path)
    if isinstance(found, Task):
        found = found.func
    return (async_to_sync(found) if iscoroutinefunction(found) else found)(*args, **kwargs)


@task(backend=_HOME)
def run_hook(result_id: str) -> None:
    """Call the hook of the task that this one follows."""
    ended = previous_result()
    assert ended is not None
    find(facts_of(ended)["hook"])(Ended(ended))


@task(backend=_HOME)
@policy(then=run_hook, on_failure=run_hook)
def run_callable_with_hook(*args: Any) -> Any:
    """Do what `run_callable` does; `run_hook` follows, however it ends."""
    return run_callable.func(*args)


def task_with(facts: dict[str, Any]) -> AnyTask:
    """Return the task that runs a callable, with what is noted about it.

    Raises:
        ImproperlyConfigured: TASKS has no backend for it.
    """
    return copy_task(_task(q_alias(), "hook" in facts), metadata={FACTS: facts})


@cache
def _task(alias: str, has_hook: bool) -> AnyTask:
    made: Any = run_callable_with_hook if has_hook else run_callable
    # Of a class that has metadata, on every Django.
    return with_metadata(made.using(backend=alias), {FACTS: {}})
