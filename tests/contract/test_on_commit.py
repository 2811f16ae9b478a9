"""Tasks that are enqueued when the transaction is committed."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.tasks import Task, task
from django.tasks.exceptions import InvalidTask
from django.tasks.signals import task_enqueued
from django.utils.connection import ConnectionDoesNotExist

from django_tasks_local import enqueue_on_commit, with_metadata
from django_tasks_local.exceptions import QueueFull
from tests import tasks
from tests.contract.conftest import INLINE_TOO, Bench
from tests.support import wait_for


def renamed() -> None:
    """Nobody finds it by this name."""


stray = task(renamed)
del renamed


@pytest.fixture
def enqueued() -> Any:
    """The results of all tasks that are enqueued in the test."""
    results: list[Any] = []

    def keep(task_result: Any, **_: Any) -> None:
        results.append(task_result)

    task_enqueued.connect(keep)
    yield results
    task_enqueued.disconnect(keep)


def lines(path: Path) -> list[str]:
    """What tasks have noted in a file."""
    return path.read_text().split() if path.exists() else []


def test_after_the_commit(any_bench: Bench, enqueued: list[Any], tmp_path: Path) -> None:
    """Nothing is enqueued before the transaction is committed; then all is, in order."""
    notes = tmp_path / "notes"
    note = any_bench.on(tasks.note)
    with transaction.atomic():
        enqueue_on_commit(note, str(notes), line="one")
        with transaction.atomic():
            enqueue_on_commit(note, str(notes), "two", using="default")
        assert not enqueued
    assert [result.task.func for result in enqueued] == [tasks.note.func] * 2
    wait_for(lambda: sorted(lines(notes)) == ["one", "two"])


@pytest.mark.parametrize("bench", ["process"], indirect=True)
def test_it_takes_no_more_room(bench: Bench, enqueued: list[Any]) -> None:
    """As after `enqueue`, a record without ties has no block for them."""
    enqueue_on_commit(bench.on(tasks.add), 1)
    (result,) = enqueued
    assert bench.backend.get_result(result.id)._snapshot.head.ties_chain == 0


def test_never_after_a_rollback(any_bench: Bench, enqueued: list[Any]) -> None:
    """What was written is gone, and so are the tasks; those of a savepoint, with that."""
    add = any_bench.on(tasks.add)
    with transaction.atomic():
        enqueue_on_commit(add, 1)
        transaction.set_rollback(True)
    with transaction.atomic():
        enqueue_on_commit(add, 2)
        with transaction.atomic():
            enqueue_on_commit(add, 3)
            transaction.set_rollback(True)
    assert [result.args for result in enqueued] == [[2]]


def test_outside_a_transaction(any_bench: Bench, enqueued: list[Any]) -> None:
    """It is enqueued at once."""
    enqueue_on_commit(any_bench.on(tasks.add), 1, b=2)
    (result,) = enqueued
    assert (result.args, result.kwargs) == ([1], {"b": 2})


def test_an_enqueue_that_is_wrapped(
    any_bench: Bench, enqueued: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a library wraps `Task.enqueue`, as for tracing, that is what the commit calls."""
    original, traced = Task.enqueue, []

    def enqueue(self: Any, *args: Any, **kwargs: Any) -> Any:
        traced.append((args, kwargs))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Task, "enqueue", enqueue)
    with transaction.atomic():
        enqueue_on_commit(any_bench.on(tasks.add), 1, b=2)
    assert traced == [((1,), {"b": 2})]
    assert len(enqueued) == 1


def test_what_is_no_task(any_bench: Bench) -> None:
    """A plain function is refused at once, and so is a database that there is not."""
    with pytest.raises(TypeError, match="is not a task but of type function"):
        enqueue_on_commit(tasks.add.func, 1)  # type: ignore[arg-type]
    with pytest.raises(ConnectionDoesNotExist):
        enqueue_on_commit(any_bench.on(tasks.add), 1, using="nowhere")


@INLINE_TOO
def test_a_task_that_cannot_be_found_again(bench: Bench, enqueued: list[Any]) -> None:
    """What `enqueue` would refuse is refused at the call, not at the commit."""
    with transaction.atomic(), pytest.raises(InvalidTask, match="cannot be found again"):
        enqueue_on_commit(bench.on(stray))
    assert not enqueued


@pytest.mark.parametrize("bench", ["process"], indirect=True)
def test_arguments_are_pickled_at_the_call(bench: Bench, enqueued: list[Any]) -> None:
    """What cannot be pickled is refused there; what can is handed over as it was then."""
    numbers = [1, 2]
    with transaction.atomic():
        with pytest.raises(ValueError, match=r"tests\.tasks\.echo cannot be pickled"):
            enqueue_on_commit(bench.on(tasks.echo), threading.Lock())
        enqueue_on_commit(bench.on(tasks.echo), numbers)
        enqueue_on_commit(bench.on(tasks.echo), b"x" * 10_000, *numbers)
        numbers.append(3)
    small, large = (bench.backend.get_result(each.id).wait_finished(15) for each in enqueued)
    assert small.return_value[0] == ([1, 2],)
    assert large.return_value[0] == (b"x" * 10_000, 1, 2)


@pytest.mark.parametrize("bench", ["process"], indirect=True)
def test_another_ring_by_then(bench: Bench, enqueued: list[Any]) -> None:
    """Where the process uses another ring by then, arguments are pickled for that."""
    with transaction.atomic():
        enqueue_on_commit(bench.on(tasks.echo), b"x" * 2_000)
        bench.configure(MAX_WORKERS=1, SLOT_SIZE=4096)
    (result,) = enqueued
    assert result.wait_finished(15).return_value[0] == (b"x" * 2_000,)


@INLINE_TOO
def test_a_delay_counts_from_the_commit(bench: Bench, enqueued: list[Any]) -> None:
    """A timedelta is added to the time of the commit."""
    later = bench.on(tasks.add).using(run_after=timedelta(hours=1))
    with transaction.atomic():
        enqueue_on_commit(later, 1)
    (result,) = enqueued
    delay = result.task.run_after - result.enqueued_at
    assert abs(delay - timedelta(hours=1)) < timedelta(seconds=1)


def test_no_room_at_the_commit(bench: Bench) -> None:
    """What only the enqueue itself can find out comes out of the end of the transaction."""
    bench.configure(MAX_WORKERS=1, MAX_PENDING=1)
    release = bench.occupy()
    commit = transaction.atomic()
    commit.__enter__()
    for n in range(2):
        enqueue_on_commit(bench.on(tasks.add), n)
    with pytest.raises(QueueFull):
        commit.__exit__(None, None, None)
    release()


@INLINE_TOO
def test_metadata_is_that_of_the_call(bench: Bench, enqueued: list[Any]) -> None:
    """Like the arguments: what is changed before the commit does not count."""
    noted: Any = with_metadata(bench.on(tasks.nothing), {"trace": 1})
    with transaction.atomic():
        enqueue_on_commit(noted)
        noted.metadata["trace"] = 2
    assert bench.backend.get_result(enqueued[0].id).metadata == {"trace": 1}
