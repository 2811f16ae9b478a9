"""Stop the task that runs here: at its time limit, or because it was cancelled.

A thread cannot be interrupted: there a task is stopped where it asks, in `check_cancelled` and in
what reports progress (`Attempt`). In a worker process a signal raises the exception in the main
thread, and an async task is cancelled (`SignalledAttempt`). The signal is only a reason to look:
whether the task is to stop is read from its record and from the clock.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any, Final

from asgiref.sync import async_to_sync

from django_tasks_local.exceptions import TaskCancelled, TaskTimeout
from django_tasks_local.interruptions import raise_again_with
from django_tasks_local.store import Claim, limit_s

# The timer's signal comes again so often until it was heard: it may meet our own code.
AGAIN_S: Final = 0.05
# What a pool sends to a worker whose task is to stop. glibc keeps the first two of these for
# itself, and programs begin to count at the ends. Windows has none, and no worker processes.
STOP_SIGNAL: Final = int(getattr(signal, "SIGRTMIN", 34)) + 7
_ALARM: Final = getattr(signal, "SIGALRM", None)

_attempt: ContextVar[Attempt] = ContextVar("django_tasks_local_attempt")


def is_cancel_requested() -> bool:
    """Return whether the running task was asked to stop; ``False`` outside a task.

    For a task that wants to tidy up. It takes no lock, and may be called in a tight loop.
    """
    attempt = _attempt.get(None)
    return attempt is not None and attempt.asked


def check_cancelled() -> None:
    """Stop the running task here if it was cancelled or is beyond its time limit.

    Does nothing outside a task. In a thread this is, with `report_progress` and `track`, where a
    task can be stopped; a worker process is interrupted wherever it is.

    Raises:
        TaskCancelled: It was cancelled.
        TaskTimeout: It has run longer than it may.
    """
    attempt = _attempt.get(None)
    if attempt is not None:
        attempt.check()


class Attempt:
    """One run of one task, which is stopped where it asks."""

    _began_s = 0.0
    _open = False

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._limit_s = limit_s(claim.time_limit)

    @property
    def asked(self) -> bool:
        """Whether it was asked to stop."""
        return self._open and self._claim.stop_asked

    def check(self) -> None:
        """Raise what it is to stop with, if anything."""
        if (stop := self._why_stop()) is not None:
            raise stop

    def in_loop(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what calls an async function from here."""
        return async_to_sync(function)

    def call(self, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call the task.

        Raises:
            TaskTimeout: It ran longer than it may, whatever it then returned or raised.
            BaseException: What it raised.
        """
        _attempt.set(self)
        self._began_s = time.monotonic()
        self._open = True
        try:
            value = function(*args, **kwargs)
        except (TaskTimeout, TaskCancelled):
            raise
        except BaseException:
            self._refuse_late_end()
            raise
        finally:
            self._open = False
        self._refuse_late_end()
        return value

    @property
    def ran_s(self) -> float:
        """For how long it has been running."""
        return time.monotonic() - self._began_s

    def _why_stop(self) -> TaskTimeout | TaskCancelled | None:
        if not self._open:
            return None
        if self._claim.stop_asked:
            return TaskCancelled(self.ran_s)
        if self._limit_s and self.ran_s >= self._limit_s:
            return TaskTimeout(self._limit_s, self.ran_s)
        return None

    def _refuse_late_end(self) -> None:
        if self._limit_s and self.ran_s >= self._limit_s:
            raise TaskTimeout(self._limit_s, self.ran_s)


class SignalledAttempt(Attempt):
    """One run of one task in the main thread of a worker process."""

    # What is the same at the beginning of each stands here: one is made for each task.
    _armed = _raised = _is_async = False
    _frame: FrameType | None = None
    _raised_in: FrameType | None = None
    _code: object = None
    _coroutine: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
    _stop: TaskTimeout | TaskCancelled | None = None

    def in_loop(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what calls an async function from here; a signal cancels its coroutine."""
        self._is_async = True

        async def run(*args: Any, **kwargs: Any) -> Any:
            task = asyncio.current_task()
            assert task is not None
            self._coroutine = asyncio.get_running_loop(), task
            try:
                return await function(*args, **kwargs)
            except asyncio.CancelledError as error:
                if self._stop is None:
                    raise
                raise self._stop.with_traceback(error.__traceback__) from None
            finally:
                self._coroutine = None

        return async_to_sync(run)

    def call(self, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Do what `Attempt.call` does.

        A signal may come at any moment, also between the task's return and the next line here. So
        `interrupt` raises nothing but in the function that is called here, or deeper. `_armed` is
        set and cleared in this frame, so no call of ours comes in between.
        """
        _attempt.set(self)
        self._frame = sys._getframe()
        self._code = getattr(function, "__code__", None)
        self._began_s = time.monotonic()
        self._open = True
        handler = None
        try:
            _current[0] = self
            if self._limit_s:
                handler = _set_timer(self._limit_s)
            if self._claim.stop_asked:
                raise TaskCancelled(0.0)
            self._armed = True
            value = function(*args, **kwargs)
        except (TaskTimeout, TaskCancelled):
            self._armed = False
            raise
        except BaseException:
            self._armed = False
            self._refuse_late_end()
            raise
        finally:
            self._armed = self._open = False
            _current[0] = self._frame = self._raised_in = None
            if self._limit_s:
                _clear_timer(handler)
        self._refuse_late_end()
        return value

    def check(self) -> None:
        """Do what `Attempt.check` does; no signal stops then what is stopped already."""
        if (stop := self._why_stop()) is not None:
            if self._is_called_here():
                self._begin_stop()
            raise stop

    def interrupt(self, frame: FrameType | None) -> None:
        """Stop the task if that is due; called by the handler of a signal.

        Where that cannot be done yet the signal comes again.
        """
        if not self._armed or self._raised or os.getpid() != _listener.pid:
            return
        coroutine = self._coroutine  # read once: its loop may be in another thread
        if coroutine is None if self._is_async else not self._runs_in(frame):
            return
        stop = self._why_stop()
        if stop is None:
            return
        self._begin_stop()
        if coroutine is None:
            self._raised_in = frame
            raise stop
        self._stop = stop
        loop, task = coroutine
        with suppress(RuntimeError):  # the loop is closed: the task has just ended
            loop.call_soon_threadsafe(task.cancel)

    def raise_again(self, frame: FrameType) -> None:
        """Raise again what `interrupt` has raised in ``frame``, where it was lost."""
        if frame is self._raised_in:
            self._raised_in = None
            self.check()

    def _begin_stop(self) -> None:
        self._raised = True
        if self._limit_s:
            _stop_timer()

    def _is_called_here(self) -> bool:
        """Whether what is raised here comes to the task itself, and not to a thread of its own."""
        if not self._is_async:
            return threading.get_ident() == _listener.thread
        coroutine = self._coroutine
        try:
            return coroutine is not None and asyncio.current_task() is coroutine[1]
        except RuntimeError:  # no event loop runs here
            return False

    def _runs_in(self, frame: FrameType | None) -> bool:
        """Whether a frame is the task's, or below it.

        What else may run in the middle of ours: a finalizer, a debugger's trace function.
        """
        called = None
        while frame is not None and frame is not self._frame:
            called, frame = frame, frame.f_back
        if frame is None or called is None:
            return False
        return self._code is None or called.f_code is self._code


# The attempt that the main thread of this worker process makes, if any.
_current: list[SignalledAttempt | None] = [None]


class _Listener:
    """The process and the thread that hear `STOP_SIGNAL`; 0 before there is one."""

    pid = 0
    thread = 0


_listener: Final = _Listener()


def listen() -> None:
    """Have this process's main thread hear `STOP_SIGNAL`."""
    _listener.pid, _listener.thread = os.getpid(), threading.get_ident()
    signal.signal(STOP_SIGNAL, _on_signal)
    raise_again_with(_raise_again)


def _on_signal(number: int, frame: FrameType | None) -> None:
    attempt = _current[0]
    if attempt is not None:
        attempt.interrupt(frame)


def _raise_again(frame: FrameType) -> None:
    attempt = _current[0]
    if attempt is not None:
        attempt.raise_again(frame)


def _set_timer(seconds: float) -> Any:
    """Have the limit told by SIGALRM; a task that uses the timer itself is told by its pool.

    Returns:
        The signal's handler until now.
    """
    assert _ALARM is not None
    handler = signal.signal(_ALARM, _on_signal)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    return handler


def _stop_timer() -> bool:
    """Stop the timer, unless the task uses it itself; return whether it was ours."""
    assert _ALARM is not None
    # What the task has set instead is a matter for `Leftovers`.
    if signal.getsignal(_ALARM) is not _on_signal:
        return False
    signal.setitimer(signal.ITIMER_REAL, 0)
    return True


def _clear_timer(handler: Any) -> None:
    assert _ALARM is not None
    if _stop_timer():
        signal.signal(_ALARM, handler)
