"""Lists of results: which, in what order, and without a trace."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.tasks import TaskResultStatus
from django.tasks.exceptions import InvalidTask, InvalidTaskBackend, TaskResultDoesNotExist
from django.utils import timezone

from django_tasks_local import (
    MissingTask,
    aresults,
    enqueue_again,
    metadata_of,
    results,
    with_metadata,
)
from tests import tasks
from tests.contract.conftest import INLINE_TOO, Bench, finished
from tests.support import wait_for

READY, RUNNING = TaskResultStatus.READY, TaskResultStatus.RUNNING
SUCCESSFUL, FAILED = TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED


def ids(found: list[Any]) -> list[str]:
    """The ids, in order."""
    return [result.id for result in found]


@INLINE_TOO
def test_nothing(bench: Bench) -> None:
    """A backend without tasks has an empty list."""
    bench.configure(MAX_WORKERS=2)
    assert results(bench.alias) == []


def test_order(bench: Bench) -> None:
    """RUNNING first, then READY in the order of running, then finished, the latest end first."""
    bench.configure(MAX_WORKERS=2)
    done = [bench.run(tasks.add, 1).id, bench.run(tasks.fail).id, bench.run(tasks.add, 2).id]
    release = bench.occupy(2)
    add = bench.on(tasks.add)
    in_a_day = add.using(run_after=timedelta(days=1), priority=90).enqueue(3).id
    in_an_hour = add.using(run_after=timedelta(hours=1)).enqueue(4).id
    last = bench.enqueue(tasks.add, 5).id
    first = add.using(priority=5).enqueue(6).id
    second = add.using(priority=5).enqueue(7).id
    found = results(bench.alias)
    assert [each.status for each in found[:2]] == [RUNNING, RUNNING]
    assert found[0].started_at >= found[1].started_at
    assert ids(found[2:7]) == [first, second, last, in_an_hour, in_a_day]
    assert ids(found[7:]) == done[::-1]
    release()


def test_what_is_listed_first_runs_first(bench: Bench) -> None:
    """The order of READY tasks is the one in which they start, those just fallen due included."""
    bench.configure(MAX_WORKERS=1)
    release = bench.occupy()
    for n in range(30):
        changes: Any = {"priority": n * 7 % 3}
        if n % 4 == 0:
            changes["run_after"] = timedelta(microseconds=1000 - n)
        bench.on(tasks.add).using(**changes).enqueue(n)
    due = timezone.now() + timedelta(milliseconds=2)
    wait_for(lambda: timezone.now() > due)
    listed = ids(results(bench.alias, status=READY))
    assert len(listed) == 30
    release()
    for each in listed:
        finished(bench.backend.get_result(each))
    ended = ids(results(bench.alias, task=tasks.add))[::-1]
    assert ended == listed


@INLINE_TOO
def test_filters(bench: Bench) -> None:
    """By status, one or several, by queue, by task or its path, and by all of them."""
    bench.configure(MAX_WORKERS=2)
    alias = bench.alias
    one, two = bench.run(tasks.add, 1), bench.run(tasks.add, 2)
    bad = bench.run(tasks.fail)
    report = bench.run(tasks.urgent_report)
    assert ids(results(alias, status=SUCCESSFUL)) == [report.id, two.id, one.id]
    assert ids(results(alias, status="FAILED")) == [bad.id]
    assert ids(results(alias, status=[SUCCESSFUL, FAILED])) == [report.id, bad.id, two.id, one.id]
    assert results(alias, status=[READY, RUNNING]) == []
    assert results(alias, status=[]) == []
    assert ids(results(alias, queue_name="reports")) == [report.id]
    for task in (tasks.add, tasks.add.using(priority=3), "tests.tasks.add"):
        assert ids(results(alias, task=task)) == [two.id, one.id]
    assert results(alias, task="no.such.task") == []
    assert results(alias, task=tasks.add, queue_name="reports", status=SUCCESSFUL) == []
    assert ids(results(alias, task=tasks.add, limit=1)) == [two.id]
    assert results(alias, limit=0) == []
    assert len(results(alias, limit=None)) == 4
    assert ids(asyncio.run(aresults(alias, task=tasks.add, status=SUCCESSFUL))) == [two.id, one.id]


def test_at_most_a_hundred(bench: Bench) -> None:
    """That is the limit where none is given."""
    bench.configure(MAX_WORKERS=2)
    release = bench.occupy(2)
    for n in range(120):
        bench.enqueue(tasks.add, n)
    assert len(results(bench.alias)) == 100
    assert len(results(bench.alias, limit=None)) == 122
    release()


def test_results_as_any_other(bench: Bench) -> None:
    """What is listed can be read, refreshed and waited for like what get_result returns."""
    bench.configure(MAX_WORKERS=2)
    done = bench.run(tasks.echo, 1, key="value")
    (found,) = results(bench.alias)
    assert found == done == bench.backend.get_result(done.id)
    assert type(found) is type(done)
    gate = bench.gates / "gate"
    bench.enqueue(tasks.hold, str(gate))
    found = results(bench.alias)[0]
    gate.touch()
    assert found.wait_finished(15).return_value == str(gate)


@INLINE_TOO
def test_metadata_is_listed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each result and of its task, also where the task is gone; there is none of others."""
    bench.configure(MAX_WORKERS=2)
    from django_tasks_local.naming import load_task

    for metadata in ({"trace": 7, "_lib": 1}, {}):
        task: Any = with_metadata(bench.on(tasks.nothing), metadata)
        finished(task.enqueue())
    for gone in (False, True):
        if gone:
            monkeypatch.delattr(tasks, "nothing")
            load_task.cache_clear()
        second, first = found = results(bench.alias)
        assert (type(first.task) is MissingTask) is gone
        assert [each.metadata for each in found] == [{}, {"trace": 7}]
        assert first.raw_metadata == metadata_of(first.task) == {"trace": 7, "_lib": 1}
        assert metadata_of(second.task) == {}


@INLINE_TOO
def test_listing_is_no_use(bench: Bench) -> None:
    """What is listed is evicted as if it had not been."""
    bench.configure(MAX_WORKERS=1, MAX_RESULTS=3)
    oldest, *others = [bench.run(tasks.add, n).id for n in range(3)]
    assert ids(results(bench.alias)) == [*others[::-1], oldest]
    bench.run(tasks.add, 4)
    with pytest.raises(TaskResultDoesNotExist):
        bench.backend.get_result(oldest)
    assert oldest not in ids(results(bench.alias))


@INLINE_TOO
def test_nothing_is_unpickled_until_it_is_asked_for(bench: Bench) -> None:
    """A list shows results whose arguments or return values cannot be unpickled here."""
    bench.configure(MAX_WORKERS=2)
    result = bench.run(tasks.echo, tasks.Elsewhere())
    assert ids(results(bench.alias)) == [result.id]
    assert results(bench.alias)[0].status in (SUCCESSFUL, FAILED)


@INLINE_TOO
def test_a_task_that_is_gone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed by its path, with what its record says of it; it cannot be run."""
    bench.configure(MAX_WORKERS=2)
    from django_tasks_local.naming import load_task

    done = bench.run(tasks.nothing).id
    other = bench.on(tasks.nothing).using(priority=9, queue_name="reports").enqueue().id
    finished(bench.backend.get_result(other))
    monkeypatch.delattr(tasks, "nothing")
    load_task.cache_clear()
    second, first = results(bench.alias, task="tests.tasks.nothing")
    assert (second.id, first.id) == (other, done)
    assert type(first.task) is MissingTask
    assert (first.task.module_path, first.task.name) == ("tests.tasks.nothing", "nothing")
    assert (first.task.queue_name, first.task.backend) == ("", bench.alias)
    assert (first.task.priority, first.task.run_after) == (0, None)
    assert (second.task.queue_name, second.task.priority) == ("reports", 9)
    assert ids(results(bench.alias, queue_name="reports")) == [other]
    assert "tests.tasks.nothing" in repr(first)
    assert first.return_value is None
    with pytest.raises(ImportError, match=r"tests\.tasks\.nothing cannot be imported"):
        first.task.call()
    with pytest.raises(InvalidTask, match=r"tests\.tasks\.nothing"):
        first.task.enqueue()
    with pytest.raises(InvalidTask, match=r"tests\.tasks\.nothing cannot be imported"):
        enqueue_again(first)
    monkeypatch.undo()
    assert results(bench.alias)[1].task == bench.on(tasks.nothing)


# --- bad input -----------------------------------------------------------------------------------


@INLINE_TOO
@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"status": "DONE"}, ValueError, r"status='DONE'.*READY, RUNNING"),
        ({"status": [READY, 3]}, ValueError, "status=.*3"),
        ({"status": 5}, TypeError, "status=5 must be a TaskResultStatus"),
        ({"queue_name": 5}, TypeError, "queue_name=5 must be a string, not int"),
        ({"task": len}, TypeError, "task=<built-in function len> must be a task"),
        ({"group": 5}, TypeError, "group=5 must be a string, not int"),
        ({"group": ""}, ValueError, "group='' must not be empty"),
        ({"limit": "5"}, TypeError, "limit='5' must be an int or None, not str"),
        ({"limit": True}, TypeError, "limit=True"),
        ({"limit": -1}, ValueError, "limit=-1 must be 0 or more"),
    ],
)
def test_bad_arguments(bench: Bench, wrong: Any, error: type[Exception], text: str) -> None:
    """Each is named with its value."""
    with pytest.raises(error, match=text):
        results(bench.alias, **wrong)


def test_bad_backends() -> None:
    """An alias that is none, or whose backend cannot list, is named, and those that can."""
    with pytest.raises(
        InvalidTaskBackend, match=r"backend='none' is not a key of TASKS, which has"
    ):
        results("none")
    with pytest.raises(TypeError, match="backend=5"):
        results(5)  # type: ignore[arg-type]
    with pytest.raises(
        ImproperlyConfigured,
        match=r"backend='immediate' .*ImmediateBackend.*'thread', 'process'",
    ):
        results("immediate")
