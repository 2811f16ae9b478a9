"""The signal that stops a task never raises in our own code, nor in the next task."""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import pytest

from django_tasks_local import check_cancelled, is_cancel_requested, stopping
from django_tasks_local.exceptions import TaskCancelled, TaskTimeout
from django_tasks_local.interruptions import raise_swallowed
from django_tasks_local.stopping import STOP_SIGNAL, Attempt, SignalledAttempt
from django_tasks_local.store import time_limit_word
from tests.support import wait_for
from tests.timelimit import Alarm

FILE = stopping.__file__


@pytest.fixture(autouse=True)
def _signals(alarm: Alarm) -> Iterator[None]:
    """The handlers are put back, and the one in C that a test's own time limit has."""
    before = {number: signal.getsignal(number) for number in (STOP_SIGNAL, signal.SIGALRM)}
    stopping.listen()
    yield
    faulthandler.unregister(signal.SIGALRM)
    for number, handler in before.items():
        signal.signal(number, handler)
    alarm.dump_to(alarm.stderr)


def call(attempt: Attempt, task: Callable[..., Any]) -> Any:
    """Runs a task; afterwards timer and handler are as they were."""
    left = signal.setitimer(signal.ITIMER_REAL, 0)  # the time limit of this test
    handler = signal.getsignal(signal.SIGALRM)
    try:
        return attempt.call(task, [], {})
    finally:
        assert signal.setitimer(signal.ITIMER_REAL, *left)[0] == 0
        assert signal.getsignal(signal.SIGALRM) == handler


def claim(limit_s: float | None = None, asked: bool = False) -> Any:
    """A claimed task, as far as an attempt looks at it."""
    return SimpleNamespace(time_limit=time_limit_word(limit_s, 5), stop_asked=asked)


def test_the_timer_stops_a_task() -> None:
    """The task sees TaskTimeout, and what it puts away is put away."""
    seen: list[str] = []

    def task() -> None:
        try:
            wait_for(lambda: False, 60)
        finally:
            seen.append("put away")

    with pytest.raises(TaskTimeout) as caught:
        call(SignalledAttempt(claim(0.02)), task)
    assert seen == ["put away"]
    assert 0.02 <= caught.value.ran_s < 30
    assert (caught.value.timeout_s, caught.value.killed) == (0.02, False)


def test_the_timer_comes_no_more_once_it_was_heard() -> None:
    """The rest of the task is not interrupted every 50 ms."""
    left: list[tuple[float, float]] = []

    def task() -> None:
        try:
            wait_for(lambda: False, 60)
        finally:
            left.append(signal.getitimer(signal.ITIMER_REAL))

    with pytest.raises(TaskTimeout):
        call(SignalledAttempt(claim(0.02)), task)
    assert left == [(0, 0)]


def test_only_what_was_lost_is_raised_again() -> None:
    """A task that has caught its exception gets no second one."""

    def task() -> str:
        asked.stop_asked = True
        with pytest.raises(TaskCancelled):
            os.kill(os.getpid(), STOP_SIGNAL)
        raise_swallowed(sys._getframe(1))
        return "returned"

    raise_swallowed(sys._getframe())  # no task runs
    asked = claim()
    assert call(SignalledAttempt(asked), task) == "returned"


def test_the_signal_is_only_a_reason_to_look() -> None:
    """Without a request in the record nothing is raised; with one it is, once."""
    asked = claim()

    def task() -> str:
        os.kill(os.getpid(), STOP_SIGNAL)
        assert not is_cancel_requested()
        asked.stop_asked = True
        try:
            os.kill(os.getpid(), STOP_SIGNAL)
            wait_for(lambda: False, 60)
        except TaskCancelled:
            os.kill(os.getpid(), STOP_SIGNAL)  # told again while it tidies up
            assert is_cancel_requested()
        return "returned"

    assert call(SignalledAttempt(asked), task) == "returned"
    os.kill(os.getpid(), STOP_SIGNAL)  # no task runs


def test_a_task_that_has_asked_is_not_told_again() -> None:
    """Nothing interrupts what it does about the exception that `check_cancelled` has raised."""
    asked = claim()

    def task() -> str:
        asked.stop_asked = True
        with pytest.raises(TaskCancelled):
            check_cancelled()
        os.kill(os.getpid(), STOP_SIGNAL)
        return "tidied up"

    assert call(SignalledAttempt(asked), task) == "tidied up"


def test_an_async_task_that_has_asked_is_not_told_again() -> None:
    """Its coroutine is not cancelled in the middle of what it does about the exception."""
    asked = claim()
    attempt = SignalledAttempt(asked)

    async def task() -> str:
        asked.stop_asked = True
        with pytest.raises(TaskCancelled):
            check_cancelled()
        attempt.interrupt(None)  # as the signal's handler does, in the main thread
        await asyncio.to_thread(int)
        return "tidied up"

    assert call(attempt, attempt.in_loop(task)) == "tidied up"


def test_a_thread_that_asks_stops_itself_alone() -> None:
    """The task that started it is interrupted all the same."""
    asked = claim()
    heard: list[BaseException] = []

    def ask() -> None:
        try:
            check_cancelled()
        except TaskCancelled as error:
            heard.append(error)

    def task() -> None:
        asked.stop_asked = True
        thread = threading.Thread(target=copy_context().run, args=[ask])
        thread.start()
        thread.join()
        os.kill(os.getpid(), STOP_SIGNAL)

    with pytest.raises(TaskCancelled):
        call(SignalledAttempt(asked), task)
    assert len(heard) == 1


def test_a_task_that_is_cancelled_before_its_call() -> None:
    """It is not called at all."""
    with pytest.raises(TaskCancelled):
        call(SignalledAttempt(claim(asked=True)), pytest.fail)


def test_a_task_with_a_timer_of_its_own() -> None:
    """Its handler stays, for who puts back what a task leaves behind to find."""

    def task() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 1000)

    left = signal.setitimer(signal.ITIMER_REAL, 0)
    SignalledAttempt(claim(50)).call(task, [], {})
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
    assert signal.setitimer(signal.ITIMER_REAL, *left)[0] > 900


def test_a_child_of_a_task_is_not_stopped() -> None:
    """What a task forks inherits the handler, and no reason to stop."""

    def task() -> int:
        if not (pid := os.fork()):
            stopped = 1
            try:
                os.kill(os.getpid(), STOP_SIGNAL)
                stopped = 0
            finally:
                os._exit(stopped)
        return os.waitpid(pid, 0)[1]

    asked = claim()
    attempt = SignalledAttempt(asked)

    def ask_first() -> int:
        asked.stop_asked = True
        return task()

    assert call(attempt, ask_first) == 0


class Everywhere:
    """Sends the signal at one line or opcode of our own code after the other.

    Python runs a handler before the next instruction, so this is each place at which the signal
    can be heard.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != FILE or frame.f_code.co_name.startswith("_on"):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_code.co_name != "interrupt":
            self.passed += 1
            if self.passed == self.at:
                os.kill(os.getpid(), STOP_SIGNAL)
        return self


@pytest.mark.parametrize("outcome", ["returned", KeyError("raised")], ids=["returns", "raises"])
def test_a_signal_at_every_step_of_our_own_code(outcome: Any) -> None:
    """Whichever step it meets, the task's own end comes out, and no exception of the signal."""

    def task() -> str:
        asked.stop_asked = True  # from here on every signal has a reason
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    at, met = 0, 1
    while met:
        at += 1
        asked = claim(50)
        tracer = Everywhere(at)
        attempt = SignalledAttempt(asked)
        got: Any
        sys.settrace(tracer)
        try:
            got = call(attempt, task)
        except KeyError as error:
            got = error
        finally:
            sys.settrace(None)
        met = tracer.passed >= at
        assert got is outcome or got == outcome
        assert stopping._current == [None]
    assert at > 50


def test_threads_ask() -> None:
    """In a thread nothing is raised but where the task asks, and at its end."""

    def in_thread(attempt: Attempt, task: Callable[[], object]) -> BaseException | None:
        raised: list[BaseException] = []

        def run() -> None:
            try:
                attempt.call(task, [], {})
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return raised[0] if raised else None

    slow = Attempt(claim(0.001))
    assert isinstance(in_thread(slow, lambda: wait_for(lambda: slow.ran_s > 0.002)), TaskTimeout)
    assert isinstance(in_thread(Attempt(claim(asked=True)), check_cancelled), TaskCancelled)
    assert in_thread(Attempt(claim(50)), check_cancelled) is None
