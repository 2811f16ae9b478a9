"""Unique tasks, for the crash tests."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.crash.scene import Scene

SLOT: Final = 512


def keyed_value(number: int, slots: int = 0) -> Any:
    """Arguments of a unique task; they need a chain of so many slots."""
    return (number, "keyed" + "x" * max(0, SLOT * slots - 100)), {}


def key_of(arguments: Any) -> bytes:
    """The key of the task with these arguments, b"" for none."""
    values, _ = arguments
    unique = len(values) == 2 and str(values[1]).startswith("keyed")
    return blake2b(b"%d" % values[0], digest_size=16).digest() if unique else b""


def keyed(scene: Scene) -> None:
    """Unique tasks in all states, one of them by a dead process."""
    scene.done(keyed_value(1), "one")
    scene.done(keyed_value(2, 2), "two")
    scene.enqueue(keyed_value(3), 5)
    scene.lose_a_worker()
    scene.enqueue(keyed_value(4))
    scene.claim()
    for number, slots in ((5, 0), (6, 2), (7, 0)):
        scene.enqueue(keyed_value(number, slots))
