"""What makes two unique tasks the same."""

import enum
import math
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.tasks import task
from django.tasks.exceptions import InvalidTask
from django.utils.safestring import SafeString
from hypothesis import given
from hypothesis import strategies as st

from django_tasks_local import policy
from django_tasks_local.exceptions import AlreadyEnqueued
from django_tasks_local.policies import policy_of
from django_tasks_local.unique import Unique, key_of

UNIT = UUID(int=7)


class Colour(enum.Enum):
    RED = 1


def order(order_id: Any, note: Any = None, *rest: Any, full: bool = False, **more: Any) -> None:
    """A task's function."""


def other(order_id: Any) -> None:
    """Another one's."""


def with_context(context: Any, order_id: Any) -> None:
    """That of one with a context."""


TASK: Any = task(order)


def digest(*args: Any, unique: Unique = True, **kwargs: Any) -> bytes:
    """The digest of the key of a task with these arguments."""
    key = key_of(TASK, unique, args, kwargs)
    assert key is not None
    assert len(key.digest) == 16
    return key.digest


def test_arguments_are_the_same_however_they_are_passed() -> None:
    """By position, by name, or by default."""
    assert digest(1) == digest(order_id=1) == digest(1, None) == digest(1, note=None, full=False)
    others = [digest(2), digest(1, 2), digest(1, full=True), digest(1, None, 3), digest(1, extra=4)]
    assert len({digest(1), *others}) == 6


def test_named_parameters_count_alone() -> None:
    """The others may be what they are."""
    unique = ("order_id", "full")
    assert digest(1, "a", unique=unique) == digest(order_id=1, note="b", unique=unique)
    assert digest(1, unique=unique) != digest(1, full=True, unique=unique)
    assert digest(1, "a", unique=("order_id",)) == digest(1, "b", unique=("order_id",))
    assert digest(1, extra=2, unique=("extra",)) == digest(3, extra=2, unique=("extra",))
    assert digest(1, unique=()) == digest(2, "b", unique=())


def test_a_function_says_what_counts() -> None:
    """It gets the arguments as the task does; None is no key."""

    def key(order_id: int, note: str = "", **_: Any) -> Any:
        return None if note == "all" else (order_id % 10, note.lower())

    assert digest(11, "A", unique=key) == digest(order_id=21, note="a", unique=key)
    assert key_of(TASK, key, (1, "all"), {}) is None
    assert key_of(TASK, False, (1,), {}) is None


def test_tasks_do_not_share_keys() -> None:
    """The task's path is part of it, and the context is no argument."""
    key = key_of(task(other), ("order_id",), (1,), {})
    assert key is not None
    assert key.digest != digest(1, unique=("order_id",))
    key = key_of(task(takes_context=True)(with_context), True, (1,), {})
    assert key is not None
    assert key.value == {"order_id": 1}


VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**80, 0.0, 1.0, math.inf, "", "1", "True", "None", b"", b"1",
    "\ud800", [], [1], [1, 2], ["1, 2"], [[1], 2], [[1, 2]], {}, {"a": 1}, {"a": 2}, {1: "a"}, {1},
    set(), date(2026, 1, 2), datetime(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC), time(1, 2),
    timedelta(1), Decimal(1), Decimal("1.0"), UNIT, str(UNIT), PurePosixPath("/a"), Colour.RED,
]  # fmt: skip


def test_values_that_differ_have_keys_that_differ() -> None:
    """Whatever their types."""
    assert len({digest(value) for value in VALUES}) == len(VALUES)


def test_order_and_kind_of_containers_do_not_count() -> None:
    """Where they do not make values unequal, or tuples lists."""
    assert digest({"a": 1, "b": {2, 3}}) == digest(OrderedDict(b=frozenset({3, 2}), a=1))
    assert digest([1, (2,)]) == digest((1, [2]))
    assert digest(SafeString("x")) == digest("x")


def test_of_an_aware_datetime_the_moment_counts() -> None:
    """A form gives one in the visitor's time zone, the database in UTC."""
    here = datetime(2026, 1, 2, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    assert digest(here) == digest(here.astimezone(UTC))
    assert digest(here) != digest(here.replace(tzinfo=None))
    assert digest(datetime.max.replace(tzinfo=UTC)) != digest(datetime.max)


@given(
    st.recursive(
        st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_a_copy_has_the_same_key(value: Any) -> None:
    """A key depends on values, and on no object's identity."""
    import pickle

    assert digest(value) == digest(pickle.loads(pickle.dumps(value)))


def fail(*args: Any) -> None:
    """A key function that raises."""
    raise ZeroDivisionError("no key")


@pytest.mark.parametrize(
    ("unique", "args", "text"),
    [
        (fail, (1,), "ZeroDivisionError: no key"),
        (lambda *args: object(), (1,), "TypeError: a value of type object cannot be part of a key"),
        (True, (object(),), "TypeError: a value of type object cannot be part of a key"),
        (True, (), "TypeError: missing a required argument: 'order_id'"),
        (("extra",), (1,), "TypeError: missing the argument 'extra', which is its key"),
    ],
)
def test_keys_that_cannot_be_made(unique: Unique, args: tuple[Any, ...], text: str) -> None:
    """The error names the task and the reason."""
    with pytest.raises(ValueError, match="is unique, and its key cannot be made: ") as caught:
        key_of(TASK, unique, args, {})
    assert str(caught.value).startswith("Task tests.unit.test_unique.order is unique")
    assert text in str(caught.value)


def a_cycle() -> list[Any]:
    """A list that holds itself."""
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def test_a_value_that_holds_itself() -> None:
    """It has no form, and does no harm."""
    with pytest.raises(ValueError, match="RecursionError"):
        digest(a_cycle())


def decorated(**words: Any) -> Callable[..., Any]:
    """A function with a policy."""

    def bill(order_id: int) -> None:
        """A task's function."""

    return policy(**words)(bill)


@pytest.mark.parametrize("value", [1, 0, 2.5, b"order_id", ["order_id"], {"order_id"}, (1,), [1]])
def test_wrong_values_name_task_and_value(value: Any) -> None:
    """At import, as for every word of a policy."""
    with pytest.raises(InvalidTask) as caught:
        decorated(unique=value)
    assert "bill: " in str(caught.value)
    assert f"unique={value!r}: it must be True, the name of a parameter" in str(caught.value)


@pytest.mark.parametrize("value", ["", "Existing", True, 1, b"raise", ("raise",)])
def test_wrong_conflicts_name_task_and_value(value: Any) -> None:
    """Likewise."""
    with pytest.raises(InvalidTask, match=r'it must be "existing" or "raise"') as caught:
        decorated(on_conflict=value)
    assert f"on_conflict={value!r}" in str(caught.value)


def test_parameters_that_do_not_exist() -> None:
    """A name that the function does not know is found at import."""
    with pytest.raises(InvalidTask, match=r"unique=\('order_id', 'ordr'\): it has no parameter"):
        decorated(unique=("order_id", "ordr"))
    assert policy_of(policy(unique="anything")(order)).unique == ("anything",)


def test_what_is_stored() -> None:
    """A name is a tuple of one."""
    assert policy_of(decorated(unique="order_id")).unique == ("order_id",)
    assert policy_of(decorated(unique=True, on_conflict="raise")).on_conflict == "raise"


def test_the_exception_has_its_facts() -> None:
    """And a text of bounded length."""
    error = AlreadyEnqueued("shop.tasks.bill", "x" * 1000, str(UNIT))
    assert (error.path, error.key, error.result_id) == ("shop.tasks.bill", "x" * 1000, str(UNIT))
    assert len(str(error)) < 500
    assert str(UNIT) in str(error)
