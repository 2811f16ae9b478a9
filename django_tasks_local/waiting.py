"""Wait for the end of a task, whatever its backend: woken by ours, by polling on others."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from django.tasks import task_backends

from django_tasks_local.own_backend import OwnBackend
from django_tasks_local.stopping import check_cancelled

if TYPE_CHECKING:
    from django.tasks import TaskResult

# Between two looks of a process that sleeps: a worker that is killed right after it has ended a
# task wakes no other process, and the process that looks settles a dead worker without a pool.
# And how soon a task in a thread that waits sees that it is to stop.
CHUNK_S: Final = 0.5
# Pauses between two looks where nobody can wake us grow with the time that has passed, so that a
# wait lasts at most a tenth longer than the task.
SHARE_OF_ELAPSED: Final = 0.1
# In an event loop, over our own backends: a look takes microseconds.
FIRST_ASYNC_PAUSE_S: Final = 0.001
LONGEST_ASYNC_PAUSE_S: Final = 0.05
# Over other backends: a look may be a query.
FIRST_FOREIGN_PAUSE_S: Final = 0.005
LONGEST_FOREIGN_PAUSE_S: Final = 1.0


def wait_finished[Result: TaskResult[..., Any]](
    result: Result, timeout: float | timedelta | None = None
) -> Result:
    """Block until the task of ``result`` has ended, and return ``result``, refreshed.

    Results of this package's backends are woken by the end of the task. Those of others are
    refreshed with growing pauses, up to 1 second. A result that shows the end already is returned
    as it is, whatever its backend.

    Inside a task it raises what `check_cancelled` does when that task is cancelled or beyond its
    time limit: in a thread after half a second at most, or 1 second on other backends.

    Args:
        result: Of any backend.
        timeout: Seconds or a timedelta; ``None``: wait for as long as it takes. With 0 or less it
            looks once.

    Raises:
        TimeoutError: The task has not ended in time. It goes on.
        RuntimeError: Called inside a task of the same backend while the tasks of all its other
            workers wait, too, or for the very task that calls it: a deadlock.
        TaskCancelled, TaskTimeout: The task that waits is to stop.
        TaskResultDoesNotExist: The result was evicted, or has expired.
        NotImplementedError: The task has not ended, and its backend cannot read results.
        TypeError: ``timeout`` is neither a number nor a timedelta.
        ValueError: ``timeout`` is not a number (NaN).
    """
    with _Wait(result, timeout) as wait:
        while not wait.is_over():
            result.refresh()
            if not wait.is_over():
                wait.block()
                check_cancelled()
    return result


async def await_finished[Result: TaskResult[..., Any]](
    result: Result, timeout: float | timedelta | None = None
) -> Result:
    """Do what `wait_finished` does, for an event loop, which goes on with other work.

    It looks again and again, with pauses that grow with the time that has passed, up to 50 ms for
    results of this package's backends. It may be cancelled at any time.
    """
    # Not in a thread: a default executor has a handful of them, one for each wait would be taken
    # away from look-ups of host names and the like, and a thread that sleeps cannot be cancelled.
    with _Wait(result, timeout) as wait:
        while not wait.is_over():
            await result.arefresh()
            if not wait.is_over():
                await wait.ablock()
                check_cancelled()
    return result


class _Wait:
    """One wait: what it is for, and how long it has taken.

    Raises:
        NotImplementedError, TypeError, ValueError: As `wait_finished`; on entry RuntimeError.
    """

    def __init__(self, result: TaskResult[..., Any], timeout: object) -> None:
        self._result = result
        self._limit_s = seconds_of(timeout)
        self._began = time.monotonic()
        self._looks = 0
        self._backend: Any = None
        self._is_ours = False
        self._task_id = ""
        if not result.is_finished:
            self._prepare()

    def __enter__(self) -> Self:
        if self._is_ours and self._left_s() > 0:  # one look is no wait
            self._task_id = self._backend.begin_waiting(self._result)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._task_id:
            self._backend.end_waiting(self._task_id)

    def is_over(self) -> bool:
        """Return whether the task has ended.

        Raises:
            TimeoutError: The time is up, and at least one look was made.
        """
        if self._result.is_finished:
            return True
        if self._looks and self._left_s() <= 0:
            result = self._result
            raise TimeoutError(
                f"Task {result.task.module_path}, id={result.id}, is still {result.status} after "
                f"{self._limit_s:g} s, the timeout of this wait. The task goes on."
            )
        self._looks += 1
        return False

    def block(self) -> None:
        """Sleep until a look is worth while."""
        if self._is_ours:
            self._backend.wait_for_change(self._result, min(CHUNK_S, max(0.0, self._left_s())))
        else:
            time.sleep(self._pause_s(FIRST_FOREIGN_PAUSE_S, LONGEST_FOREIGN_PAUSE_S))

    async def ablock(self) -> None:
        """Let the event loop do other work until a look is worth while."""
        if self._is_ours:
            pause_s = self._pause_s(FIRST_ASYNC_PAUSE_S, LONGEST_ASYNC_PAUSE_S)
            await self._backend.await_change(self._result, pause_s)
        else:
            await asyncio.sleep(self._pause_s(FIRST_FOREIGN_PAUSE_S, LONGEST_FOREIGN_PAUSE_S))

    def _prepare(self) -> None:
        result = self._result
        self._backend = backend = task_backends[result.backend]
        if not backend.supports_get_result:
            raise NotImplementedError(
                f"Task {result.task.module_path}, id={result.id}, is {result.status}, and it "
                f"cannot be seen when it ends: task backend {result.backend!r} "
                f"({type(backend).__name__}) does not support reading results."
            )
        self._is_ours = isinstance(backend, OwnBackend) and isinstance(result, backend.result_class)

    def _left_s(self) -> float:
        if self._limit_s is None:
            return math.inf
        return self._limit_s - (time.monotonic() - self._began)

    def _pause_s(self, first_s: float, longest_s: float) -> float:
        elapsed_s = time.monotonic() - self._began
        pause_s = min(longest_s, max(first_s, elapsed_s * SHARE_OF_ELAPSED))
        return min(pause_s, max(0.0, self._left_s()))


def seconds_of(timeout: object) -> float | None:
    """Return a timeout in seconds, ``None`` for none.

    Raises:
        TypeError, ValueError: As `wait_finished`.
    """
    if timeout is None:
        return None
    if isinstance(timeout, timedelta):
        return timeout.total_seconds()
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(
            f"timeout={timeout!r} must be seconds (an int or a float), a timedelta or None, "
            f"not {type(timeout).__name__}."
        )
    if math.isnan(timeout):
        raise ValueError("timeout=nan is not a number of seconds.")
    return float(min(timeout, timedelta.max.total_seconds()))
