"""An exception out of a signal handler at every point of every operation at which Python runs one.

Python runs a handler when it enters a function, after it called one of C, and when it jumps back in
a loop: `sys.monitoring` stops at exactly these. The process lives on, so unlike a death nothing
frees what it holds: it must have let go of the mutex itself.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from types import CodeType

import pytest

from django_tasks_local.ring import Role
from tests.crash.operations import Operation
from tests.crash.scene import AT_ONCE_S, SMALL, Scene
from tests.crash.states import STATES
from tests.crash.test_firing_points import FIRING
from tests.crash.test_points import OPERATIONS, verification

TOOL = sys.monitoring.DEBUGGER_ID
RING = os.path.join("django_tasks_local", "ring") + os.sep


class Interrupt(BaseException):
    """What a handler raises: no `Exception`, as gunicorn's SystemExit is none."""


class Interrupter:
    """Raises at the n-th point at which a signal handler could have run."""

    def __init__(self, at: int, times: int) -> None:
        self._at = at
        self._times = times
        self._count = 0

    def __enter__(self) -> None:
        events = sys.monitoring.events
        sys.monitoring.use_tool_id(TOOL, "interrupts")
        sys.monitoring.register_callback(TOOL, events.PY_START, self._point)
        sys.monitoring.register_callback(TOOL, events.C_RETURN, self._point)
        sys.monitoring.register_callback(TOOL, events.JUMP, self._jump)
        # C_RETURN is only seen where CALL is.
        sys.monitoring.set_events(TOOL, events.PY_START | events.CALL | events.JUMP)

    def __exit__(self, *_: object) -> None:
        sys.monitoring.set_events(TOOL, 0)
        sys.monitoring.free_tool_id(TOOL)

    def _point(self, code: CodeType, *_: object) -> None:
        if RING not in code.co_filename:
            return
        self._count += 1
        if self._at <= self._count < self._at + self._times:
            raise Interrupt

    def _jump(self, code: CodeType, offset: int, destination: int) -> None:
        if destination < offset:
            self._point(code)


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
        _child(scene, operation, Interrupter(at, times), tell, go)
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


ALL = OPERATIONS | FIRING
STATE = {
    "enqueue_large": "chained", "finish_large": "chained", "promote": "deferred",
    "settle": "running", "note_kill": "running", "settle_noted": "running",
    "retry_large": "retried", "cancel_retried": "retried",
    "save": "noted", "save_own": "noted", "save_finished": "noted", "clear_metadata": "noted",
}  # fmt: skip
# A repair has thousands of points, all of the same kind; sharing limits has next to none.
NAMES = [name for name in ALL if name not in ("repair", "limits")]
CASES = [(name, STATE.get(name, "waiting"), 1) for name in NAMES]
# A second signal arrives while the exception of the first one is on its way out.
CASES += [("enqueue", "waiting", 2), ("finish", "waiting", 2)]


# An attachment has the most points: 35 s on an idle machine.
@pytest.mark.time_limit(600)
@pytest.mark.parametrize(("name", "state", "times"), CASES)
def test_interrupt_at_every_point(scene: Scene, name: str, state: str, times: int) -> None:
    """Wherever an exception comes from, the mutex is free again and nothing is broken."""
    operation = ALL[name]
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
