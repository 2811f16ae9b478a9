"""An exception out of a signal handler at every point of every operation at which Python runs one.

The process lives on, so unlike a death nothing frees what it holds: it must have let go of the
mutex itself.
"""

import os
import time
from collections.abc import Callable, Iterator

import pytest

from django_tasks_local.ring import Role
from tests.crash.operations import Operation
from tests.crash.scene import AT_ONCE_S, SMALL, Scene
from tests.crash.states import STATES
from tests.crash.test_bulk_points import CASES as BATCHES
from tests.crash.test_bulk_points import put
from tests.crash.test_firing_points import FIRING
from tests.crash.test_points import OPERATIONS, verification
from tests.crash.test_unique_points import UNIQUE
from tests.interrupter import Interrupt, Interrupter

RING = os.path.join("django_tasks_local", "ring") + os.sep


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A ring of 46 slots."""
    made = Scene(SMALL)
    yield made
    made.close()


def interrupted_child(
    scene: Scene, operation: Operation, at: int, times: int, meanwhile: Callable[[], object]
) -> bool:
    """Runs `operation` in a child that is interrupted, and then uses the ring again.

    Args:
        scene: The ring.
        operation: What the child does.
        at: The point of the interruption, from 1 on.
        times: How many points in a row interrupt it.
        meanwhile: What this process does while the interrupted child lives.

    Returns:
        Whether the operation was completed instead.
    """
    told, tell = os.pipe()
    go, let_go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(let_go)
        _child(scene, operation, Interrupter(RING, at, times), tell, go)
    os.close(tell)
    os.close(go)
    state = os.read(told, 1)
    try:
        meanwhile()
    finally:
        os.close(let_go)
        os.close(told)
        _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child could not go on, status {status}"
    return state == b"C"


def _child(
    scene: Scene, operation: Operation, interrupter: Interrupter, tell: int, go: int
) -> None:
    code = 1
    try:
        ring = scene.attach(Role.WORKER if operation.claims else Role.SITE)
        prepared = operation.prepare(ring)
        state = b"C"
        try:
            with interrupter:
                operation.act(ring, prepared)
        except Interrupt:
            state = b"I"
        os.write(tell, state)
        os.read(go, 1)
        ring.upkeep.rebuild()
        code = 0
    finally:
        os._exit(code)


STATE = {
    "enqueue_large": "chained", "finish_large": "chained", "promote": "deferred",
    "settle": "running", "note_kill": "running", "settle_noted": "running",
    "retry_large": "retried", "cancel_retried": "retried",
    "save": "noted", "save_own": "noted", "save_finished": "noted", "clear_metadata": "noted",
}  # fmt: skip
OPERATIONS_OF_ALL = (
    OPERATIONS
    | FIRING
    | {
        "enqueue_unique": UNIQUE["enqueue"],
        "enqueue_many": Operation(
            lambda ring, _: put(ring, BATCHES["mixed"], 0), extra=[*BATCHES["mixed"].calls]
        ),
    }
)
# A repair has thousands of points, all of the same kind; sharing limits has next to none.
NAMES = [name for name in OPERATIONS_OF_ALL if name not in ("repair", "limits")]
CASES = [(name, STATE.get(name, "waiting"), 1) for name in NAMES]
# A second signal arrives while the exception of the first one is on its way out.
CASES += [("enqueue", "waiting", 2), ("finish", "waiting", 2)]


# An attachment has the most points: 35 s on an idle machine.
@pytest.mark.time_limit(600)
@pytest.mark.parametrize(("name", "state", "times"), CASES)
def test_interrupt_at_every_point(scene: Scene, name: str, state: str, times: int) -> None:
    """Wherever an exception comes from, the mutex is free again and nothing is broken."""
    operation = OPERATIONS_OF_ALL[name]
    STATES[state](scene)
    scene.save()
    verify = verification(scene, operation)

    def look_inside() -> None:
        started = time.monotonic()
        scene.ring.attachment.become(Role.SITE)
        assert time.monotonic() - started < AT_ONCE_S
        scene.assert_sound()

    at = 0
    completed = False
    while not completed:
        at += 1
        scene.restore()
        try:
            completed = interrupted_child(scene, operation, at, times, look_inside)
            verify(completed)
        except BaseException as error:
            error.add_note(f"interrupted at point {at}")
            raise
    assert at > 5
