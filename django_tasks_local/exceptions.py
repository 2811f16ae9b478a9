"""The package's exceptions. Each makes its text from facts, which stay readable as attributes."""

from __future__ import annotations

from typing import Any


class LocalTasksError(Exception):
    """Base class of what this package raises on its own account. Never raised directly."""

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception pickles as its class called with args, and args here is the finished text.
        # So the text and the facts travel as they are, and no constructor runs a second time.
        return _rebuild, (type(self), self.args, self.__dict__)


class QueueFull(LocalTasksError):
    """As many tasks are waiting as the backend accepts.

    Attributes:
        alias: the backend's key in ``TASKS``.
        waiting: tasks that were waiting (READY) at that moment.
        limit: how many may wait, or how many bytes what waits may take.
        option: the option that sets the limit, ``MAX_PENDING`` or ``SHM_SIZE``.
    """

    def __init__(self, alias: str, waiting: int, limit: int, option: str = "MAX_PENDING") -> None:
        self.alias = alias
        self.waiting = waiting
        self.limit = limit
        self.option = option
        unit = "" if option == "MAX_PENDING" else " bytes"
        super().__init__(
            f"Task backend {alias!r} has {waiting:,} tasks waiting; {option} allows "
            f"{limit:,}{unit}. Enqueue again once some of them have run, or raise {option}."
        )


class PayloadTooLarge(LocalTasksError, ValueError):
    """Arguments or a return value that the store has no room for.

    Attributes:
        what: what was too large, with the task's path.
        size: its size in bytes, pickled.
        limit: bytes that there was room for.
        option: the option that sets the limit.
    """

    def __init__(self, what: str, size: int, limit: int, option: str = "SHM_SIZE") -> None:
        self.what = what
        self.size = size
        self.limit = limit
        self.option = option
        super().__init__(
            f"{what[:1].upper()}{what[1:]}: {size:,} bytes when pickled, and there is room for "
            f"{limit:,}. Pass a reference (an id, a path) in place of the data, or raise {option}."
        )


class WorkerLost(LocalTasksError):
    """The worker process that ran the task died before the task had ended.

    Attributes:
        pid: process id of the worker, ``None`` if unknown.
        cause: the signal or exit code in words, ``None`` if unknown.
        ran_s: seconds that the task had been running, ``None`` if unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        pid: int | None = None,
        cause: str | None = None,
        ran_s: float | None = None,
    ) -> None:
        self.pid = pid
        self.cause = cause
        self.ran_s = ran_s
        super().__init__(message)


class StoreUnavailable(LocalTasksError):
    """The place where tasks and results are kept cannot be used.

    Attributes:
        what: what is wrong, a full sentence.
        path: the object concerned, ``None`` where there is no single one.
        fix: what to do about it, ``None`` where nothing general can be said.
    """

    def __init__(self, what: str, *, path: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.path = path
        self.fix = fix
        parts = [what]
        if path is not None:
            parts.append(f"({path})")
        if fix is not None:
            parts.append(fix)
        super().__init__(" ".join(parts))


def describe(error: BaseException) -> str:
    """Return ``ClassName: text`` for any exception, one whose ``str()`` raises included."""
    try:
        text = str(error)
    except Exception:
        text = "<its str() failed>"
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _rebuild(
    cls: type[LocalTasksError], args: tuple[Any, ...], facts: dict[str, Any]
) -> LocalTasksError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(facts)
    return error
