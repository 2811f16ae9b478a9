"""How heavy a value is."""

import mmap
import sys
import threading
from array import array
from collections import UserDict, defaultdict, deque
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import pytest

from django_tasks_local.weight import LOOKED_AT, weight

MEGABYTE = b"x" * 10**6


@dataclass
class Document:
    """A result with a large field."""

    name: str
    content: bytes


@dataclass(slots=True)
class Slotted:
    """The same without a `__dict__`."""

    name: str
    content: bytes


class Private(Slotted):
    """Slots of a base class, and one with a name of its own."""

    __slots__ = ("__hidden",)

    def __init__(self, hidden: bytes) -> None:
        super().__init__("report", b"")
        self.__hidden = hidden


class Row(dict[str, str]):
    """A container with a field."""

    content: bytes


class Rows(list[str]):
    """A container with a slot."""

    __slots__ = ("content",)


class Refers:
    """An object whose class holds much."""

    everything: ClassVar[list[bytes]] = [MEGABYTE]


def with_content(value: Any) -> Any:
    """The value, with a large field."""
    value.content = MEGABYTE
    return value


def deep(levels: int) -> Any:
    """A large value in so many others."""
    value: Any = MEGABYTE
    for level in range(levels):
        value = {"of": [value]} if level % 2 else Slotted("", value)
    return value


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
        Slotted("report", MEGABYTE),
        Private(MEGABYTE),
        with_content(Row()),
        with_content(Rows()),
        defaultdict(bytes, pdf=MEGABYTE),
        ValueError(MEGABYTE),
        partial(print, MEGABYTE),
        MappingProxyType({"pdf": MEGABYTE}),
        {"pdf": MEGABYTE}.values(),
        UserDict(pdf=MEGABYTE),
        iter([MEGABYTE]),
        memoryview(MEGABYTE)[:10],
        mmap.mmap(-1, 10**6),
        deep(40),
        [list(range(1000)), deep(8)],
    ],
    ids=lambda value: type(value).__name__,
)
def test_large_buffers_count_in_full(value: Any) -> None:
    """Wherever they are in a value."""
    assert 10**6 <= weight(value) < 1.1 * 10**6


@pytest.mark.parametrize(
    "value", [Refers(), Refers, lambda: MEGABYTE, sys, [threading.Thread.run, weight]]
)
def test_code_weighs_nothing(value: object) -> None:
    """A result does not hold what the classes and modules of a site hold."""
    assert weight(value) < 1000


def test_the_largest_value_costs_a_bounded_number_of_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However wide and deep it is, and its weight is about right all the same."""
    looks = 0
    size_of = sys.getsizeof

    def counted(value: object) -> int:
        nonlocal looks
        looks += 1
        return size_of(value)

    value = [[[[Slotted("name", bytes(1000)) for _ in range(8)] for _ in range(20)]
              for _ in range(20)] for _ in range(20)]  # fmt: skip
    monkeypatch.setattr(sys, "getsizeof", counted)
    each = size_of(Slotted("name", b"")) + size_of("name") + size_of(bytes(1000))
    assert each / 3 < weight(value) / (20 * 20 * 20 * 8) < each * 3
    assert looks <= LOOKED_AT


def test_long_containers_count_by_a_sample() -> None:
    """The first items stand for all."""
    rows = [("name", b"x" * 1000)] * 5000
    row = sum(map(sys.getsizeof, (rows[0], *rows[0])))
    assert weight(rows) == pytest.approx(5000 * row + sys.getsizeof(rows))


def test_a_value_that_contains_itself() -> None:
    """It counts once."""
    value: list[object] = [MEGABYTE]
    value.append((value, {"again": value}))
    assert weight(value) < 1.1 * 10**6


class Odd:
    """An object whose size raises."""

    def __sizeof__(self) -> int:
        raise OSError


def test_what_cannot_be_weighed_weighs_nothing() -> None:
    """No method of a value is a reason to lose its result."""
    assert weight(Odd()) == 0
    assert 10**6 <= weight([Odd(), MEGABYTE]) < 1.1 * 10**6
