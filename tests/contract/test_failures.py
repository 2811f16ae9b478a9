"""A task that fails fails alone, and says why."""

import logging
import pickle
import signal
from functools import partial
from typing import Any

import pytest
from django.tasks import TaskResultStatus

from django_tasks_local.exceptions import PayloadTooLarge
from tests import tasks
from tests.contract.conftest import INLINE_TOO, Bench
from tests.support import ROOT, wait_for

PACKAGE = str(ROOT / "django_tasks_local")
ANY_ERROR = ["ValueError", "SystemExit", "GeneratorExit"]


@pytest.mark.parametrize("task", [tasks.fail, tasks.async_fail], ids=["sync", "async"])
@pytest.mark.parametrize("kind", ANY_ERROR)
def test_any_exception_is_a_failed_task(any_bench: Bench, task: Any, kind: str) -> None:
    """Whatever a task raises, SystemExit included, is a FAILED task with that exception."""
    result = any_bench.run(task, kind)
    assert result.status == TaskResultStatus.FAILED
    assert result.finished_at >= result.started_at
    (error,) = result.errors
    assert error.exception_class.__name__ == kind
    assert "on purpose" in error.traceback
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value


@pytest.mark.parametrize("task", [tasks.fail, tasks.async_fail], ids=["sync", "async"])
def test_keyboard_interrupt_too(bench: Bench, task: Any) -> None:
    """A KeyboardInterrupt inside a task fails that task; Django's own backend lets it through."""
    assert bench.run(task, "KeyboardInterrupt").errors[0].exception_class is KeyboardInterrupt


@pytest.mark.parametrize("kind", [*ANY_ERROR, "KeyboardInterrupt", "Broken", "Local"])
def test_the_worker_goes_on(bench: Bench, kind: str) -> None:
    """Neither a thread nor a worker process ends with the task."""
    bench.set_workers(1)
    first = bench.run(tasks.fail, kind)
    second = bench.run(tasks.nothing)
    assert first.worker_ids == second.worker_ids


@INLINE_TOO
@pytest.mark.parametrize("task", [tasks.fail, tasks.async_fail], ids=["sync", "async"])
def test_traceback_shows_the_users_frames(bench: Bench, task: Any) -> None:
    """The traceback starts in the user's code: our frames, Django's and asyncio's are left out."""
    text = bench.run(task).errors[0].traceback
    lines = text.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "tests/tasks.py" in lines[1]
    assert 'raise classes[kind]("on purpose")' in text
    assert lines[-1] == "ValueError: on purpose"
    assert "execution.py" not in text


@INLINE_TOO
def test_traceback_shows_the_whole_chain(bench: Bench) -> None:
    """Cause and context are in the traceback."""
    text = bench.run(tasks.fail_with_cause).errors[0].traceback
    assert "ValueError: on purpose" in text
    assert "direct cause" in text
    assert text.endswith("LookupError: what came of it\n")


@INLINE_TOO
def test_what_the_package_raises_has_no_frames(bench: Bench) -> None:
    """A value that is too large or cannot be pickled, or a bad call: no code of ours is shown."""
    if bench.alias == "process":
        bench.configure(SHM_SIZE=2**20, SLOT_SIZE=512, MAX_WORKERS=1)
        (error,) = bench.run(tasks.text, 2**20).errors
        assert error.exception_class is PayloadTooLarge
        assert error.traceback.startswith("django_tasks_local.exceptions.PayloadTooLarge: ")
        for task, arguments in ((tasks.return_lock, []), (tasks.echo, [tasks.Elsewhere()])):
            assert PACKAGE not in bench.run(task, *arguments).errors[0].traceback
    (error,) = bench.run(tasks.add, 1, 2, 3).errors
    assert error.traceback.startswith("TypeError: add()")


@INLINE_TOO
def test_wrong_arguments(bench: Bench) -> None:
    """A call that does not fit the function's signature fails with Python's TypeError."""
    (error,) = bench.run(tasks.add, 1, 2, 3).errors
    assert error.exception_class is TypeError
    assert "add()" in error.traceback


def test_arguments_that_cannot_be_unpickled(bench: Bench) -> None:
    """The error says what could not be unpickled, of which task, and why."""
    result = bench.run(tasks.echo, tasks.Elsewhere())
    if bench.alias == "thread":
        assert result.status == TaskResultStatus.SUCCESSFUL  # nothing is pickled
        return
    (error,) = result.errors
    assert error.exception_class is ValueError
    assert (
        f"ValueError: The arguments of task tests.tasks.echo, id={result.id}, cannot be unpickled: "
        "LookupError: there is no such thing in this process." in error.traceback
    )


@INLINE_TOO
def test_recursion(bench: Bench) -> None:
    """A recursion without end fails the task, with a traceback."""
    (error,) = bench.run(tasks.recurse).errors
    assert error.exception_class is RecursionError
    assert "recurse.func" in error.traceback


@INLINE_TOO
def test_exception_without_text_or_pickle(bench: Bench) -> None:
    """Only class and text of an exception are kept; not even its str() has to work."""
    (error,) = bench.run(tasks.fail, "Broken").errors
    assert error.exception_class_path == "tests.tasks.Broken"
    assert "tests/tasks.py" in error.traceback


@INLINE_TOO
def test_exception_of_a_local_class(bench: Bench) -> None:
    """The class of an exception may be out of reach; its name is told all the same."""
    (error,) = bench.run(tasks.fail, "Local").errors
    assert error.exception_class_path == "tests.tasks._local_class.<locals>.Local"
    assert "Local: on purpose" in error.traceback
    with pytest.raises(ImportError):
        _ = error.exception_class


def test_failure_is_logged_with_its_exception(
    any_bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Django logs a failed task with the exception, which is still being handled then."""
    if any_bench.alias == "process":
        pytest.skip("the log is the worker's; see the signals' tests")
    with caplog.at_level(logging.INFO, "django.tasks"):
        result = any_bench.run(tasks.fail)
        # task_finished is sent after the outcome is stored. Threads of other tests log as well.
        (record,) = wait_for(
            lambda: [
                each
                for each in caplog.records
                if each.levelno == logging.ERROR and result.id in each.getMessage()
            ]
        )
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


class TimeLimit(Exception):
    """What a handler of a signal raises."""


def over(*_: object) -> None:
    """A handler."""
    raise TimeLimit("over")


class Over:
    """A handler that is an object."""

    def __call__(self, *_: object) -> None:
        over()


def interrupt(*_: object) -> None:
    """A handler that raises no Exception."""
    raise KeyboardInterrupt


class Signalled:
    """A value during whose pickling a signal comes."""

    def __reduce__(self) -> Any:
        signal.raise_signal(signal.SIGUSR2)
        return Signalled, ()


@INLINE_TOO
@pytest.mark.parametrize(
    ("handler", "raised"),
    [
        (over, TimeLimit),
        (Over(), TimeLimit),
        (Over().__call__, TimeLimit),
        (partial(over, 1), TimeLimit),
        (interrupt, KeyboardInterrupt),
    ],
)
def test_a_signal_while_arguments_are_pickled(
    bench: Bench, handler: Any, raised: type[BaseException]
) -> None:
    """What its handler raises is not taken for a fault of the arguments."""
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        if bench.alias == "process":
            with pytest.raises(raised):
                bench.enqueue(tasks.echo, Signalled())
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert bench.value(tasks.add, 1) == 1


@INLINE_TOO
def test_a_lock_as_return_value(bench: Bench) -> None:
    """What cannot be pickled fails that task alone, and the error names the value's type."""
    result = bench.run(tasks.return_lock)
    if bench.alias == "thread":
        assert result.return_value.acquire(blocking=False)
        return
    (error,) = result.errors
    assert error.exception_class is ValueError
    assert "pickle" in error.traceback
    assert "_thread.lock" in error.traceback


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, pickle.PicklingError, RecursionError, AttributeError, TypeError]
)
def test_arguments_that_cannot_be_pickled(bench: Bench, error: type[BaseException]) -> None:
    """ValueError at enqueue, whatever pickling raised; nothing is stored. Threads don't care."""
    bench.configure(MAX_PENDING=1, MAX_WORKERS=1)
    release = bench.occupy()
    argument = tasks.FailsToPickle(error)
    if bench.alias == "thread":
        result = bench.enqueue(tasks.echo, argument)
        assert result.args[0] is argument
    else:
        with pytest.raises(ValueError, match=r"tests\.tasks\.echo.*pickle"):
            bench.enqueue(tasks.echo, argument)
        bench.enqueue(tasks.nothing)  # Had it been stored, there would be no room.
    release()
