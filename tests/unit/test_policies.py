"""What a function says of how its task is to be run: checked at import, stored on the function."""

import math
from datetime import timedelta
from decimal import Decimal
from types import FunctionType
from typing import Any

import pytest
from django.tasks.exceptions import InvalidTask
from django.test import override_settings

from django_tasks_local import exponential, fixed, policy
from django_tasks_local.policies import (
    LONGEST_TIMEOUT_S,
    Policy,
    policy_of,
    retries_of,
    run_limits,
)
from django_tasks_local.retrying import Retries
from django_tasks_local.store import grace_s, limit_s, lost_attempts
from tests import tasks

BACKEND = "django_tasks_local.ThreadPoolBackend"
IMMEDIATE = "django.tasks.backends.immediate"


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
    [0, -1, -0.0, -math.inf, math.nan, True, False, "30", b"1", [1], 1j, Decimal(3),
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
    assert limit_s(run_limits(policy(timeout=math.inf)(made()), 7, 5)) == 0


def raises(*args: Any) -> Any:
    """A function that is no backoff."""
    raise AssertionError


async def waits(exception: BaseException, task_result: Any) -> float:
    """An async function that is none, either."""
    return 0


class Waits:
    """Nor is an object that is called as one."""

    async def __call__(self, exception: BaseException, task_result: Any) -> float:
        """Do not wait."""
        return 0


@pytest.mark.parametrize(
    ("word", "value", "wanted"),
    [
        ("max_attempts", 0, "a whole number from 1 to 1,000, the first attempt included"),
        ("max_attempts", 1001, "a whole number from 1 to 1,000"),
        ("max_attempts", True, "not of type bool"),
        ("max_attempts", 2.0, "not of type float"),
        ("backoff", 5, "such as fixed(10) or exponential(base=2, maximum=600), not of type int"),
        ("backoff", timedelta(1), "not of type timedelta"),
        ("backoff", int, "a class is not"),
        ("backoff", exponential, "call it with its arguments"),
        ("backoff", fixed, "call it with its arguments"),
        ("backoff", waits, "async is not"),
        ("backoff", Waits(), "async is not"),
        ("retry_on", "OSError", "'OSError', of type str, is not an exception class"),
        ("retry_on", (OSError, int), "of type type, is not an exception class"),
        ("retry_on", OSError("x"), "of type OSError, is not an exception class"),
        ("never", raises, "of type function, is not an exception class"),
        ("never", [KeyError, None], "None, of type NoneType, is not an exception class"),
        ("retry_lost", 1, "it must be True or False, not of type int"),
    ],
)
def test_wrong_words_of_retries(word: str, value: Any, wanted: str) -> None:
    """The error comes at import, and names task, word and value."""
    words: dict[str, Any] = {word: value}
    with pytest.raises(InvalidTask) as caught:
        policy(**words)(made())
    text = str(caught.value)
    assert text.startswith(f"Task shop.tasks.bill: {word}={value!r}: it must be ")
    assert wanted in text


def test_what_a_function_says_of_retries() -> None:
    """Exception classes are kept as tuples; each word goes before that of the alias by itself."""
    backoff = exponential(base=2, maximum=600)
    function = policy(max_attempts=7, retry_on=OSError, never=[FileNotFoundError])(made())  # type: ignore[arg-type]
    policy(retry_lost=True, backoff=backoff)(function)
    assert policy_of(function) == Policy(
        None, 7, backoff, (OSError,), (FileNotFoundError,), retry_lost=True
    )
    assert lost_attempts(run_limits(function, None, 5)) == 7
    assert lost_attempts(run_limits(made(), None, 5, max_attempts=9, retry_lost=True)) == 9
    assert lost_attempts(run_limits(made(), None, 5, max_attempts=9)) == 0
    assert lost_attempts(run_limits(policy(retry_lost=False)(made()), 1, 5, retry_lost=True)) == 0
    word = run_limits(policy(max_attempts=1000, retry_lost=True)(made()), LONGEST_TIMEOUT_S, 3600)
    assert (limit_s(word), grace_s(word)) == (LONGEST_TIMEOUT_S, 3600)
    assert lost_attempts(word) == 1000 < 2**64 > word
    with override_settings(
        TASKS={"a": {"BACKEND": BACKEND, "OPTIONS": {"MAX_ATTEMPTS": 3, "BACKOFF": fixed(5)}}}
    ):
        assert retries_of("a", function) == Retries(7, backoff, (OSError,), (FileNotFoundError,))
        assert retries_of("a", made()) == Retries(3, fixed(5), (Exception,), ())
        assert retries_of("a", policy(max_attempts=1)(made())) is None
    with override_settings(TASKS={"a": {"BACKEND": f"{IMMEDIATE}.ImmediateBackend"}}):
        assert retries_of("a", function) is None
