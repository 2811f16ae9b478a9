"""The history of a record in a block (see ``blocks``): its attempts before the present or last one.

```text
   0  FIRST_STARTED   when the first of them began, unix ns
   8  LAST_STARTED    when the last of them began
  16  ATTEMPTS        how many there are << 32 | how many errors are kept
  24  their workers   pid << 32 | serial, 8 bytes each
 ...  the errors      length of the class path << 32 | length of the traceback, and these in UTF-8
```

A record that is RUNNING, and whose own attempt is the last one of its history, has been retried all
but for its commit word: its attempt is over.
"""

from array import array
from struct import Struct
from typing import Final

from django_tasks_local.attempts import KEPT_ERRORS, MOST_ATTEMPTS, Past, cut

_HEAD: Final = Struct("=3Q")
_LENGTHS: Final = Struct("=Q")
_HALF: Final = 32
_LOWER: Final = 2**32 - 1


def encode_past(past: Past[int], most_bytes: int) -> bytes:
    """Return a history as bytes, its errors cut so that it fits.

    Args:
        past: The history.
        most_bytes: How long it may be; at least `least_bytes` are used.
    """
    attempts, errors = len(past.workers), past.errors
    room = (most_bytes - _HEAD.size - 8 * attempts) // len(errors) - _LENGTHS.size
    parts = [
        _HEAD.pack(
            past.first_started_at_ns, past.last_started_at_ns, attempts << _HALF | len(errors)
        ),
        array("Q", past.workers).tobytes(),
    ]
    for path, text in errors:
        name = _utf8(path)
        traceback = _fitting(text, room - len(name))
        parts += [_LENGTHS.pack(len(name) << _HALF | len(traceback)), name, traceback]
    return b"".join(parts)


def least_bytes(past: Past[int]) -> int:
    """Return how long a history is without any traceback."""
    paths = sum(_LENGTHS.size + len(_utf8(path)) for path, _ in past.errors)
    return _HEAD.size + 8 * len(past.workers) + paths


def decode_past(data: bytes) -> Past[int] | None:
    """Return what `encode_past` has made bytes of; None where these cannot be it."""
    if len(data) < _HEAD.size:
        return None
    first_ns, last_ns, counts = _HEAD.unpack_from(data)
    attempts, kept = counts >> _HALF, counts & _LOWER
    place = _HEAD.size + 8 * attempts
    if not (0 < attempts <= MOST_ATTEMPTS and 0 < kept <= KEPT_ERRORS and place <= len(data)):
        return None
    workers, errors = memoryview(data)[_HEAD.size : place].cast("Q"), []
    for _ in range(kept):
        start = place + _LENGTHS.size
        if start > len(data):
            return None
        (lengths,) = _LENGTHS.unpack_from(data, place)
        middle = start + (lengths >> _HALF)
        place = middle + (lengths & _LOWER)
        errors.append((_text(data[start:middle]), _text(data[middle:place])))
    return Past(tuple(workers), tuple(errors), first_ns, last_ns) if place == len(data) else None


def _fitting(text: str, room: int) -> bytes:
    limit, data = len(text), _utf8(text)
    while len(data) > max(room, 0) and limit:
        limit = min(limit * 3 // 4, max(room, 0))
        data = _utf8(cut(text, limit))
    return data


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
