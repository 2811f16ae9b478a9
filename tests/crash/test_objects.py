"""A SIGKILL at every step of what makes, replaces, grows and removes a ring."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from django_tasks_local.ring import Limits, Ring, Role, ring_name, unlink_objects
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm import segment
from django_tasks_local.ring.shm.places import segment_path
from tests.crash.scene import GROWING, META, SMALL, Scene, large_value, small_value
from tests.crash.states import STATES
from tests.crash.steps import INSIDE, NEVER, Steps, in_child, kill_everywhere

# Nobody waits for a ring that is being made.
MAKING = tuple(kind for kind in INSIDE if kind != "Semaphore.release")
OTHER = Limits(2, 8, 12, 1024, at.COLUMNS_AT + 129_608)


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a ring that does not exist yet."""
    made = ring_name("crash", uuid4().hex)
    yield made
    unlink_objects(made)


def attach(name: str, limits: Limits) -> Ring:
    """Attaches as a process that never was attached."""
    segment._segments.clear()
    return Ring(name, "crash", limits, Role.SITE)


def use(name: str, limits: Limits) -> Callable[[bool], None]:
    """A survivor: it attaches, finds an empty ring and takes a task through it."""

    def survivor() -> None:
        ring = attach(name, limits)
        assert ring.segment.geometry == limits.geometry
        assert ring.upkeep.check() == []
        result_id, _ = ring.enqueue(META, ring.encode("arguments"), priority=0, due_ns=0)
        claim = ring.claim()
        assert claim is not None
        assert claim.result_id == result_id
        ring.finish(claim, successful=True, outcome=ring.encode("outcome"))
        assert ring.get(result_id).outcome() == "outcome"
        assert ring.upkeep.check() == []

    return lambda completed: in_child(survivor)


def test_steps_of_every_kind_are_counted(name: str) -> None:
    """Each patch catches what it is for, wherever in the package that is called from by now."""

    def life(steps: Steps) -> None:
        steps.arm()
        ring = attach(name, GROWING)
        for value in (small_value(1), large_value(2, at.STEP_SLOTS + 10)):
            ring.enqueue(META, ring.encode(value), priority=0, due_ns=0)
        ring.wait_for_work(0)
        claim = ring.claim()
        assert claim is not None
        claim.report(1, 2, "half")
        ring.finish(claim, successful=True, outcome=ring.encode("outcome"))
        ring.attachment.detach()
        unlink_objects(name)

    steps = Steps()
    assert steps.run(NEVER, False, life).completed
    assert not [kind for kind, count in steps.hits().items() if not count]


def test_death_while_a_ring_is_made(name: str) -> None:
    """A ring that is half made is made anew by the next process."""

    def body(steps: Steps) -> None:
        steps.arm()
        attach(name, SMALL)

    deaths = kill_everywhere(lambda: unlink_objects(name), body, use(name, SMALL), hits=MAKING)
    assert deaths > 20


@pytest.mark.parametrize("reason", ["other sizes", "older layout"])
def test_death_while_a_ring_is_made_anew(name: str, reason: str) -> None:
    """An idle ring of other sizes, or of another layout, is replaced, however often that dies."""

    def old() -> None:
        ring = attach(name, OTHER)
        ring.enqueue(META, ring.encode("kept"), priority=0, due_ns=0)
        claim = ring.claim()
        assert claim is not None
        ring.finish(claim, successful=True, outcome=ring.encode("kept"))
        ring.attachment.detach()
        if reason == "older layout":
            ring.words[at.H_VERSION] = 0

    in_child(old)
    path = Path(segment_path(name))
    content = path.read_bytes()

    def restore() -> None:
        unlink_objects(name)
        path.touch(mode=0o600)
        path.write_bytes(content)

    def body(steps: Steps) -> None:
        steps.arm()
        attach(name, SMALL)

    deaths = kill_everywhere(restore, body, use(name, SMALL), hits=MAKING)
    assert deaths > 20


def test_death_while_a_ring_is_removed(name: str) -> None:
    """What a dying `destroy` left of the objects is used again, or replaced."""

    def body(steps: Steps) -> None:
        steps.arm()
        unlink_objects(name)

    made = lambda: in_child(lambda: attach(name, SMALL))  # noqa: E731
    deaths = kill_everywhere(made, body, use_any(name), hits=("os.unlink",))
    assert deaths == 2 + at.CODES  # the segment, the mutex, and a work semaphore for each code


def use_any(name: str) -> Callable[[bool], None]:
    """As `use`, and then the ring is removed."""
    survive = use(name, SMALL)

    def verify(completed: bool) -> None:
        survive(completed)
        unlink_objects(name)

    return verify


@pytest.mark.parametrize("state", list(STATES))
def test_death_while_attaching(state: str) -> None:
    """A process that dies while it attaches leaves nothing that anybody would notice."""
    scene = Scene(SMALL)
    STATES[state](scene)
    scene.save()

    def body(steps: Steps) -> None:
        steps.arm()
        attach(scene.name, SMALL)

    try:
        assert kill_everywhere(scene.restore, body, lambda _: scene.verify({})) > 10
    finally:
        scene.close()


def test_death_while_the_ring_grows() -> None:
    """Memory that was reserved and not yet announced is reserved again, and used."""
    scene = Scene(GROWING)
    scene.done(small_value(1), "one")
    scene.enqueue(small_value(2))
    assert scene.ring.counts().reserved_slots == at.STEP_SLOTS
    scene.save()
    grown = large_value(3, at.STEP_SLOTS + 10)

    def body(steps: Steps) -> None:
        ring = scene.attach()
        steps.arm()
        ring.enqueue(META, ring.encode(grown), priority=0, due_ns=0)

    try:
        assert kill_everywhere(scene.restore, body, lambda _: scene.verify({}, grown)) > 20
        assert scene.ring.counts().reserved_slots > at.STEP_SLOTS
    finally:
        scene.close()
