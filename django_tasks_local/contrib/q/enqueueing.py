"""Enqueue any callable, once or for each of many arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.bulk import enqueue_many
from django_tasks_local.groups import in_group
from django_tasks_local.policies import checked_timeout, run_limits
from django_tasks_local.waiting import wait_finished

from .options import split, warn_once
from .paths import path_of
from .running import task_with

if TYPE_CHECKING:
    from django.tasks import TaskResult

    from django_tasks_local.options import Options

    from .task import Task

_NOT_FOR_ITER: Final = "Leave it out, or call async_task() for each element."


def async_task(
    func: str | Callable[..., Any],
    /,
    *args: Any,
    hook: str | Callable[[Task], Any] | None = None,
    group: str | None = None,
    task_name: str | None = None,
    timeout: float | timedelta | None = None,
    sync: bool | None = None,
    q_options: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> str:
    """Enqueue a call of any function that can be imported.

    Other options of django-q (``cluster``, ``broker``, ``save``, ``cached``, ``ack_failure``) mean
    nothing here: each gives a warning, once, which says what to do, and the function does not get
    them.

    Args:
        func: The function, or its import path, such as ``"math.copysign"``. A path is imported
            when the task runs.
        args: What to call it with, as ``kwargs``. With ProcessPoolBackend they are pickled.
        hook: A function, or its import path, to be called with the `Task` once that has ended.
        group: A label, for `result_group` and the like.
        task_name: A name; by default that of the function.
        timeout: Seconds or a timedelta that one attempt may run, ``math.inf`` for no limit; by
            default as ``OPTIONS`` say.
        sync: Whether to wait here for the end.
        q_options: The options above in a dict. They count first, and the function then gets the
            keywords of these names.
        kwargs: What else to call it with.

    Returns:
        The id of the result, for `result` and `fetch`.

    Raises:
        InvalidTask: ``func`` or ``hook`` is a lambda, or another callable without an import path.
        ValueError: ``timeout`` is out of range, or the arguments cannot be pickled.
        ImproperlyConfigured: TASKS has no backend of this package.
        QueueFull, PayloadTooLarge, StoreUnavailable: As ``enqueue`` does.
    """
    given = {
        "hook": hook, "group": group, "task_name": task_name, "timeout": timeout, "sync": sync,
    }  # fmt: skip
    options, kwargs = split(given, kwargs, q_options)
    path = path_of(func)
    (result_id,) = _enqueue(path, [(path, args, kwargs)], options, {})
    return result_id


def async_iter(
    func: str | Callable[..., Any],
    args_iter: Iterable[Any],
    /,
    *,
    task_name: str | None = None,
    timeout: float | timedelta | None = None,
    sync: bool | None = None,
    q_options: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> str:
    """Enqueue a call of a function for each element of an iterable: all of them or none.

    `result` of the id that it returns is the list of what they returned, in the order of the
    iterable, once all have ended; `fetch` gives them as one `Task`. MAX_RESULTS must have room for
    all of them: where one was evicted, there is no list.

    Args:
        func: See `async_task`.
        args_iter: A tuple is the positional arguments of one call, anything else its only one.
        task_name: See `async_task`, as for the others; there is no ``hook`` and no ``group``.
        timeout: The same.
        sync: The same.
        q_options: The same.
        kwargs: What else to call it with, each time.

    Returns:
        An id, for `result` and `fetch`.

    Raises:
        InvalidTask, ValueError, ImproperlyConfigured: As `async_task`.
        QueueFull, PayloadTooLarge, StoreUnavailable: As `async_task`.
    """
    given = {name: kwargs.pop(name, None) for name in ("hook", "group")}
    given |= {"task_name": task_name, "timeout": timeout, "sync": sync}
    options, kwargs = split(given, kwargs, q_options)
    for name in ("hook", "group"):
        if options.pop(name) is not None:
            warn_once(f"async_iter({name}=...)", _NOT_FOR_ITER)
    iter_id, path = str(uuid4()), path_of(func)
    each = [args if isinstance(args, tuple) else (args,) for args in args_iter]
    calls = [(path, args, kwargs, place) for place, args in enumerate(each)]
    _enqueue(path, calls, options | {"group": iter_id}, {"calls": len(calls)})
    return iter_id


def _enqueue(
    path: str, calls: list[tuple[Any, ...]], options: dict[str, Any], facts: dict[str, Any]
) -> list[str]:
    """Enqueue `run_callable` with each of these arguments; return the ids.

    Args:
        path: Of the function.
        calls: The arguments of each.
        options: As `split` returns them.
        facts: What else is noted in the metadata of each.
    """
    hook = options.get("hook")
    noted = {
        "func": path,
        "name": options["task_name"],
        "hook": None if hook is None else path_of(hook),
    } | facts
    task = task_with({name: value for name, value in noted.items() if value is not None})
    pairs: list[tuple[tuple[Any, ...], dict[str, Any]]] = [(each, {}) for each in calls]
    results: list[TaskResult[..., Any]]
    with nullcontext() if options["group"] is None else in_group(options["group"]):
        if options["timeout"] is None:
            results = enqueue_many(task, pairs)
        else:
            backend: Any = task.get_backend()
            limit = _time_limit(backend.checked_options, options["timeout"])
            results = backend.enqueue_many(task, pairs, time_limit=limit)
    if options["sync"]:
        for result in results:
            with suppress(TaskResultDoesNotExist):  # it has ended, and was evicted
                wait_finished(result)
    return [result.id for result in results]


def _time_limit(options: Options, timeout: object) -> int:
    try:
        timeout_s = checked_timeout(timeout)
    except ValueError as error:
        raise ValueError(f"timeout={timeout!r}: {error}.") from None
    return run_limits(
        None, None if timeout_s == math.inf else timeout_s, options.timeout_grace,
        max_attempts=options.max_attempts, retry_lost=options.retry_lost,
    )  # fmt: skip
