"""About how many bytes a value holds: enough to keep large values from filling the memory."""

import sys
from collections import deque
from itertools import islice
from typing import Any, Final

# Empty inside, and too small to count: what most tasks take and return.
_SMALL: Final = frozenset({type(None), bool, int, float})
_SEQUENCES: Final = (list, tuple, set, frozenset, deque)
# How many items of a container are sampled; the others count as these do on average.
_SAMPLE: Final = 100
# How deep: a list of dicts of bytes, the fields of an object in a list.
_DEPTH: Final = 3


def weight(value: object, depth: int = _DEPTH) -> int:
    """Return about how many bytes ``value`` holds: its own, and those of what is in it.

    Buffers count in full, containers by a sample of their items, other objects by their fields
    (0.2 µs for a small value). A shared object counts each time.
    """
    kind = type(value)
    if kind in _SMALL:
        return 0
    try:
        if isinstance(value, memoryview):
            return value.nbytes
        size = sys.getsizeof(value)
        if depth and isinstance(value, dict):
            size += _sampled(value.items(), len(value), depth)
        elif depth and isinstance(value, _SEQUENCES):
            size += _sampled(value, len(value), depth)
        elif depth and not isinstance(value, (bytes, bytearray, str)):
            fields = getattr(value, "__dict__", None)
            if isinstance(fields, dict) and not isinstance(value, type):
                size += _sampled(fields.items(), len(fields), depth)
    except Exception:  # another thread changes it, or it has odd methods
        return 0
    return size


def _sampled(items: Any, count: int, depth: int) -> int:
    total = seen = 0
    for item in islice(items, _SAMPLE):
        # A key with its value is not a level of its own.
        pair = type(item) is tuple and len(item) == 2
        total += sum(weight(each, depth - 1) for each in item) if pair else weight(item, depth - 1)
        seen += 1
    return total * count // seen if seen else 0
