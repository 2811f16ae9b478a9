"""All sample tasks. They work on any backend, and talk to the tests through files only."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from django.db import connection, transaction
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.signals import connection_created
from django.dispatch import receiver
from django.tasks import TaskContext, TaskResult, task
from django.tasks.signals import task_finished, task_started
from django.urls import get_script_prefix, set_script_prefix
from django.utils import timezone, translation

from django_tasks_local import current_result_id, report_progress, track, wait_finished

# After so long a task that waits for its test goes on: the test has failed and is gone.
GATE_LIMIT_S = 60.0


# --- that return ---------------------------------------------------------------------------------


@task
def add(a: float, b: float = 0) -> float:
    return a + b


class Elsewhere:
    """Can be pickled, and in the process of a pool cannot be unpickled."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["pid"] != os.getpid():
            raise LookupError("there is no such thing in this process")
        self.__dict__.update(state)


@task
def echo(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """Return what it got and the names of the types, so that nothing hides in an equality."""
    return args, kwargs, [type(arg).__name__ for arg in args]


@task
def nothing() -> None:
    pass


@task
def script_prefix() -> str:
    """Return what reverse() puts first; set something else for others."""
    found = get_script_prefix()
    set_script_prefix("/left/by/the/task/before")
    return found


@task
def parent_of_a_span() -> tuple[str, str] | None:
    """Trace and span under which a span begins that the task makes."""
    from opentelemetry.sdk.trace import TracerProvider

    span: Any = TracerProvider().get_tracer("tests").start_span("work")
    parent = span.parent
    return parent and (f"{parent.trace_id:032x}", f"{parent.span_id:016x}")


@task
def pid() -> int:
    return os.getpid()


@task
def text(length: int) -> str:
    return "x" * length


@task
def activate(language: str, zone: str) -> tuple[str | None, str]:
    translation.activate(language)
    timezone.activate(zone)
    return translation.get_language(), timezone.get_current_timezone_name()


@task
def leave_transaction() -> None:
    """Leave an atomic block without an end."""
    transaction.atomic().__enter__()


@task
def own_result_id() -> str:
    return current_result_id.get()


@task
async def async_add(a: float, b: float = 0) -> float:
    return a + b


@task
async def async_own_result_id() -> str:
    return current_result_id.get()


@task(takes_context=True)
def describe_context(context: TaskContext[Any, Any], extra: str = "") -> dict[str, Any]:
    return _described(context, extra)


@task(takes_context=True)
async def async_describe_context(context: TaskContext[Any, Any], extra: str) -> dict[str, Any]:
    return _described(context, extra)


def _described(context: TaskContext[Any, Any], extra: str) -> dict[str, Any]:
    result = context.task_result
    return {
        "attempt": context.attempt,
        "id": result.id,
        "status": str(result.status),
        "workers": len(result.worker_ids),
        "args": result.args,
        "kwargs": result.kwargs,
        "extra": extra,
    }


_variable: contextvars.ContextVar[str] = contextvars.ContextVar("tests_tasks", default="unset")


@task
def swap_context_variable(value: str) -> str:
    """Set a context variable and return what it was before."""
    before = _variable.get()
    _variable.set(value)
    return before


@task
def use_database() -> bool:
    """Return whether the worker still had a connection open, and leave one open."""
    was_open = connection.connection is not None
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return was_open


@task(priority=7, queue_name="reports")
def urgent_report() -> str:
    return "report"


# The module's name for it is the plain function; the task has another one.
def plain(value: int) -> int:
    return value + 1


wrapped_plain = task(plain, priority=3)


# --- that fail -----------------------------------------------------------------------------------


class Broken(Exception):
    """Neither its text nor its pickle is to be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


def _local_class() -> type[Exception]:
    class Local(Exception):
        pass

    return Local


@task
def fail(kind: str = "ValueError") -> None:
    classes: dict[str, type[BaseException]] = {
        "ValueError": ValueError,
        "SystemExit": SystemExit,
        "KeyboardInterrupt": KeyboardInterrupt,
        "GeneratorExit": GeneratorExit,
        "Broken": Broken,
        "Local": _local_class(),
    }
    raise classes[kind]("on purpose")


@task
async def async_fail(kind: str = "ValueError") -> None:
    fail.func(kind)


@task
def fail_with_cause() -> None:
    try:
        fail.func()
    except ValueError as error:
        raise LookupError("what came of it") from error


@task
def recurse(depth: int = 0) -> int:
    return recurse.func(depth + 1) + 1


@task
def return_lock() -> Any:
    return threading.Lock()


class FailsToPickle:
    """Pickling it raises; which exception is its own business."""

    def __init__(self, error: type[BaseException] = ZeroDivisionError) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error("not me")


# --- that wait, tell and take their time --------------------------------------------------------


def _wait_for_file(path: str) -> None:
    end = time.monotonic() + GATE_LIMIT_S
    while not Path(path).exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path} never came")
        time.sleep(0.002)


@task
def hold(gate: str) -> str:
    """Says that it runs (``<gate>.running``), and runs until the file ``gate`` exists."""
    Path(f"{gate}.running").touch()
    _wait_for_file(gate)
    return gate


@task
def note(path: str, line: str) -> None:
    """Append a line to a file; short ones are written whole, even if others write too."""
    with Path(path).open("a") as file:
        file.write(line + "\n")


@task
def now() -> datetime:
    return datetime.now(UTC)


@task
def report(gate: str, done: float, total: float | None, message: str) -> None:
    """Report progress, then hold as `hold` does."""
    report_progress(done, total, message)
    hold.func(gate)


@task
def tracked(rows: int) -> int:
    return sum(track(range(rows), message="counting"))


@task
def outlived(gate: str) -> None:
    """Leaves a thread behind that reports once ``gate`` exists, then makes ``<gate>.done``."""

    def late() -> None:
        _wait_for_file(gate)
        report_progress(99, 100, "too late")
        Path(f"{gate}.done").touch()

    report_progress(1, 100, "in time")
    threading.Thread(target=contextvars.copy_context().run, args=[late]).start()


@task
def enqueue_another(alias: str, value: int) -> str:
    return add.using(backend=alias).enqueue(value, value).id


@task
def wait_for_another(alias: str, limit_s: float = GATE_LIMIT_S) -> float:
    """Enqueues there, waits for the end, and returns what came of it."""
    value: float = wait_finished(add.using(backend=alias).enqueue(1, 2), limit_s).return_value
    return value


@task(takes_context=True)
def wait_for_itself(context: TaskContext[Any, Any]) -> None:
    wait_finished(context.task_result)


@task
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task
def nap(seconds: float) -> None:
    time.sleep(seconds)


@task
def connect_to_no_database() -> str:
    """Do what Django does before it makes or destroys a test database."""
    no_database = SimpleNamespace(alias=NO_DB_ALIAS)
    connection_created.send(sender=None, connection=no_database)
    return "still here"


@task
def print_for_ever(text: str) -> None:
    """Is in the middle of a write to standard output most of the time."""
    while True:
        print(text)


@task
def work_until_interrupted(gate: str) -> None:
    """Never ends by itself; prints what ended it."""
    note.func(gate, "running")
    try:
        while True:
            pass
    except BaseException as error:
        print("cleaned up after", type(error).__name__)
        raise


@task
async def nap_in_executor(seconds: float, path: str) -> None:
    """Use an executor after a while, as every look-up of a host name does."""
    await asyncio.sleep(seconds)
    await asyncio.get_running_loop().run_in_executor(None, note.func, path, "rested")


@task
def fork_and_return() -> int:
    """Forks; the child returns, which it should not. Returns the child's exit code."""
    child = os.fork()
    if not child:
        return -1
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- signals, seen in the process that runs the task ----------------------------------------------


@task
def signalled(path: str, outcome: str = "return") -> None:
    """The receivers below write one line per signal for it; ``outcome`` "raise" fails it."""
    note.func(path, "task")
    if outcome == "raise":
        raise ValueError("on purpose")


@task
def signalled_badly(path: str) -> None:
    """The receivers below raise for it, after they have written."""
    note.func(path, "task")


@receiver([task_started, task_finished])
def write_signal(sender: type, task_result: TaskResult[Any, Any], signal: Any, **_: Any) -> None:
    name = "started" if signal is task_started else "finished"
    if task_result.task.func in (signalled.func, signalled_badly.func):
        error = sys.exc_info()[0]
        words = [name, sender.__name__, task_result.status, os.getpid(), error and error.__name__]
        note.func(task_result.args[0], " ".join(map(str, words)))
    if task_result.task.func is signalled_badly.func:
        # What is no Exception gets through send_robust.
        raise (SystemExit if name == "started" else RuntimeError)("a bad receiver")
