"""The package's exceptions. Each builds its text from facts, which it keeps as attributes."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from functools import partial
from traceback import walk_tb
from types import CodeType
from typing import Any, Final


class LocalTasksError(Exception):
    """Base class of the package's own exceptions. Never raised directly."""

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception pickles as a call of its class with args, and args here is the finished text.
        # So the text and the facts travel as they are, and no constructor runs a second time.
        return _rebuild, (type(self), self.args, self.__dict__)


class QueueFull(LocalTasksError):
    """As many tasks are waiting as the backend accepts. Nothing was stored.

    Attributes:
        alias: The backend's key in ``TASKS``.
        waiting: Tasks that were waiting (READY) at that moment.
        limit: How many may wait, or how many bytes what waits may take.
        option: The option that sets the limit, ``MAX_PENDING`` or ``SHM_SIZE``.
        wanted: How many were to be enqueued, all of them or none.
    """

    def __init__(
        self, alias: str, waiting: int, limit: int, option: str = "MAX_PENDING", *, wanted: int = 1
    ) -> None:
        self.alias = alias
        self.waiting = waiting
        self.limit = limit
        self.option = option
        self.wanted = wanted
        unit = "" if option == "MAX_PENDING" else " bytes"
        more = "" if wanted == 1 else f" and {wanted:,} more to come, all of them or none"
        super().__init__(
            f"Task backend {alias!r} has {counted(waiting, 'task')} waiting{more}; {option} allows "
            f"{limit:,}{unit}. Enqueue again once some of them have run, or raise {option}."
        )


class AlreadyEnqueued(LocalTasksError):
    """The same unique task waits or runs already, and its policy says ``on_conflict="raise"``.

    Nothing was stored.

    Attributes:
        path: The task's import path.
        key: What makes it the same: the arguments that count, or what its function returned.
        result_id: The id of the task that is there; ``""`` where it is in the same `enqueue_many`.
    """

    def __init__(self, path: str, key: Any, result_id: str) -> None:
        self.path = path
        self.key = key
        self.result_id = result_id
        where = f"waits or runs already, id={result_id}" if result_id else "is enqueued with it"
        super().__init__(
            f"Task {path} is unique, and one with the key {_short(key)} {where}. Enqueue it again "
            'once that has ended, or give the policy on_conflict="existing" to get the result of '
            "that one."
        )


class PayloadTooLarge(LocalTasksError, ValueError):
    """Arguments, metadata or a return value for which the store has no room.

    Attributes:
        what: What was too large, with the task's path.
        size: Its size in bytes, pickled; that of metadata as JSON.
        limit: Bytes for which there was room.
        option: The option that bounds it.
        fix: What makes more room: to raise that option, unless something else ran out first.
    """

    def __init__(
        self,
        what: str,
        size: int,
        limit: int,
        option: str = "SHM_SIZE",
        *,
        fix: str | None = None,
        form: str = "when pickled",
    ) -> None:
        self.what = what
        self.size = size
        self.limit = limit
        self.option = option
        self.fix = fix or f"raise {option}"
        super().__init__(
            f"{what[:1].upper()}{what[1:]}: {size:,} bytes {form}, and there is room for "
            f"{limit:,}. Pass a reference (an id, a path) in place of the data, or {self.fix}."
        )


class ArgumentsDropped(LocalTasksError):
    """The large arguments of a finished task had to make room for other tasks and results.

    Attributes:
        path: The task's import path.
        result_id: The id of its result, which is kept.
        size: Bytes of the arguments, pickled.
    """

    def __init__(self, path: str, result_id: str, size: int) -> None:
        self.path = path
        self.result_id = result_id
        self.size = size
        super().__init__(
            f"Arguments of task {path}, id={result_id}: {size:,} bytes when pickled, dropped to "
            "make room after the task had finished. Its status and outcome are kept. Raise "
            "SHM_SIZE to keep arguments for longer, or pass a reference (a path, a primary key) "
            "in their place."
        )


class WorkerLost(LocalTasksError):
    """The worker process that ran the task died before the task had ended.

    Never raised: it is the error of a task, and `LocalTaskResult.loss` holds it with its facts.

    Attributes:
        pid: Process id of the worker, in its own pid namespace.
        cause: What ended the worker, in words that follow "Worker process 7".
        ran_s: Seconds from the start of the task to the moment at which the death was noticed.
        signal: Number of the signal that killed the worker, ``None`` if it was none or is unknown.
        exit_code: Exit code of the worker, ``None`` if a signal killed it or it is unknown.
        retried: Whether the task was to be tried again: ``policy(retry_lost=True)``.
    """

    def __init__(
        self,
        pid: int,
        cause: str,
        ran_s: float,
        *,
        signal: int | None = None,
        exit_code: int | None = None,
        retried: bool = False,
    ) -> None:
        self.pid = pid
        self.cause = cause
        self.ran_s = ran_s
        self.signal = signal
        self.exit_code = exit_code
        self.retried = retried
        again = "It is tried again" if retried else "It was not run again"
        super().__init__(
            f"Worker process {pid} {cause}, {ran_s:.1f} s after the task had started. {again}: "
            "part of its work may have been done."
        )


class MemoryExceeded(WorkerLost):
    """The worker process had more private memory than a task may take, and was killed for that.

    Never raised, as `WorkerLost`; `cause`, `signal` and `exit_code` are as there.

    Attributes:
        measured: Bytes of private memory that the worker had.
        limit: Bytes that the option allowed.
        option: The option that sets the limit, ``MAX_TASK_MEMORY``.
    """

    def __init__(
        self,
        pid: int,
        ran_s: float,
        *,
        measured: int,
        limit: int,
        option: str = "MAX_TASK_MEMORY",
        retried: bool = False,
    ) -> None:
        self.measured = measured
        self.limit = limit
        self.option = option
        super().__init__(
            pid,
            f"was killed because it had {_mebibytes(measured)} of private memory, and {option} "
            f"allows {_mebibytes(limit)}",
            ran_s,
            signal=9,
            retried=retried,
        )


class TaskTimeout(LocalTasksError, TimeoutError):
    """The task ran longer than it may: ``policy(timeout=…)`` or the option ``TIMEOUT``.

    Raised inside the task at its limit; the error of the task in any case.

    Attributes:
        timeout_s: Seconds that it may run.
        ran_s: Seconds that it had been running.
        killed: Whether its worker process had to be killed.
    """

    def __init__(self, timeout_s: float, ran_s: float, *, killed: bool = False) -> None:
        self.timeout_s = timeout_s
        self.ran_s = ran_s
        self.killed = killed
        text = (
            f"The task ran for {ran_s:.1f} s, and its time limit is {timeout_s:g} s, by its "
            "policy(timeout=...) or the option TIMEOUT."
        )
        if killed:
            text += (
                " It went on beyond TIMEOUT_GRACE, so its worker process was killed: part of its "
                "work may have been done."
            )
        super().__init__(text)


class TaskCancelled(BaseException):
    """The task was cancelled before it had ended.

    No `Exception`, as asyncio's: ``except Exception`` in a task does not swallow it.

    Attributes:
        ran_s: Seconds that it had been running, ``None`` if it had not started.
        killed: Whether its worker process had to be killed, or died before the task had stopped.
        retried: Whether it waited for its next attempt.
    """

    def __init__(
        self, ran_s: float | None = None, *, killed: bool = False, retried: bool = False
    ) -> None:
        self.ran_s = ran_s
        self.killed = killed
        self.retried = retried
        if retried:
            text = "The task was cancelled while it waited for its next attempt."
        elif ran_s is None:
            text = "The task was cancelled before it started."
        else:
            text = f"The task was cancelled after it had run for {ran_s:.1f} s."
            if killed:
                text += (
                    " Its worker process ended before the task had stopped: part of its work may "
                    "have been done."
                )
        super().__init__(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


# As the errors of results name it.
CANCELLED: Final = f"{TaskCancelled.__module__}.{TaskCancelled.__qualname__}"


class StoreUnavailable(LocalTasksError):
    """The place where tasks and results are kept cannot be used.

    Attributes:
        what: What is wrong.
        path: The object concerned, ``None`` where there is no single one.
        fix: What to do about it, ``None`` where nothing general can be said.
    """

    def __init__(self, what: str, *, path: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.path = path
        self.fix = fix
        where = [] if path is None else [f"{path}:"]
        super().__init__(" ".join([*where, *map(_sentence, filter(None, (what, fix)))]))


def counted(number: int, noun: str) -> str:
    """Return ``1 task``, ``2 tasks``, ``10,000 tasks``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(things: Sequence[str], limit: int = 3) -> str:
    """Return the first ``limit`` of ``things``, and how many more there are."""
    shown = ", ".join(things[:limit])
    return shown if len(things) <= limit else f"{shown} and {len(things) - limit:,} more"


def describe(error: BaseException) -> str:
    """Return ``ClassName: text`` for any exception, even one whose ``str()`` raises."""
    try:
        text = str(error)
    except Exception:
        text = "<its str() failed>"
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def from_a_signal_handler(error: BaseException) -> bool:
    """Return whether a signal handler that is set now has raised ``error``.

    It may do so anywhere, for instance a time limit while arguments are pickled.
    """
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = [code for handler in handlers if (code := _code_of(handler)) is not None]
    return any(frame.f_code in codes for frame, _ in walk_tb(error.__traceback__))


def _code_of(handler: Any) -> CodeType | None:
    while isinstance(handler, partial):
        handler = handler.func
    if callable(handler) and not hasattr(handler, "__code__"):  # methods have it
        handler = type(handler).__call__
    code = getattr(handler, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _sentence(text: str) -> str:
    # A name such as settings.X keeps its lower case.
    first = text.split(maxsplit=1)[0]
    start = text[:1].upper() if first.strip(",:;").isalpha() else text[:1]
    return start + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _rebuild[E: BaseException](cls: type[E], args: tuple[Any, ...], facts: dict[str, Any]) -> E:
    error = cls.__new__(cls, *args)
    error.args = args  # an OSError's constructor would have set them
    error.__dict__.update(facts)
    return error
