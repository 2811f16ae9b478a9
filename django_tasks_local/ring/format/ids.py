"""Result ids: what they look like, and where they lead.

A result id is a UUID of version 8 (RFC 9562: layout of our own): 60 + 38 random bits, and the
slot's number behind the variant. The id *is* the address; its random bits make it safe to show.
Those of the store in memory lead nowhere: all of it is random.
"""

import os
from collections.abc import Iterator
from functools import lru_cache
from struct import Struct
from typing import Final

from .layout import MAX_SLOTS

ID_LENGTH: Final = 36
_LOW_RANDOM_BITS = 38
_LOW_RANDOM = (1 << _LOW_RANDOM_BITS) - 1
_VARIANT = 0b10 << 62
_HALVES = Struct("=QQ")
_DIGITS = Struct(">QQ")
_DRAWN_AT_ONCE = 256  # ids: one page

# The process that drew them, and what is left of them.
_drawn: tuple[int, Iterator[tuple[int, int]]] = (0, iter(()))


def new_id_words() -> tuple[int, int]:
    """Return the two halves of a fresh id, without its slot; `with_slot` completes the second."""
    high, low = _random_words()
    return high & ~0xF000 | 0x8000, _VARIANT | low & _LOW_RANDOM


def many_id_words(count: int) -> Iterator[tuple[int, int]]:
    """As `new_id_words`, so many of them."""
    for high, low in _HALVES.iter_unpack(os.urandom(count * _HALVES.size)):
        yield high & ~0xF000 | 0x8000, _VARIANT | low & _LOW_RANDOM


def with_slot(low: int, slot: int) -> int:
    """Return the lower half of an id that leads to a slot."""
    return low | slot << _LOW_RANDOM_BITS


def format_id(high: int, low: int) -> str:
    """Return the one spelling of an id."""
    # Grouped as xxxxxxxx-xxxxxxxxxxxx-xxxxxxxxxxxx: fewer pieces to put together.
    digits = _DIGITS.pack(high, low).hex("-", 6)
    return f"{digits[:13]}-{digits[13:17]}-{digits[17:]}"


def random_id() -> str:
    """Return an id that leads nowhere."""
    high, low = _random_words()
    return format_id(high & ~0xF000 | 0x8000, _VARIANT | low >> 2)


def _random_words() -> tuple[int, int]:
    """Return two random words of the kernel's, which are drawn for many ids at once.

    os.urandom gives up the GIL, and beside busy threads it takes milliseconds to get it back.
    """
    global _drawn
    pid, words = _drawn
    if pid == os.getpid():  # a forked child draws its own
        for pair in words:
            return pair
    words = _HALVES.iter_unpack(os.urandom(_DRAWN_AT_ONCE * _HALVES.size))
    _drawn = os.getpid(), words
    return next(words)


def parse_id(result_id: object) -> tuple[int, int, int]:
    """Return (slot, high, low) of anything that could be one of our ids; slot 0 if it cannot be."""
    if not isinstance(result_id, str) or len(result_id) != ID_LENGTH:
        return 0, 0, 0
    return _parse(result_id)


@lru_cache(1024)  # arbitrary: a page polls a few ids, many times
def _parse(result_id: str) -> tuple[int, int, int]:
    # Only the one spelling that `format_id` gives: a comparison of ids as text must be right.
    try:
        digits = bytes.fromhex(result_id.replace("-", ""))
    except ValueError:
        return 0, 0, 0
    if len(digits) != _DIGITS.size:
        return 0, 0, 0
    high, low = _DIGITS.unpack(digits)
    return (slot_of_id(low), high, low) if format_id(high, low) == result_id else (0, 0, 0)


def slot_of_id(low: int) -> int:
    """Return the slot's number in the lower half of an id."""
    return low >> _LOW_RANDOM_BITS & MAX_SLOTS - 1
