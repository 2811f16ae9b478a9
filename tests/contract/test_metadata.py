"""Metadata of tasks, as Django's development line has them, on both backends and every Django."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.tasks import TaskResultStatus
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_finished

from django_tasks_local import metadata_of, with_metadata
from django_tasks_local.exceptions import TaskCancelled, TaskTimeout
from tests import note_tasks, stopped_tasks, tasks
from tests.contract.conftest import INLINE_TOO, Bench, finished
from tests.support import wait_for

A_DAY = timedelta(days=1)
FIRST = {"trace": 7, "tags": ("a", "b"), "_lib": 1}
STORED = {"trace": 7, "tags": ["a", "b"], "_lib": 1}
SHOWN = {"trace": 7, "tags": ["a", "b"]}


def run(bench: Bench, task: Any, *args: Any, metadata: dict[str, Any]) -> Any:
    """Runs a task with metadata to its end, and reads its result anew."""
    noted = bench.on(with_metadata(bench.on(task), metadata))
    result = finished(noted.enqueue(*args))
    found = noted.get_result(result.id)
    assert found.raw_metadata == result.raw_metadata
    return found


def wait_until(result: Any, condition: Callable[[Any], bool]) -> None:
    """Polls until the result is as it is to be."""

    def look() -> bool:
        result.refresh()
        return condition(result)

    wait_for(look)


@INLINE_TOO
def test_a_task_carries_metadata(bench: Bench) -> None:
    """From `using` into its context and its result, normalised, reserved keys hidden."""
    task: Any = bench.on(note_tasks.notes).using(metadata=FIRST)
    result = task.enqueue()
    assert (result.raw_metadata, result.metadata) == (STORED, SHOWN)
    finished(result)
    assert result.return_value == SHOWN
    found = task.get_result(result.id)
    assert (found.raw_metadata, found.metadata) == (STORED, SHOWN)
    assert found.task == bench.on(note_tasks.notes).using(metadata=STORED)
    assert metadata_of(bench.run(tasks.add, 1)) == {}
    with pytest.raises(InvalidTask):
        task.using(metadata={1: 2})


@INLINE_TOO
def test_changes_are_saved_at_the_end(bench: Bench) -> None:
    """Of sync and async tasks, in any depth, after a failure too; `_…` belongs to others."""
    for task in (note_tasks.write_notes, note_tasks.async_write_notes):
        given = {"a": 1, "_lib": "kept"}
        result = run(bench, task, {"b": [2], "_lib": "mine", "_other": 1}, metadata=given)
        assert result.status == TaskResultStatus.SUCCESSFUL
        assert result.raw_metadata == {"a": 1, "_lib": "kept", "b": [2]}
    failed = run(bench, note_tasks.write_notes, {"b": 2}, True, metadata={"list": [1]})
    assert failed.status == TaskResultStatus.FAILED
    assert failed.raw_metadata == {"list": [1, "failing"], "b": 2}


def test_metadata_outlive_a_stop(bench: Bench) -> None:
    """At the time limit what the task noted is saved; a cancelled one keeps what it was given."""
    late = run(bench, stopped_tasks.note_beyond_its_limit, metadata={"a": 1, "_lib": 2})
    assert late.errors[0].exception_class is TaskTimeout
    assert late.raw_metadata == {"a": 1, "_lib": 2, "begun": True}
    heard: list[Any] = []

    def receive(task_result: Any, **_: Any) -> None:
        heard.append(task_result.raw_metadata)

    task_finished.connect(receive)
    try:
        noted = bench.on(with_metadata(bench.on(tasks.add), {"a": 1}), run_after=A_DAY)
        result = noted.enqueue(1)
        assert result.cancel()
    finally:
        task_finished.disconnect(receive)
    found = noted.get_result(result.id)
    assert found.is_cancelled
    assert found.metadata == {"a": 1}
    assert heard == [{"a": 1}]
    noted.get_backend().save_metadata(found, {"b": 2})
    assert noted.get_result(result.id).metadata == {"b": 2}


@INLINE_TOO
def test_changes_that_are_not_json_fail_the_task(bench: Bench) -> None:
    """The task has ended well, and is FAILED all the same; what was stored before stays."""
    result = run(bench, note_tasks.write_notes, {"b": {1, 2}}, metadata={"a": 1})
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is TypeError
    assert result.raw_metadata == {"a": 1}
    failed = run(bench, note_tasks.write_notes, {"b": {1, 2}}, True, metadata={"list": []})
    (error,) = failed.errors
    assert error.exception_class is TypeError
    assert "ValueError: after its notes" in error.traceback
    assert failed.raw_metadata == {"list": []}


def test_a_stop_stays_a_stop(bench: Bench, tmp_path: Path) -> None:
    """What is stopped ends so, though its changes are not JSON; the text says that, too."""
    late = run(bench, stopped_tasks.note_beyond_its_limit, {1, 2}, metadata={"a": 1})
    (error,) = late.errors
    assert error.exception_class is TaskTimeout
    assert "metadata could not be saved: TypeError" in error.traceback
    assert late.raw_metadata == {"a": 1}
    told = bench.enqueue(stopped_tasks.note_until_cancelled, str(tmp_path / "noted"))
    wait_for((tmp_path / "noted.running").exists)
    assert told.cancel()
    (error,) = finished(told).errors
    assert error.exception_class is TaskCancelled
    assert "metadata could not be saved: TypeError" in error.traceback


def test_a_task_saves_while_it_runs(bench: Bench) -> None:
    """`save_metadata` and `asave_metadata`: whoever polls sees it before the end."""
    for task in (note_tasks.save_notes, note_tasks.async_save_notes):
        gate = str(bench.gates / task.name)
        result = bench.enqueue(task, gate)
        wait_until(result, lambda it: metadata_of(it) == {"step": 1})
        assert result.status == TaskResultStatus.RUNNING
        (bench.gates / task.name).touch()
        assert finished(result).return_value == [True, False]


def test_any_process_saves_through_the_backend(bench: Bench) -> None:
    """In any state, reserved keys included; the result that was given shows it at once."""
    release = bench.occupy(2)
    task: Any = bench.on(note_tasks.notes)
    waiting = task.using(metadata={"a": 1}).enqueue()
    bench.backend.save_metadata(waiting, {"b": (2,), "_c": 3})
    assert waiting.raw_metadata == {"b": [2], "_c": 3}
    release()
    assert finished(waiting).return_value == {"b": [2]}
    asyncio.run(bench.backend.asave_metadata(waiting, {}))
    found = task.get_result(waiting.id)
    assert (found.raw_metadata, waiting.raw_metadata) == ({}, {})
    bench.backend.save_metadata(found, {"late": True})
    waiting.refresh()
    assert waiting.metadata == {"late": True}
    with pytest.raises(TypeError):
        bench.backend.save_metadata(waiting, {"a": object()})
    object.__setattr__(waiting, "id", "00000000-0000-8000-8000-000000000000")
    with pytest.raises(TaskResultDoesNotExist):
        bench.backend.save_metadata(waiting, {})


def test_what_is_not_changed_is_not_saved(bench: Bench) -> None:
    """So that a task that only reads undoes nothing that others save while it runs."""
    gate = bench.gates / "gate"
    task: Any = bench.on(note_tasks.wait_with_context)
    result = task.using(metadata={"a": 1}).enqueue(str(gate))
    wait_until(result, lambda it: it.status == TaskResultStatus.RUNNING)
    bench.backend.save_metadata(result, {"a": 2})
    gate.touch()
    finished(result)
    result.refresh()
    assert result.raw_metadata == {"a": 2}
