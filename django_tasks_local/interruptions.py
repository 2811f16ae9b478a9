"""Raise again what a signal handler raised and the C function that was interrupted swallowed."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType

# What raises again, for this process; set by the module whose signal handler it is.
_raise_again: list[Callable[[FrameType], None]] = []


def raise_again_with(function: Callable[[FrameType], None]) -> None:
    """Have `raise_swallowed` call this function; it replaces the one before.

    Args:
        function: Gets the frame that was interrupted, and raises what the handler raised there.
    """
    _raise_again[:] = [function]


def raise_swallowed(frame: FrameType) -> None:
    """Raise what the handler of a signal raised in ``frame`` and was lost there, if anything.

    To be called where nothing is held that the exception could leave behind.

    Args:
        frame: The caller's, which has called the C function itself.
    """
    for function in _raise_again:
        function(frame)
