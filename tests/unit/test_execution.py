"""Running one claimed task on a store that is watched."""

import logging
import pickle
import threading
import traceback
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.db.backends.signals import connection_created
from django.tasks import Task, TaskResultStatus, task
from django.tasks.signals import task_finished, task_started

from django_tasks_local import check_cancelled, current_result_id, execution, task_connections
from django_tasks_local.exceptions import PayloadTooLarge, StoreUnavailable
from django_tasks_local.naming import load_task
from tests import stopped_tasks, tasks
from tests.watched import Claim, WatchedStore, go


@task(backend="thread")
def shout(text: str) -> None:
    """Fails with a text."""
    raise ValueError(text)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What happens, in order: connections, signals, the store."""
    happened: list[Any] = []

    def started(**_: Any) -> None:
        happened.append("started")

    def finished(task_result: Any, **_: Any) -> None:
        happened.append(("finished", task_result.status, task_result.finished_at is not None))

    monkeypatch.setattr(
        task_connections, "close_old_connections", lambda: happened.append("close connections")
    )
    monkeypatch.setattr(task_connections._thread, "has_connected", True)
    task_started.connect(started)
    task_finished.connect(finished)
    yield happened
    task_started.disconnect(started)
    task_finished.disconnect(finished)


def test_order_of_effects(events: list[Any]) -> None:
    """Connections, started, the outcome in the store, finished, connections."""
    claim = Claim(tasks.add, 1, 2)
    go(WatchedStore(events), claim)
    assert events == [
        "close connections",
        "started",
        ("finish", True, 3),
        ("finished", TaskResultStatus.SUCCESSFUL, True),
        "close connections",
    ]
    assert claim.unpickled == 1
    assert current_result_id.get(None) is None


def test_a_thread_without_connections(events: list[Any]) -> None:
    """Where none was ever opened there is nothing to close; from the first one on there may be."""

    def twice() -> None:
        go(WatchedStore(events), Claim(tasks.add, 1, 2))
        assert "close connections" not in events
        connection_created.send(sender=None)
        go(WatchedStore(events), Claim(tasks.add, 1, 2))

    thread = threading.Thread(target=twice)
    thread.start()
    thread.join()
    assert events.count("close connections") == 2
    assert events[3] == events[-1] == "close connections"


def test_order_of_effects_of_a_failure(events: list[Any]) -> None:
    """The same with the error, as text only."""
    go(WatchedStore(events), Claim(tasks.fail, "Local"))
    assert events[:2] == ["close connections", "started"]
    step, successful, (class_path, text) = events[2]
    assert (step, successful) == ("finish", False)
    assert class_path == "tests.tasks._local_class.<locals>.Local"
    assert text.startswith("Traceback")
    assert events[3:] == [("finished", TaskResultStatus.FAILED, True), "close connections"]


class TwiceTask(Task):  # type: ignore[type-arg]
    """A task of the project's own class."""

    __slots__ = ()

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Whatever the function returns, twice."""
        return [super().call(*args, **kwargs)] * 2


def test_a_failure_leaves_one_line(events: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """With id, path and cause, whatever is in the text of the exception."""
    with caplog.at_level(logging.WARNING, "django_tasks_local"):
        go(WatchedStore(events), Claim(shout, "one\nERROR forged \x1b[2J" + "x" * 9999))
    (record,) = (each for each in caplog.records if each.name == "django_tasks_local")
    text = record.getMessage()
    assert text.startswith("alias=thread Task id=an id path=tests.unit.test_execution.shout failed")
    assert r"ValueError: one\nERROR forged \x1b[2Jxx" in text
    assert text.isprintable()
    assert len(text) < 1200


def test_call_of_a_task_class(events: list[Any]) -> None:
    """A task is run by its own `call` where its class has one."""
    values = {f.name: getattr(tasks.add, f.name) for f in fields(Task)}
    go(WatchedStore(events), Claim(TwiceTask(**values), 1, 2))
    assert ("finish", True, [3, 3]) in events


LOOK = """
def stop_asked(claim):
    claim.looks += 1
    return check() if claim.looks == 1 else True
"""


def test_a_stop_in_the_middle_of_our_own_code(events: list[Any], tmp_path: Path) -> None:
    """The signal may come where a task's question is being answered: ours is not in the text."""
    names: dict[str, Any] = {"check": check_cancelled}
    exec(compile(LOOK, str(Path(execution.__file__).with_name("anywhere.py")), "exec"), names)

    class Asked(Claim):
        looks = 0
        stop_asked = property(names["stop_asked"])

    go(WatchedStore(events), Asked(stopped_tasks.ask_until_cancelled, str(tmp_path / "noted")))
    ((_, _, (class_path, text)),) = [each for each in events if each[0] == "finish"]
    assert class_path.endswith("TaskCancelled")
    assert "tests/stopped_tasks.py" in text
    assert "django_tasks_local/" not in text


def test_return_value_too_large(events: list[Any]) -> None:
    """A value that does not fit fails the task with PayloadTooLarge."""
    refusal = PayloadTooLarge("return value of task tests.tasks.add", 10, 5)
    go(WatchedStore(events, refusal), Claim(tasks.add, 1))
    _, successful, (class_path, text) = events[2]
    assert not successful
    assert class_path == "django_tasks_local.exceptions.PayloadTooLarge"
    assert "SHM_SIZE" in text
    assert events[3] == ("finished", TaskResultStatus.FAILED, True)


def test_return_value_that_cannot_be_pickled(events: list[Any]) -> None:
    """The error names the task, the value's type and the cause."""
    go(WatchedStore(events), Claim(tasks.return_lock))
    _, successful, (class_path, text) = events[2]
    assert not successful
    assert class_path == "builtins.ValueError"
    assert "return value of task tests.tasks.return_lock, of type _thread.lock" in text
    assert "cannot pickle '_thread.lock' object" in text


def test_store_that_fails_is_not_the_task_s_failure(events: list[Any]) -> None:
    """What the store raises comes through, and nobody is told that the task ended."""
    with pytest.raises(StoreUnavailable):
        go(WatchedStore(events, StoreUnavailable("gone")), Claim(tasks.add, 1))
    assert events == ["close connections", "started", "close connections"]


def test_arguments_that_cannot_be_unpickled(events: list[Any]) -> None:
    """The task fails, with signals, since there is a task to tell about."""
    claim = Claim(tasks.add)
    claim.arguments = lambda: pickle.loads(b"nonsense")  # type: ignore[method-assign]
    go(WatchedStore(events), claim)
    class_path, text = events[2][2]
    assert class_path == "builtins.ValueError"
    assert "The arguments of task tests.tasks.add" in text
    assert "cannot be unpickled: UnpicklingError" in text
    assert events[3] == ("finished", TaskResultStatus.FAILED, True)


def test_task_that_cannot_be_imported(events: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """FAILED with the import's own error; no signals, an error in the log."""
    load_task.cache_clear()
    with caplog.at_level(logging.ERROR, "django_tasks_local"):
        go(WatchedStore(events), Claim(None, meta=b"no_such_module_at_all:f"))
    assert events[0] == events[2] == "close connections"
    _, successful, (class_path, text) = events[1]
    assert not successful
    assert class_path == "builtins.ModuleNotFoundError"
    assert "no_such_module_at_all" in text
    assert "path=no_such_module_at_all.f cannot be imported" in caplog.text


def test_record_that_does_not_say_its_task(
    events: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged record costs its task alone: FAILED, and the worker goes on."""

    class Damaged(Claim):
        @property
        def meta(self) -> bytes:
            raise StoreUnavailable("its payload does not match its CRC")

        @meta.setter
        def meta(self, value: bytes) -> None:
            pass

    with caplog.at_level(logging.ERROR, "django_tasks_local"):
        go(WatchedStore(events), Damaged(tasks.add))
    assert events[1][2][0].endswith("StoreUnavailable")
    assert "path=(unreadable) cannot be imported" in caplog.text


def test_connections_that_cannot_be_closed(
    events: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A database driver that raises there is logged and changes nothing."""

    def refuse() -> None:
        raise OSError("broken pipe")

    monkeypatch.setattr(task_connections, "close_old_connections", refuse)
    go(WatchedStore(events), Claim(tasks.add, 1))
    assert ("finish", True, 1) in events
    assert "broken pipe" in caplog.text


def test_databases_that_cannot_be_looked_at(
    events: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does a DATABASES setting that is broken, in a thread that runs its first task."""

    def refuse(**_: Any) -> None:
        raise OSError("no such engine")

    monkeypatch.setattr(connections, "all", refuse)
    thread = threading.Thread(target=go, args=[WatchedStore(events), Claim(tasks.add, 1)])
    thread.start()
    thread.join()
    assert ("finish", True, 1) in events
    assert "no such engine" in caplog.text


def test_traceback_that_cannot_be_formatted(
    events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the error's own text is kept."""

    def refuse(*_: Any) -> None:
        raise RecursionError

    monkeypatch.setattr(traceback.TracebackException, "from_exception", refuse)
    go(WatchedStore(events), Claim(tasks.fail))
    text = events[2][2][1]
    assert text.startswith("ValueError: on purpose\n")
    assert "RecursionError" in text


def test_error_text_that_is_too_large(events: list[Any]) -> None:
    """Where there is no room for the whole text its beginning and its end are kept, if any."""

    class Small(WatchedStore):
        room = 300

        def finish(
            self, claim: Any, *, successful: bool, outcome: bytes, cancelled: bool = False,
            timed_out: bool = False,
        ) -> int:  # fmt: skip
            if len(outcome) > self.room:
                raise PayloadTooLarge("return value of task t", len(outcome), self.room)
            return super().finish(claim, successful=successful, outcome=outcome)

    go(Small(events), Claim(tasks.recurse))
    text = events[2][2][1]
    assert text.startswith("Traceback")
    assert "[...]" in text
    assert text.endswith("RecursionError: maximum recursion depth exceeded\n")
    small = Small(events)
    small.room = 10
    with pytest.raises(PayloadTooLarge):
        go(small, Claim(tasks.fail))


def test_exception_group_and_long_chain(events: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups are shown whole, and a chain of a thousand causes does not overflow anything."""

    def chain() -> None:
        error: BaseException = ExceptionGroup("group", [ValueError("inside"), KeyError("too")])
        for n in range(1000):
            wrapped = ValueError(str(n))
            wrapped.__cause__ = error
            error = wrapped
        raise error

    monkeypatch.setattr(execution._Run, "_call", lambda *_: chain())
    go(WatchedStore(events), Claim(tasks.nothing))
    text = events[2][2][1]
    assert "inside" in text or "ValueError: 999" in text
