"""Naming a task in a record, and finding it again."""

import pickle
import sys
import types
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.conf import settings
from django.tasks import Task, task
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.test import override_settings

from django_tasks_local import naming
from django_tasks_local.naming import copy_task, decode_task, encode_task, load_task
from django_tasks_local.store import task_path
from tests import tasks


@pytest.fixture(autouse=True)
def fresh_caches() -> None:
    """No test sees what another one has cached."""
    naming._encoded.clear()
    load_task.cache_clear()


def test_decorated_task_is_its_path_alone() -> None:
    """The usual case is short, and comes back as the very object."""
    meta = encode_task(tasks.add)
    assert meta == b"tests.tasks:add"
    assert decode_task(meta) is tasks.add
    assert encode_task(tasks.add) is meta, "cached"


@pytest.mark.parametrize(
    "changes",
    [
        {"priority": 5},
        {"queue_name": "default", "priority": -5},
        {"run_after": datetime(2030, 1, 1, tzinfo=UTC)},
        {"backend": "thread"},
    ],
    ids=str,
)
def test_changed_fields_come_back(changes: dict[str, Any]) -> None:
    """Fields that differ from the decorated task are stored, and only those."""
    changed = tasks.urgent_report.using(**changes)
    meta = encode_task(changed)
    assert task_path(meta) == "tests.tasks.urgent_report"
    assert pickle.loads(meta.partition(b"\0")[2]) == changes
    assert decode_task(meta) == changed


def test_back_to_the_default() -> None:
    """A changed field that was changed back needs no more than the path."""
    assert encode_task(tasks.add.using(priority=5).using(priority=0)) == b"tests.tasks:add"


def test_fields_keep_their_types() -> None:
    """1.0 is not 1 and not True: what was passed is what comes back."""
    changed = copy_task(tasks.add, priority=0.0)
    assert type(decode_task(encode_task(changed)).priority) is float


def test_plain_function_at_the_path() -> None:
    """`t = task(f)`: all fields and the class are stored."""
    decoded = decode_task(encode_task(tasks.wrapped_plain))
    assert decoded == tasks.wrapped_plain
    assert decoded.func is tasks.plain
    assert type(decoded) is type(tasks.wrapped_plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterTask(Task):  # type: ignore[type-arg]
    """A task as a later Django may have it, with fields of its own."""

    timeout: float = 10
    tags: list[str] = field(default_factory=list)


def later(**values: Any) -> LaterTask:
    """One of them; Django 6.0 has no defaults for the fields."""
    fields: dict[str, Any] = {
        "priority": 0, "backend": "default", "queue_name": "default", "run_after": None
    }  # fmt: skip
    return LaterTask(**fields | values)


def test_tasks_with_more_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields of a later Django, and a class of the project's own, go through."""
    decorated = later(func=tasks.plain, timeout=20)
    monkeypatch.setattr(tasks, "plain", decorated)
    assert decode_task(encode_task(decorated)) is decorated
    changed = replace(decorated, tags=["a"])
    decoded = decode_task(encode_task(changed))
    assert decoded == changed
    assert isinstance(decoded, LaterTask)


def test_class_differs_from_the_decorated_task() -> None:
    """A task made by hand for a decorated function keeps its class."""
    made = later(func=tasks.add.func, timeout=5)
    assert decode_task(encode_task(made)) == made


def test_record_of_an_older_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that the record does not know get their defaults, without any they stay unset."""
    meta = encode_task(tasks.wrapped_plain)
    values = pickle.loads(meta.partition(b"\0")[2])
    old = b"tests.tasks:plain\0" + pickle.dumps({**values, "": LaterTask})
    decoded = decode_task(old)
    assert decoded == later(func=tasks.plain, priority=3)
    assert decoded.tags == []

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Stricter(Task):  # type: ignore[type-arg]
        needed: int

    monkeypatch.setattr(tasks, "Stricter", Stricter, raising=False)
    Stricter.__qualname__, Stricter.__module__ = "Stricter", "tests.tasks"
    strict = decode_task(b"tests.tasks:plain\0" + pickle.dumps({**values, "": Stricter}))
    assert not hasattr(strict, "needed")


def test_decoding_does_not_validate() -> None:
    """A queue that was dropped from the settings does not make results unreadable."""
    meta = encode_task(tasks.add.using(queue_name="reports"))
    with override_settings(TASKS={**settings.TASKS, "default": {**settings.TASKS["default"]}}):
        settings.TASKS["default"]["QUEUES"] = ["default"]
        with pytest.raises(InvalidTask):
            tasks.add.using(queue_name="reports")
        assert decode_task(meta).queue_name == "reports"


def test_script_s_own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of the running script is found in sys.modules, as ``__main__``."""
    main = types.ModuleType("__main__")
    exec("def f(): pass", main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    decorated = task(main.f)
    main.f = decorated  # type: ignore[attr-defined]
    assert decode_task(encode_task(decorated)) is decorated


def test_module_is_imported_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads a result need not have imported the task's module before."""
    meta = encode_task(tasks.add)
    monkeypatch.delitem(sys.modules, "tests.tasks")
    assert decode_task(meta).name == "add"


def broken_tasks() -> dict[str, Any]:
    """Tasks that their paths do not lead to, by what is wrong with them."""
    there: dict[str, Any] = {}
    for name, module in (("gone", "tests.tasks"), ("nowhere", "no_such_module_at_all")):
        exec(f"def {name}(): pass", {"__name__": module}, there)
        there[name] = task(there[name])
    exec("def add(): pass", {"__name__": "tests.tasks"}, there)  # Another one has this name.
    exec("def GATE_LIMIT_S(): pass", {"__name__": "tests.tasks"}, there)  # A number has.
    return {n: f if isinstance(f, Task) else task(f) for n, f in there.items() if n[0] != "_"}


@pytest.mark.parametrize("name", ["gone", "nowhere", "add", "GATE_LIMIT_S"])
def test_not_found_again(name: str) -> None:
    """What its path does not lead to is an InvalidTask at enqueue, named."""
    broken = broken_tasks()[name]
    with pytest.raises(InvalidTask, match=rf"{broken.module_path} cannot be found again"):
        encode_task(broken)


def test_field_that_cannot_be_pickled() -> None:
    """A field that has to be stored and cannot be is an InvalidTask."""
    with pytest.raises(InvalidTask, match=r"tests\.tasks\.add.*pickled"):
        encode_task(copy_task(tasks.add, queue_name=lambda: None))


@pytest.mark.parametrize(
    "meta",
    [
        b"tests.tasks:gone",
        b"no_such_module_at_all:f",
        b"tests.tasks:plain",
        b"tests.tasks:GATE_LIMIT_S\0" + pickle.dumps({"": Task}),
        b"tests.tasks:add\0not a pickle",
        b"",
        b":",
        b"\xff\xfe",
    ],
    ids=repr,
)
def test_no_longer_a_task(meta: bytes) -> None:
    """Where the path leads nowhere, or to no task, reading says so, from the cause."""
    with pytest.raises(TaskResultDoesNotExist) as caught:
        decode_task(meta)
    assert caught.value.__cause__ is not None


def test_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that makes tasks without end does not grow the cache without end."""
    monkeypatch.setattr(naming, "_ENCODED_LIMIT", 2)
    for each in (tasks.add, tasks.nothing, tasks.pid, tasks.text):
        encode_task(each)
    assert len(naming._encoded) <= 2
