"""Metadata, case by case as Django's development line tests them, on every backend of ours.

| Behaviour | Test here |
|---|---|
| `using(metadata=…)` sets, other changes keep, `{}` clears, the task itself stays | `test_using` |
| A task's hash is without metadata, its equality is not | `test_hash_and_equality` |
| A task with metadata can be pickled where tasks can | `test_pickling` |
| What is no dict, has other keys than strings, or has no form in JSON is refused | `test_refused` |
| A backend without metadata refuses all but `{}` | `test_a_backend_without` |
| Given and shown in the types of JSON | `test_runs`: normalised |
| Reserved keys are hidden, but for `raw_metadata` | `test_runs`: reserved |
| `result.metadata` is a copy | `test_a_copy` |
| What a task changes is saved at its end: sync, async, failed, deep inside | `test_runs`: four |
| What is not changed is not saved | `test_runs`: only read; `test_metadata.py` |
| Changes without a form in JSON fail the task, and what was stored stays | `test_runs`: no JSON |
| `save_metadata`, `asave_metadata` in a task | `test_runs`: saved, saved async |
| Reserved keys survive a save, and cannot be written by tasks | `test_runs`: kept |
| A context of any process saves, and shares nothing with the store | `test_a_context_elsewhere` |
| The same in an event loop | `test_a_context_in_an_event_loop` |
| `refresh()` brings what others have saved | `test_refresh` |
| The backend's sync and async method do the same | `test_both_methods_of_the_backend` |
| `supports_metadata` | `test_supported` |
"""

from __future__ import annotations

import asyncio
import pickle
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.tasks import Task, TaskContext, TaskResultStatus
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.exceptions import InvalidTask
from django.test import override_settings

from django_tasks_local.metadata import DJANGO_HAS_METADATA, LocalTaskContext
from tests import note_tasks
from tests.contract.conftest import INLINE_TOO, Bench, finished

Context: Any = TaskContext if DJANGO_HAS_METADATA else LocalTaskContext
SUCCESSFUL, FAILED = TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED
GIVEN = {"trace": 1}


class Without(BaseTaskBackend):
    """A backend that knows nothing of metadata."""

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError


class Run(NamedTuple):
    """A task, and what there is of its metadata when it has ended."""

    id: str
    task: Any
    given: dict[str, Any]
    args: tuple[Any, ...]
    raw: dict[str, Any]
    value: Any = None
    error: type[Exception] | None = None


LISTS = {"trace": 1, "tags": ["a", "b"]}
WRITE, AWRITE = note_tasks.write_notes, note_tasks.async_write_notes
FAILING = {"list": ["failing"]}
OTHERS = {"_lib": "mine", "_other": "mine", "b": 2}
RUNS = [
    Run("normalised", note_tasks.notes, {"trace": 1, "tags": ("a", "b")}, (), LISTS, LISTS),
    Run("reserved", note_tasks.notes, GIVEN | {"_lib": 2}, (), GIVEN | {"_lib": 2}, GIVEN),
    Run("saved at the end", WRITE, GIVEN, ({"b": 2},), GIVEN | {"b": 2}),
    Run("of an async task", AWRITE, GIVEN, ({"b": 2},), GIVEN | {"b": 2}),
    Run(
        "of a failed task", WRITE, {"list": []}, ({}, True), {"list": ["failing"]}, None, ValueError
    ),
    Run("deep inside", note_tasks.append_note, {"list": [1]}, (2,), {"list": [1, 2]}),
    Run("only read", note_tasks.look_at_notes, GIVEN, (), GIVEN, False),
    Run("no JSON", WRITE, GIVEN, ({"b": {1, 2}},), GIVEN, None, TypeError),
    Run("saved", note_tasks.save_and_return, {}, ("b", 2), {"b": 2}, {"b": 2}),
    Run("saved async", note_tasks.async_save_and_return, {}, ("b", 2), {"b": 2}, {"b": 2}),
    Run("kept", WRITE, {"a": 1, "_lib": "its"}, (OTHERS,), {"a": 1, "b": 2, "_lib": "its"}),
]


def on(bench: Bench, metadata: dict[str, Any] | None = None, task: Any = note_tasks.notes) -> Any:
    task = bench.on(task)
    return task if metadata is None else task.using(metadata=metadata)


@INLINE_TOO
@pytest.mark.parametrize("case", RUNS, ids=[case.id for case in RUNS])
def test_runs(bench: Bench, case: Run) -> None:
    """What the task saw, how it ended, and what is stored and shown."""
    result = finished(on(bench, case.given, case.task).enqueue(*case.args))
    assert [error.exception_class for error in result.errors] == [*filter(None, [case.error])]
    assert result.status == (FAILED if case.error else SUCCESSFUL)
    assert case.error or result.return_value == case.value
    for found in (result, bench.backend.get_result(result.id)):
        assert found.raw_metadata == case.raw
        shown = {key: value for key, value in case.raw.items() if not key.startswith("_")}
        assert found.metadata == shown


@INLINE_TOO
def test_using(bench: Bench) -> None:
    """Sets, keeps and clears, in a copy."""
    plain, task = on(bench), on(bench, GIVEN)
    assert (plain.metadata, task.metadata) == ({}, GIVEN)
    assert task.using(priority=1).metadata == GIVEN
    assert task.using(metadata={}).metadata == {}


@INLINE_TOO
def test_hash_and_equality(bench: Bench) -> None:
    """Metadata counts for the second alone."""
    assert hash(on(bench, GIVEN)) == hash(on(bench))
    assert on(bench, GIVEN) != on(bench)


@INLINE_TOO
def test_pickling(bench: Bench) -> None:
    """Django 6.0 cannot pickle its tasks; each later one can, and those with metadata likewise."""
    task = on(bench, GIVEN)
    if "__reduce__" in vars(Task):
        assert pickle.loads(pickle.dumps(task)) == task
    else:
        with pytest.raises(pickle.PicklingError):
            pickle.dumps(on(bench))


@INLINE_TOO
@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ([("a", 1)], "metadata must be a dict"),
        ({1: "a"}, "metadata keys must be strings"),
        ({"a": object()}, "metadata must be JSON-serializable"),
    ],
)
def test_refused(bench: Bench, metadata: Any, text: str) -> None:
    """At `using`, in Django's words."""
    with pytest.raises(InvalidTask, match=text):
        on(bench, metadata)


@INLINE_TOO
def test_a_backend_without(bench: Bench) -> None:
    """A task of ours does not take its metadata there."""
    without = {"BACKEND": f"{__name__}.Without"}
    with override_settings(TASKS=settings.TASKS | {"without": without}):
        task = on(bench).using(backend="without")
        assert task.using(metadata={}).metadata == {}
        for refused in ({"metadata": GIVEN}, {"metadata": GIVEN, "priority": 0}):
            with pytest.raises(InvalidTask, match="does not support metadata"):
                task.using(**refused)
        with pytest.raises(InvalidTask, match="does not support metadata"):
            on(bench, GIVEN).using(backend="without")


@INLINE_TOO
def test_a_copy(bench: Bench) -> None:
    """To change what `metadata` returns changes nothing."""
    result = on(bench, GIVEN).enqueue()
    result.metadata["trace"] = 2
    assert result.metadata == GIVEN


@INLINE_TOO
def test_a_context_elsewhere(bench: Bench) -> None:
    """Made of a result, outside the task, it saves for all who look."""
    result = finished(on(bench, GIVEN).enqueue())
    context = Context(task_result=result)
    context.metadata["b"] = [2]
    assert context.metadata_modified
    context.save_metadata()
    assert not context.metadata_modified
    stored = bench.backend.get_result(result.id)
    context.metadata["b"].append(3)
    for found in (stored, bench.backend.get_result(result.id)):
        assert found.metadata == GIVEN | {"b": [2]}


@INLINE_TOO
def test_a_context_in_an_event_loop(bench: Bench) -> None:
    """From `aenqueue` to `aget_result`."""

    async def save() -> Any:
        result = await on(bench, GIVEN).aenqueue()
        await result.await_finished()
        context = Context(task_result=result)
        context.metadata["b"] = 2
        await context.asave_metadata()
        return await bench.backend.aget_result(result.id)

    assert asyncio.run(save()).metadata == GIVEN | {"b": 2}


@INLINE_TOO
def test_refresh(bench: Bench) -> None:
    """Reserved keys as well as others."""
    result = finished(on(bench, GIVEN).enqueue())
    bench.backend.save_metadata(bench.backend.get_result(result.id), {"a": 2, "_lib": 3})
    assert result.metadata == GIVEN
    result.refresh()
    assert (result.metadata, result.raw_metadata) == ({"a": 2}, {"a": 2, "_lib": 3})


@INLINE_TOO
def test_both_methods_of_the_backend(bench: Bench) -> None:
    """Whichever of them code calls."""
    result = finished(on(bench, GIVEN).enqueue())
    bench.backend.save_metadata(result, {"a": 1})
    assert bench.backend.get_result(result.id).metadata == {"a": 1}
    asyncio.run(bench.backend.asave_metadata(result, {"a": 2}))
    assert bench.backend.get_result(result.id).metadata == {"a": 2}


@INLINE_TOO
def test_supported(bench: Bench) -> None:
    """Each backend says so, as Django's own will."""
    assert bench.backend.supports_metadata is True
