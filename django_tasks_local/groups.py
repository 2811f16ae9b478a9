"""Groups: a name that several tasks share, by which they are listed and waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from django.tasks.exceptions import TaskResultDoesNotExist

from .listing import own_backend, results
from .stopping import check_cancelled
from .ties import checked_group
from .waiting import await_finished, seconds_of, wait_finished

if TYPE_CHECKING:
    from .result import LocalTaskResult

# The group of what is enqueued here, "" for none.
current_group: Final[ContextVar[str]] = ContextVar("django_tasks_local_current_group", default="")

# Between two looks where no task imports in this process.
_PAUSE_S: Final = 0.5


@contextmanager
def in_group(name: str) -> Iterator[None]:
    """Put the tasks that are enqueued in a ``with`` block into a group.

    A group is a name and nothing more: it needs no declaration, and ends with its last result.
    Tasks may join at any time, from any process. It counts before the one in the task's policy. On
    backends of others it does nothing.

    What runs inside a task that the block enqueues is not in the block.

    Args:
        name: Not empty, and at most 200 bytes long as UTF-8.

    Raises:
        ValueError: The name is empty or too long.
    """
    try:
        name = checked_group(name)
    except ValueError as error:
        raise ValueError(f"group {name!r}: {error}.") from None
    token = current_group.set(name)
    try:
        yield
    finally:
        current_group.reset(token)


def wait_group(
    name: str, backend: str = "default", timeout: float | timedelta | None = None
) -> list[LocalTaskResult]:
    """Block until no task of a group waits or runs, and return their results, the latest end first.

    What follows a task belongs to its group: a chain, or a task with ``then``, is over when the
    last of them is. Results that were evicted, or have expired, are not among those returned. A
    group in which there is no task is over.

    Args:
        name: The group's.
        backend: The key in ``TASKS``.
        timeout: Seconds or a timedelta; ``None``: wait for as long as it takes.

    Raises:
        TimeoutError: Some have not ended in time. They go on.
        RuntimeError: Called inside a task of the same backend, as by `wait_finished`.
        ImproperlyConfigured: That backend is none of this package, or its options are wrong.
        InvalidTaskBackend: ``backend`` is not a key of ``TASKS``.
        StoreUnavailable: The store cannot be used.
    """
    wait = _Wait(name, backend, timeout)
    while wait.goes_on():
        if wait.result is None:
            time.sleep(_PAUSE_S)
        else:
            with suppress(TaskResultDoesNotExist, TimeoutError):  # which the next look tells
                wait_finished(wait.result, wait.left_s())
        check_cancelled()  # a task's own time limit is a TimeoutError, too
    return results(backend, group=name, limit=None)


async def await_group(
    name: str, backend: str = "default", timeout: float | timedelta | None = None
) -> list[LocalTaskResult]:
    """Do what `wait_group` does, for an event loop, which goes on with other work meanwhile."""
    wait = _Wait(name, backend, timeout)
    while await asyncio.to_thread(wait.goes_on):
        if wait.result is None:
            await asyncio.sleep(_PAUSE_S)
        else:
            with suppress(TaskResultDoesNotExist, TimeoutError):
                await await_finished(wait.result, wait.left_s())
        check_cancelled()
    return await asyncio.to_thread(results, backend, group=name, limit=None)


class _Wait:
    """One wait for a group.

    Attributes:
        result: A task of it that has not ended; ``None`` where none of them imports here.
    """

    result: LocalTaskResult | None

    def __init__(self, name: str, alias: str, timeout: object) -> None:
        try:
            self._name = checked_group(name)
        except ValueError as error:
            raise ValueError(f"group {name!r}: {error}.") from None
        self._backend = own_backend(alias)
        self._alias = alias
        self._limit_s = seconds_of(timeout)
        self._began = time.monotonic()

    def goes_on(self) -> bool:
        """Return whether a task of the group has not ended; `result` is then one of these.

        Raises:
            TimeoutError: There is one, and the time is up.
        """
        ids = self._backend.unfinished_in(self._name)
        if ids and self.left_s() == 0:
            raise TimeoutError(
                f"Group {self._name!r}: {len(ids)} of its tasks in backend {self._alias!r} have "
                f"not ended after {self._limit_s:g} s, the timeout of this wait. They go on."
            )
        self.result = None
        for result_id in ids:
            with suppress(TaskResultDoesNotExist):
                self.result = self._backend.get_result(result_id)
                break
        return bool(ids)

    def left_s(self) -> float | None:
        """Return how many seconds are left; ``None``: any number."""
        if self._limit_s is None:
            return None
        return max(0.0, self._limit_s - (time.monotonic() - self._began))
