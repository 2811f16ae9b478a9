"""The backoffs that ship: values that say how long to wait, by the number of attempts."""

import math
import pickle
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from django_tasks_local import exponential, fixed
from django_tasks_local.attempts import add_attempt, cut, kept
from django_tasks_local.backoff import LONGEST_S


def after(attempts: int) -> Any:
    """The result of a task that was tried so often."""
    return SimpleNamespace(attempts=attempts)


def test_exponential() -> None:
    """It doubles, up to its maximum, for as many attempts as one likes."""
    backoff = exponential(base=2, maximum=timedelta(minutes=1), jitter=False)
    delays = [backoff(None, after(attempts)) for attempts in (1, 2, 3, 4, 5, 6, 1000)]
    assert delays == [2, 4, 8, 16, 32, 60, 60]
    assert exponential(0, 5)(None, after(9)) == 0
    assert exponential(9, 5, jitter=False)(None, after(1)) == 5


def test_jitter() -> None:
    """A random part of the pause, at least half of it."""
    backoff = exponential(base=8, maximum=600)
    delays = {backoff(None, after(1)) for _ in range(200)}
    assert len(delays) > 100
    assert all(4 <= delay <= 8 for delay in delays)


def test_fixed() -> None:
    """The same after each attempt."""
    assert {fixed(timedelta(seconds=3))(None, after(attempts)) for attempts in range(9)} == {3}


def test_they_are_values() -> None:
    """They can be compared, hashed, pickled and shown as they were written."""
    for backoff, text in (
        (exponential(base=0.5, maximum=600), "exponential(base=0.5, maximum=600)"),
        (exponential(1, 2, jitter=False), "exponential(base=1, maximum=2, jitter=False)"),
        (fixed(30), "fixed(30)"),
    ):
        assert pickle.loads(pickle.dumps(backoff)) == backoff
        assert hash(backoff) == hash(pickle.loads(pickle.dumps(backoff)))
        assert repr(backoff) == text


@pytest.mark.parametrize(
    "value",
    [-1, math.nan, math.inf, LONGEST_S + 1, pytest.param(10**400, id="huge"), timedelta(-1)],
)
def test_out_of_range(value: Any) -> None:
    """The error says which value it is."""
    with pytest.raises(ValueError, match=r"seconds=.*: it must be a number of seconds from 0 to"):
        fixed(value)
    with pytest.raises(ValueError, match="maximum="):
        exponential(1, value)


@pytest.mark.parametrize("value", [True, "3", None, 1j])
def test_wrong_types(value: Any) -> None:
    """Likewise."""
    with pytest.raises(TypeError, match=r"base=.*not of type"):
        exponential(value, 3)
    with pytest.raises(TypeError, match="jitter=3 must be True or False"):
        exponential(1, 2, jitter=3)  # type: ignore[arg-type]


def test_attempts_are_bounded() -> None:
    """All workers, the first error and the last nine, each cut in its middle."""
    past = None
    for number in range(30):
        past = add_attempt(past, f"w{number}", 100 + number, ("app.Error", f"{number} " * 9000))
    assert past is not None
    assert past.workers == tuple(f"w{number}" for number in range(30))
    assert [text.split()[0] for _, text in past.errors] == ["0", *map(str, range(21, 30))]
    assert all(len(text) < 4200 for _, text in past.errors)
    assert (past.first_started_at_ns, past.last_started_at_ns) == (100, 129)
    assert kept([1, 2]) == [1, 2]
    assert cut("abc", 3) == "abc"
    assert cut("abcdef", 0) == ""
