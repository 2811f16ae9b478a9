"""What `manage.py check` says of follow-ups, and plans that go round in a circle."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from django.tasks import Task, task, task_backends
from django.tasks.exceptions import InvalidTask

from django_tasks_local import policy
from django_tasks_local.following import Plan, problems
from django_tasks_local.policies import policy_of
from django_tasks_local.ties import NOTHING
from tests import tied_tasks as tied

NAME = "tests_of_following"


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """A module for tasks, which is gone after the test."""
    made = sys.modules[NAME] = ModuleType(NAME)
    yield made
    del sys.modules[NAME]


def add(module: ModuleType, name: str, alias: str = "thread", **words: str) -> Task[..., object]:
    """Puts a task into the module."""

    def function(result_id: str) -> None:
        """Does nothing."""

    function.__module__, function.__qualname__ = NAME, name
    made: Task[..., object] = task(backend=alias)(policy(**words)(function))  # type: ignore[arg-type]
    setattr(module, name, made)
    return made


def test_the_check(module: ModuleType) -> None:
    """Each follow-up of an alias that cannot follow is named, with the reason and a way out."""
    add(module, "good", then=f"{NAME}.lonely", on_failure="tests.tied_tasks.nowhere")
    add(module, "lonely", then="sys.path")
    add(module, "strange", then="tests.tied_tasks.note")
    add(module, "elsewhere", alias="process", then=f"{NAME}.nothing")
    found = task_backends["thread"].check()
    assert {message.id for message in found} == {"django_tasks_local.E017"}
    assert all(message.hint and "@task(backend='thread')" in message.hint for message in found)
    wanted = [
        "good: on_failure='tests.tied_tasks.nowhere': tests.tied_tasks.nowhere cannot be imported",
        "lonely: then='sys.path': sys.path is not a task but of type list",
        "strange: then='tests.tied_tasks.note': tests.tied_tasks.note belongs to backend 'default'",
    ]
    assert len(found) == len(wanted)
    for message, text in zip(found, wanted, strict=True):
        assert message.msg.startswith(f"Task {NAME}.{text}")
    assert list(problems("inline")) == []


def test_a_circle(module: ModuleType) -> None:
    """A plan has each task once, whatever follows what."""
    first = add(module, "first", then=f"{NAME}.second", on_failure=f"{NAME}.first")
    add(module, "second", then=f"{NAME}.first")
    plan = Plan(first, "thread", lambda task: 7)
    ties = plan.ties(policy_of(first.func), "")
    assert len(ties.plan) == 2
    second, again = ties.plan[ties.then], ties.plan[ties.on_failure]
    assert (second.meta, second.then, second.on_failure) == (
        f"{NAME}:second".encode(), ties.on_failure, NOTHING,
    )  # fmt: skip
    assert (again.meta, again.then, again.on_failure) == (
        f"{NAME}:first".encode(), ties.then, ties.on_failure,
    )  # fmt: skip
    assert again.time_limit == 7


@pytest.mark.parametrize("value", ["", "task", "a b.c", "reports.", 7, len])
def test_what_is_no_follow_up(value: object) -> None:
    """It is refused at import, with the word and the value."""
    with pytest.raises(InvalidTask, match=r"then=.*: it must be a task, or its import path"):
        policy(then=value)(lambda: None)  # type: ignore[arg-type]


def test_a_task_stands_for_its_path() -> None:
    """Both spellings are the same."""
    by_task = policy_of(policy(then=tied.note)(lambda: None))
    assert by_task == policy_of(policy(then="tests.tied_tasks.note")(lambda: None))
