"""A SIGKILL at every write step of whatever ends a task that another one follows.

Where the task has ended, what follows it is there, once; where it has not, nothing follows it yet.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.tasks import TaskResultStatus

from django_tasks_local.exceptions import QueueFull
from django_tasks_local.ring import Ring, Role
from tests.crash.deaths import deaths, die_everywhere
from tests.crash.scene import FAR_NS, SMALL, Scene, large_value
from tests.crash.states import STATES
from tests.crash.steps import Steps, die_in_child
from tests.crash.tied import FAILING, GROUP, THEN, TIED, drain_tied, judge, put_tied, ties_of
from tests.rings import META, change_limits

READY, RUNNING = TaskResultStatus.READY, TaskResultStatus.RUNNING
SUCCESSFUL, FAILED = TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED
CASES = [(state, 0) for state in ("waiting", "running", "full", "crowded", "chained")]


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A ring of 46 slots."""
    made = Scene(SMALL)
    yield made
    made.close()


def cram(scene: Scene) -> None:
    """Tasks that wait take all room that there is."""
    change_limits(scene.ring, max_pending=100)
    for slots in (4, 1):
        while enqueued(scene, large_value(len(scene.records), slots)):
            pass


def enqueued(scene: Scene, arguments: Any) -> bool:
    """Enqueues a task if there is room for it."""
    try:
        scene.enqueue(arguments)
    except QueueFull:
        return False
    return True


def finish(ring: Ring, claim: Any, successful: bool = True) -> None:
    """The worker ends it, with an outcome that takes a slot of its own."""
    ring.finish(claim, successful=successful, outcome=ring.encode("x" * 300))


def kill_in(
    scene: Scene, result_id: str, act: Callable[[Ring, Any], object], allowed: set[Any],
    slots: int = 0, *, claims: bool = False,
) -> None:  # fmt: skip
    """Kills a child at each step of `act`, and judges what is left each time."""

    def body(steps: Steps) -> None:
        ring = scene.attach(Role.WORKER if claims else Role.SITE)
        claim = ring.claim() if claims else None
        assert claim is None or claim.result_id == result_id
        steps.arm()
        act(ring, claim)

    def verify(completed: bool) -> None:
        ring = scene.ring
        ring.attachment.become(Role.SITE)
        ring.upkeep.settle_dead()
        scene.assert_sound()
        status = judge(ring, result_id, slots)
        assert status in (allowed if completed else {READY, FAILED, *allowed})
        ran = drain_tied(ring)
        if status is READY:
            assert ran == [TIED, THEN]
        else:
            assert ran == [THEN if status is SUCCESSFUL else FAILING]
        judge(ring, result_id, slots)
        scene.verify({})

    scene.save()
    assert die_everywhere(scene, body, verify)


@pytest.mark.parametrize(("state", "slots"), [*CASES, ("full", 2), ("holes", 2), ("retried", 2)])
def test_a_finish(scene: Scene, state: str, slots: int) -> None:
    """The worker dies while it stores the outcome."""
    STATES[state](scene)
    result_id = put_tied(scene.ring, slots)
    kill_in(scene, result_id, finish, {SUCCESSFUL}, slots, claims=True)


@pytest.mark.parametrize("slots", [0, 2])
@pytest.mark.parametrize("successful", [True, False])
def test_a_finish_in_a_crammed_ring(scene: Scene, slots: int, successful: bool) -> None:
    """What follows has its room, though all other is taken by tasks that wait."""
    result_id = put_tied(scene.ring, slots)
    cram(scene)
    end = lambda ring, claim: finish(ring, claim, successful)  # noqa: E731
    kill_in(scene, result_id, end, {SUCCESSFUL if successful else FAILED}, slots, claims=True)


@pytest.mark.parametrize("state", ["waiting", "full", "crowded", "chained"])
def test_a_cancellation(scene: Scene, state: str) -> None:
    """A process dies while it takes the task out."""
    STATES[state](scene)
    result_id = put_tied(scene.ring)
    cancel = lambda ring, _: ring.cancel(result_id, running=False)  # noqa: E731
    kill_in(scene, result_id, cancel, {FAILED})


@pytest.mark.parametrize("state", ["waiting", "full", "chained"])
def test_a_lost_worker(scene: Scene, state: str) -> None:
    """A process dies while it settles the dead worker of the task."""
    STATES[state](scene)
    result_id = put_tied(scene.ring)
    die_in_child(lambda: scene.attach(Role.WORKER).claim())
    kill_in(scene, result_id, lambda ring, _: ring.upkeep.settle_dead(), {FAILED})


def test_a_rebuild(scene: Scene) -> None:
    """A second death comes while the next process makes up for the first one."""
    STATES["waiting"](scene)
    result_id = put_tied(scene.ring)
    scene.save()

    def end(steps: Steps) -> None:
        ring = scene.attach(Role.WORKER)
        claim = ring.claim()
        steps.arm()
        finish(ring, claim)

    for death in deaths(scene, end):
        # Neighbours differ by one store.
        if death.step % 4 == 0 and not death.torn and scene.dirty():
            original = scene.save()
            repair = lambda ring, _: ring.attachment.become(Role.SITE)  # noqa: E731
            kill_in(scene, result_id, repair, {SUCCESSFUL, FAILED})
            scene.save(original)


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_an_enqueue(scene: Scene, large: bool) -> None:
    """A task is there with its ties, or not at all; one of a batch likewise."""
    STATES["full"](scene)
    value = large_value(900, 3) if large else ((900,), {})

    def enqueue(ring: Ring, _: Any) -> None:
        encoded, ties = ring.encode(value), ties_of(ring, 2)
        ring.enqueue(META, encoded, priority=100, due_ns=0, ties=ties)
        if not large:
            ring.bulk.put(META, [encoded] * 2, priority=100, due_ns=FAR_NS, ties=ties)

    def body(steps: Steps) -> None:
        ring = scene.attach()
        steps.arm()
        enqueue(ring, None)

    def verify(_: bool) -> None:
        ring = scene.ring
        ring.attachment.become(Role.SITE)
        ring.upkeep.settle_dead()
        scene.assert_sound()
        ids = ring.unfinished_in(GROUP)
        assert len(ids) in (0, 1, 3)
        assert all(ring.get(each).ties == ring.get(ids[0]).ties for each in ids)
        for result_id in ids:
            assert ring.cancel(result_id, running=False)[0]
            judge(ring, result_id, 2)
        assert len(drain_tied(ring)) == len(ids)
        scene.verify({})

    scene.save()
    assert die_everywhere(scene, body, verify)
