"""What a function says of how its task is to be run: checked at import, stored on the function."""

import math
from datetime import timedelta
from decimal import Decimal
from types import FunctionType
from typing import Any

import pytest
from django.tasks.exceptions import InvalidTask

from django_tasks_local import policy
from django_tasks_local.policies import LONGEST_TIMEOUT_S, Policy, policy_of, run_limits
from django_tasks_local.store import grace_s, limit_s
from tests import tasks


def made() -> Any:
    """A new function."""
    function = FunctionType((lambda: None).__code__, {"__name__": "shop.tasks"})
    function.__qualname__ = "bill"
    return function


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(30, 30.0), (0.25, 0.25), (timedelta(minutes=2), 120.0), (LONGEST_TIMEOUT_S, 4_294_967.295)],
)
def test_a_timeout_is_stored_in_seconds(value: Any, seconds: float) -> None:
    """The decorator returns the function itself."""
    function = made()
    assert policy(timeout=value)(function) is function
    assert policy_of(function).timeout == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [0, -1, -0.0, math.inf, -math.inf, math.nan, True, False, "30", b"1", [1], 1j, Decimal(3),
     timedelta(0), timedelta(seconds=-1), timedelta.max, 2**32 / 1000, 10**400],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_wrong_values_name_task_and_value(value: Any) -> None:
    """The error comes at import, and says what was wanted."""
    with pytest.raises(InvalidTask) as caught:
        policy(timeout=value)(made())
    text = str(caught.value)
    assert text.startswith("Task shop.tasks.bill: ")
    assert f"timeout={value!r}" in text
    assert "a number of seconds or a timedelta" in text


def test_one_truth() -> None:
    """Two spellings may say the same twice, and not two things."""
    function = policy(timeout=30)(made())
    policy(timeout=timedelta(seconds=30))(function)
    with pytest.raises(InvalidTask, match=r"timeout is 30\.0 in one place and 31\.0 in another"):
        policy(timeout=31)(function)
    assert policy_of(function) == Policy(timeout=30.0)


def test_above_task() -> None:
    """There it would mean nothing, so it says where it belongs."""
    with pytest.raises(InvalidTask, match=r"tests\.tasks\.add: @policy stands above @task"):
        policy(timeout=3)(tasks.add)  # type: ignore[type-var]
    with pytest.raises(InvalidTask, match="is for functions"):
        policy(timeout=3)(3)  # type: ignore[type-var]


def test_the_word_of_a_record() -> None:
    """What the function says goes before what the alias says; a limit never rounds to none."""
    function = policy(timeout=0.0001)(made())
    word = run_limits(function, 7, 5)
    assert (limit_s(word), grace_s(word)) == (0.001, 5)
    word = run_limits(made(), 7, 3600)
    assert (limit_s(word), grace_s(word)) == (7, 3600)
    assert limit_s(run_limits(made(), None, 0)) == 0
