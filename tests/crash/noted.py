"""Tasks with metadata, for the crash tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from tests.crash.steps import die_in_child
from tests.rings import META

if TYPE_CHECKING:
    from tests.crash.scene import Scene

SLOT: Final = 512


def noted_value(number: int, slots: int = 0) -> Any:
    """Arguments of a task that has metadata; they need a chain of so many slots."""
    return (number, "noted" + "x" * max(0, SLOT * slots - 100)), {}


def metadata_of(arguments: Any) -> bytes:
    """The metadata of the task with these arguments: two slots of them, or none."""
    values, _ = arguments
    is_noted = len(values) == 2 and str(values[1]).startswith("noted")
    return b'{"noted":"%d"}' % values[0] * 40 if is_noted else b""


def noted(scene: Scene) -> None:
    """Tasks with metadata, in all states."""
    for number, outcome in ((1, "one"), (2, "a" * 1000)):
        scene.done(noted_value(number), outcome)
    result_id = scene.enqueue(noted_value(3), 5)
    scene.lose_a_worker(lambda ring, claim: ring.save_metadata(claim.result_id, b"{}", claim))
    scene.records[result_id].metadata = b"{}"
    for number, slots in ((4, 2), (5, 0)):
        scene.enqueue(noted_value(number, slots))

    def half_a_request() -> None:
        ring = scene.attach()
        ring._table.slots.take_runs = lambda *_: os.kill(os.getpid(), 9)  # type: ignore[method-assign, assignment]
        value = noted_value(6, 3)
        ring.enqueue(META, ring.encode(value), priority=0, due_ns=0, metadata=metadata_of(value))

    die_in_child(half_a_request)
