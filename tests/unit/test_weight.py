"""How heavy a value is."""

import sys
from array import array
from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest

from django_tasks_local.weight import weight

MEGABYTE = b"x" * 10**6


@dataclass
class Document:
    """A result with a large field."""

    name: str
    content: bytes


@pytest.mark.parametrize("value", [None, True, 1, 1.5, 10**300])
def test_small_values_weigh_nothing(value: object) -> None:
    """What most tasks return costs no look at it."""
    assert weight(value) == 0


@pytest.mark.parametrize(
    "value",
    [
        MEGABYTE,
        bytearray(MEGABYTE),
        memoryview(MEGABYTE),
        array("b", MEGABYTE),
        "x" * 10**6,
        [MEGABYTE],
        ({"pdf": MEGABYTE},),
        {"pages": [MEGABYTE]},
        deque([MEGABYTE]),
        Document("report", MEGABYTE),
        [Document("report", MEGABYTE)],
    ],
    ids=lambda value: type(value).__name__,
)
def test_large_buffers_count_in_full(value: Any) -> None:
    """Wherever they are in a value, up to some depth."""
    assert 10**6 <= weight(value) < 1.1 * 10**6


def test_long_containers_count_by_a_sample() -> None:
    """The first items stand for all."""
    rows = [("name", b"x" * 1000)] * 5000
    row = sys.getsizeof("name") + sys.getsizeof(b"x" * 1000)
    assert weight(rows) == pytest.approx(5000 * row + sys.getsizeof(rows))


def test_a_value_that_contains_itself() -> None:
    """It ends at some depth."""
    value: list[object] = [MEGABYTE]
    value.append(value)
    assert weight(value) < 10**7


class Odd:
    """An object whose size raises."""

    def __sizeof__(self) -> int:
        raise OSError


def test_what_cannot_be_weighed_weighs_nothing() -> None:
    """No method of a value is a reason to lose its result."""
    assert weight(Odd()) == 0
