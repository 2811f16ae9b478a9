"""The package's exceptions: facts as attributes, and in the text."""

import ast
import pickle
from typing import Any

import pytest

from django_tasks_local.exceptions import (
    PayloadTooLarge,
    QueueFull,
    StoreUnavailable,
    WorkerLost,
    describe,
)
from tests import tasks
from tests.support import ROOT


@pytest.mark.parametrize(
    ("error", "facts", "words"),
    [
        (
            QueueFull("a", 10_000, 10_000),
            {"alias": "a", "waiting": 10_000, "limit": 10_000, "option": "MAX_PENDING"},
            ["'a'", "10,000", "raise MAX_PENDING"],
        ),
        (
            QueueFull("a", 5, 2**20, "SHM_SIZE"),
            {"waiting": 5, "limit": 2**20, "option": "SHM_SIZE"},
            ["5 tasks", "1,048,576 bytes", "raise SHM_SIZE"],
        ),
        (
            PayloadTooLarge("arguments of task x.f", 70_112, 65_536),
            {
                "what": "arguments of task x.f",
                "size": 70_112,
                "limit": 65_536,
                "option": "SHM_SIZE",
                "fix": "raise SHM_SIZE",
            },
            ["Arguments of task x.f", "70,112", "65,536", "or raise SHM_SIZE."],
        ),
        (
            PayloadTooLarge("return value of task x.f", 9, 5, fix="give /dev/shm more room"),
            {"option": "SHM_SIZE", "fix": "give /dev/shm more room"},
            ["Return value of task x.f", "or give /dev/shm more room."],
        ),
        (
            WorkerLost(7, "was killed by SIGKILL", 1.5, signal=9),
            {"pid": 7, "cause": "was killed by SIGKILL", "ran_s": 1.5, "signal": 9},
            ["Worker process 7 was killed by SIGKILL, 1.5 s after the task had started."],
        ),
        (
            StoreUnavailable("it is gone", path="/dev/shm/x", fix="make it again"),
            {"what": "it is gone", "path": "/dev/shm/x", "fix": "make it again"},
            ["/dev/shm/x: It is gone. Make it again."],
        ),
        (StoreUnavailable("Gone."), {"path": None, "fix": None}, ["Gone."]),
        (StoreUnavailable("gone; `x` says why"), {"fix": None}, ["Gone; `x` says why."]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exceptions(error: Exception, facts: dict[str, Any], words: list[str]) -> None:
    """Each has its facts as attributes and in its text, and goes through pickle with both."""
    error.add_note("a note")
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert type(each) is type(error)
        assert str(each) == str(error)
        assert each.__notes__ == ["a note"]
        for name, value in facts.items():
            assert getattr(each, name) == value
        for word in words:
            assert word in str(each)


def test_describe() -> None:
    """Any exception has a one-line description, even one whose str() raises."""
    assert describe(KeyError("x")) == "KeyError: 'x'"
    assert describe(ValueError()) == "ValueError"
    assert describe(tasks.Broken()) == "Broken: <its str() failed>"


def test_an_unusable_store_always_comes_with_a_way_out() -> None:
    """Each place that makes a StoreUnavailable says what to do, so its text has both sentences."""
    calls = [
        (f"{path.name}:{node.lineno}", {keyword.arg for keyword in node.keywords})
        for path in (ROOT / "django_tasks_local").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "StoreUnavailable"
    ]
    assert calls
    assert not [place for place, keywords in calls if "fix" not in keywords]
