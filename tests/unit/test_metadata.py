"""Metadata apart from any store: what is accepted, how it is stored, what a task is handed."""

import enum
import pickle
from dataclasses import replace
from typing import Any

import pytest
from django.tasks import Task, TaskResultStatus
from django.tasks.exceptions import InvalidTask

from django_tasks_local import metadata_of, with_metadata
from django_tasks_local.metadata import (
    DJANGO_HAS_METADATA,
    TASK_CLASS,
    LocalTaskContext,
    decode,
    encode,
)
from django_tasks_local.naming import add_metadata, decode_task, encode_task
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.store import PlainSnapshot
from tests import note_tasks, tasks

TRACED: Any = with_metadata(tasks.add, {"trace": "a", "_lib": [1]})
needs_own_class = pytest.mark.skipif(DJANGO_HAS_METADATA, reason="Django's own class has it all")


class Color(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({}, {}),
        ({"a": 1, "b": None, "c": 1.5, "d": True}, {"a": 1, "b": None, "c": 1.5, "d": True}),
        ({"a": (1, (2,))}, {"a": [1, [2]]}),
        ({"a": {"b": ("é", "\0", "\ud800")}}, {"a": {"b": ["é", "\0", "\ud800"]}}),
        ({"a": b"text"}, {"a": "text"}),
        ({"a": Color.RED}, {"a": 3}),
    ],
)
def test_normalised(given: dict[str, Any], stored: dict[str, Any]) -> None:
    """What comes back has the types of JSON, whatever of them went in."""
    data = encode(given)
    assert decode(data) == stored
    assert decode(data) is not decode(data)
    assert bool(data) == bool(given)


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ([("a", 1)], r"metadata must be a dict\. It is of type list"),
        ([], r"metadata must be a dict\."),
        ("", r"metadata must be a dict\."),
        ({1: "a"}, r"metadata keys must be strings\. 1 is not"),
        ({"a": object()}, "metadata must be JSON-serializable"),
        ({"a": {1, 2}}, "metadata must be JSON-serializable"),
        ({"a": b"\xff"}, "metadata must be JSON-serializable"),
        ({"a": 10**5000}, "metadata must be JSON-serializable"),
    ],
)
@pytest.mark.parametrize("alias", ["thread", "process"])
def test_refused(alias: str, metadata: Any, text: str) -> None:
    """By the task, before anything is enqueued."""
    task: Any = tasks.add.using(backend=alias)
    if not DJANGO_HAS_METADATA:  # or else it is Django's own text
        with pytest.raises(InvalidTask, match=text):
            with_metadata(task, metadata)
    else:
        with pytest.raises(InvalidTask):
            with_metadata(task, metadata)


def test_what_contains_itself_is_refused() -> None:
    """And what is nested too deeply for Python."""
    metadata: dict[str, Any] = {}
    metadata["a"] = metadata
    with pytest.raises(ValueError, match="contains itself"):
        encode(metadata)


# --- tasks -----------------------------------------------------------------------------------


def test_using_replaces() -> None:
    """And never merges; other changes keep metadata, and an empty dict clears it."""
    task: Any = tasks.add
    assert isinstance(task, TASK_CLASS)
    assert task.metadata == {}
    assert TRACED.using(priority=3).metadata == {"trace": "a", "_lib": [1]}
    assert TRACED.using(metadata={"b": 2}).metadata == {"b": 2}
    assert TRACED.using(metadata={}).metadata == {}
    assert TRACED.using(metadata={}, priority=3) == task.using(priority=3)
    assert hash(TRACED) == hash(task)
    assert task != TRACED
    with pytest.raises(TypeError):
        task.using(colour="red")


def test_the_name_of_a_task_is_without_metadata() -> None:
    """A trace id for each task must not make a name for each."""
    assert encode_task(TRACED) == encode_task(tasks.add)
    found = add_metadata(decode_task(encode_task(TRACED)), encode(TRACED.metadata))
    assert found == TRACED
    assert add_metadata(TRACED, b"") == tasks.add


def test_a_task_for_another_backend() -> None:
    """A backend without metadata gets none: `using` says so, `with_metadata` leaves it out."""
    foreign: Any = tasks.add.using(backend="immediate")
    backend = foreign.get_backend()
    if getattr(backend, "supports_metadata", False):
        pytest.skip("this Django's own backends have metadata")
    with pytest.raises(InvalidTask, match="does not support metadata"):
        foreign.using(metadata={"a": 1})
    with pytest.raises(InvalidTask, match="does not support metadata"):
        TRACED.using(backend="immediate")
    assert foreign.using(metadata={}) == foreign
    assert with_metadata(foreign, {"a": 1}) is foreign
    with pytest.raises(InvalidTask, match="JSON"):
        with_metadata(foreign, {"a": object()})


def test_a_task_decorated_for_another_backend() -> None:
    """It may have Django's own class, and goes to our backends with metadata all the same."""
    decorated = note_tasks.for_immediate
    assert type(decorated) is Task
    moved = decorated.using(backend="thread", priority=7)
    traced = with_metadata(moved, {"a": (1,)})
    assert metadata_of(traced) == {"a": (1,)}
    assert (traced.priority, traced.backend, traced.func) == (7, "thread", decorated.func)
    found = add_metadata(decode_task(encode_task(traced)), encode(metadata_of(traced)))
    assert found == with_metadata(moved, {"a": [1]})
    assert decode_task(encode_task(moved)) == moved


@needs_own_class
def test_our_task_pickles_where_djangos_does() -> None:
    """With its metadata."""
    try:
        pickle.dumps(note_tasks.for_immediate)
    except pickle.PicklingError:
        pytest.skip("tasks of Django 6.0 cannot be pickled")
    assert pickle.loads(pickle.dumps(TRACED)) == TRACED


# --- contexts and results --------------------------------------------------------------------


def result_with(metadata: dict[str, Any]) -> LocalTaskResult:
    running = TaskResultStatus.RUNNING
    snapshot = PlainSnapshot(
        "an id", running, encode_task(tasks.add), 1, 2, 0, "w", None, lambda: ((), {}),
        lambda: None, metadata=encode(metadata),
    )  # fmt: skip
    return LocalTaskResult.from_snapshot(snapshot, "thread")


def test_a_result_hides_reserved_keys() -> None:
    """`raw_metadata` has them all; `metadata` is a copy."""
    result = result_with({"a": 1, "_b": 2})
    assert result.raw_metadata == {"a": 1, "_b": 2}
    assert result.metadata == metadata_of(result) == {"a": 1}
    result.metadata["c"] = 3
    assert result.metadata == {"a": 1}
    assert result.task == with_metadata(tasks.add, {"a": 1, "_b": 2})
    again = pickle.loads(pickle.dumps(result))
    assert (again.raw_metadata, again.task) == (result.raw_metadata, result.task)
    if DJANGO_HAS_METADATA:
        assert replace(result).raw_metadata == result.raw_metadata


def test_a_context_has_a_copy() -> None:
    """To any depth: changes are seen as such, and not in the result."""
    result = result_with({"a": {"b": [1]}, "_c": 1})
    context = LocalTaskContext(task_result=result)
    assert context.metadata == metadata_of(context) == {"a": {"b": [1]}}
    assert not context.metadata_modified
    context.metadata["a"]["b"].append(2)
    assert context.metadata_modified
    assert result.raw_metadata == {"a": {"b": [1]}, "_c": 1}


def test_a_context_of_a_foreign_result() -> None:
    """It has no metadata, and says so by being empty."""
    assert metadata_of(object()) == {}
