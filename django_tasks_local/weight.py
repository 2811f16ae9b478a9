"""About how many bytes a value holds: enough to keep large values from filling the memory."""

import gc
import sys
from array import array
from collections import deque
from collections.abc import Buffer, Iterable, Iterator
from itertools import chain, islice
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    MemberDescriptorType,
    ModuleType,
    TracebackType,
)
from typing import Any, Final

# Code: others hold it as well, and it leads to all that there is.
_CODE: Final = (
    type,
    FunctionType,
    BuiltinFunctionType,
    ModuleType,
    CodeType,
    FrameType,
    TracebackType,
)
# Empty inside, and too small to count, as what most tasks take and return; or not to be looked at.
_SMALL: Final = frozenset({type(None), bool, int, float, *_CODE})
_PLAIN: Final = (str, bytes, bytearray, array)
_CONTAINERS: Final = (dict, tuple, list, set, frozenset, deque)
# How many items of a container are sampled; the others count as these do on average.
_SAMPLE: Final = 32
# How many objects are looked at, at 0.3 to 1 µs each. All that are known of share what is left, so
# that no wide part of a value leaves nothing to a deep one.
LOOKED_AT: Final = 2000


def weight(value: object) -> int:
    """Return about how many bytes ``value`` holds: its own, and those of what is in it.

    Buffers count in full, views as what they are views of, containers by a sample of their items,
    other objects by all that they refer to, but for code: at any depth, as far as 2,000 objects
    reach. What several refer to may count each time.
    """
    kind = type(value)
    if kind in _SMALL:
        return 0
    total = 0.0
    left = LOOKED_AT
    seen: set[int] = set()
    stack: list[tuple[Any, float]] = [(value, 1.0)]
    while stack and left > 0:
        each, times = stack.pop()
        left -= 1
        try:
            size, groups = _look(each, seen)
            total += size * times
            for parts, count in groups:
                if not count or left <= 0:
                    continue
                # A quarter of its share: the rest is for what is inside of these.
                most = min(_SAMPLE, -(-left // (len(stack) + 1) // 4))
                taken = list(islice(parts, most))
                more = times * count / len(taken)
                for part in taken:
                    kind = type(part)
                    if kind in _PLAIN:
                        left -= 1
                        total += sys.getsizeof(part) * more
                    elif kind not in _SMALL:
                        stack.append((part, more))
        except Exception:  # another thread changes it, or it has odd methods
            continue
    return int(total)


def _look(value: Any, seen: set[int]) -> tuple[int, list[tuple[Iterable[Any], int]]]:
    """Return the bytes of an object itself, and what is in it, with how many there are of that."""
    kind = type(value)
    size = sys.getsizeof(value)
    if kind is tuple:
        return size, [(value, len(value))]
    if kind in _PLAIN:
        return size, []
    if issubclass(kind, _CODE):  # a class with a metaclass
        return 0, []
    # (A tuple leads back to itself only through something else.)
    if id(value) in seen:
        return 0, []
    seen.add(id(value))
    if issubclass(kind, _CONTAINERS) or issubclass(kind, _PLAIN):
        return size, _items(value, kind)
    if kind is memoryview:
        return size, [([value.obj], 1)]
    if issubclass(kind, Buffer):
        size = max(size, _buffer_bytes(value))
    # Slots, the arguments of an exception, what an iterator or a `partial` keeps: whatever the
    # garbage collector would find. None of its methods is called.
    found = gc.get_referents(value)
    return size, [(found, len(found))]


def _items(value: Any, kind: type) -> list[tuple[Iterable[Any], int]]:
    """Return what is in a container, or in an object of a class derived from one or from text."""
    groups: list[tuple[Iterable[Any], int]] = []
    if issubclass(kind, dict):
        groups.append((chain.from_iterable(value.items()), 2 * len(value)))
    elif issubclass(kind, _CONTAINERS):
        groups.append((value, len(value)))
    if kind not in _CONTAINERS:
        fields = list(_fields(value, kind))
        groups.append((fields, len(fields)))
    return groups


def _fields(value: Any, kind: type) -> Iterator[Any]:
    """Yield what a container has beside its items: in its `__dict__`, and in slots."""
    yield getattr(value, "__dict__", None)
    for each in kind.__mro__:
        if "__slots__" in vars(each):
            for member in vars(each).values():
                if type(member) is MemberDescriptorType:
                    yield getattr(value, member.__name__, None)


def _buffer_bytes(value: Any) -> int:
    """Return memory that `getsizeof` may not know of: a mapped file, a part of another array."""
    try:
        with memoryview(value) as view:
            return view.nbytes
    except Exception:  # a type that has no format for it
        return 0
