"""How long a failed task waits for its next attempt: what ships for ``policy(backoff=…)``.

Both are values: they can be compared, pickled and shown, so they may stand in ``OPTIONS`` as well.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

# Longer than anything waits, and short of what the clock of a record can count. 100 years.
LONGEST_S: Final = 3_155_760_000
# From so many on, even a base of a nanosecond has grown beyond all bounds.
_MOST_DOUBLINGS: Final = 62


@dataclass(frozen=True, slots=True, repr=False)
class Exponential:
    """What `exponential` returns."""

    base: float
    maximum: float
    jitter: bool = True

    def __call__(self, exception: BaseException | None, task_result: Any) -> float:
        """Return how many seconds the task is to wait, by how often it was attempted."""
        delay_s = doubled(self.base, task_result.attempts, self.maximum)
        return delay_s * random.uniform(0.5, 1.0) if self.jitter else delay_s

    def __repr__(self) -> str:
        jitter = "" if self.jitter else ", jitter=False"
        return f"exponential(base={self.base:g}, maximum={self.maximum:g}{jitter})"


@dataclass(frozen=True, slots=True, repr=False)
class Fixed:
    """What `fixed` returns."""

    seconds: float

    def __call__(self, exception: BaseException | None, task_result: Any) -> float:
        """Return how many seconds the task is to wait: always the same."""
        return self.seconds

    def __repr__(self) -> str:
        return f"fixed({self.seconds:g})"


def exponential(
    base: float | timedelta, maximum: float | timedelta, jitter: bool = True
) -> Exponential:
    """Return a backoff that doubles with each attempt.

    Args:
        base: Seconds to wait after the first attempt, or a ``timedelta``.
        maximum: The longest wait, in seconds or as a ``timedelta``.
        jitter: Whether to wait for a random part of that, between one half and all of it: what
            failed together is then not tried again at the same moment.

    Raises:
        TypeError: A value is of a wrong type.
        ValueError: A value is negative, too large or not a number.
    """
    if not isinstance(jitter, bool):
        raise TypeError(f"jitter={jitter!r} must be True or False.")
    return Exponential(checked_s("base", base), checked_s("maximum", maximum), jitter)


def fixed(seconds: float | timedelta) -> Fixed:
    """Return a backoff that is the same after each attempt; 0 for the next one at once.

    Args:
        seconds: How long, also as a ``timedelta``.

    Raises:
        TypeError: It is neither.
        ValueError: It is negative, too large or not a number.
    """
    return Fixed(checked_s("seconds", seconds))


def doubled(base_s: float, attempts: int, maximum_s: float) -> float:
    """Return ``base_s``, doubled for each attempt but the first, and at most ``maximum_s``."""
    return min(maximum_s, base_s * 2.0 ** min(max(attempts - 1, 0), _MOST_DOUBLINGS))


def checked_s(name: str, value: object) -> float:
    """Return a time to wait in seconds.

    Args:
        name: What the value is called, for the error.
        value: Seconds or a ``timedelta``.

    Raises:
        TypeError: It is neither.
        ValueError: It is negative, too large or not a number.
    """
    wanted = f"it must be a number of seconds from 0 to {LONGEST_S:,}, or a timedelta of as many"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name}={value!r}: {wanted}, not of type {type(value).__name__}.")
    if not 0 <= seconds <= LONGEST_S:  # nor is NaN
        raise ValueError(f"{name}={value!r}: {wanted}.")
    return float(seconds)
