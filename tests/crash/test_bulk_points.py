"""A SIGKILL at every write step of tasks that are enqueued together: all of them or none."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring import batch as batches
from django_tasks_local.ring.records import slots
from tests.crash.deaths import die_everywhere
from tests.crash.keyed import key_of, keyed, keyed_value
from tests.crash.noted import metadata_of, noted_value
from tests.crash.scene import (
    FAR_NS,
    META,
    SMALL,
    Scene,
    large_value,
    small_value,
)  # fmt: skip
from tests.crash.states import STATES
from tests.crash.steps import Steps, die_in_child
from tests.rings import tally_of

FEW: Final = 3


@dataclass(frozen=True)
class Many:
    """Tasks that a child enqueues together until it is killed.

    Attributes:
        calls: The arguments of each.
        states: The scenes in which it does so.
        deferred: Whether they wait for their time.
    """

    calls: tuple[Any, ...]
    states: tuple[str, ...]
    deferred: bool = False


def some(make: Callable[..., Any], *slots: int) -> tuple[Any, ...]:
    """Arguments of a few tasks, none of which is in a scene."""
    return tuple(make(900 + n, *slots) for n in range(FEW))


CASES: Final = {
    "small": Many(some(small_value), ("empty", "waiting", "full", "crowded", "holes", "codes")),
    "deferred": Many(some(small_value), ("deferred",), deferred=True),
    "large": Many(some(large_value, 2), ("waiting", "crowded")),
    "mixed": Many((small_value(900), large_value(901, 2), small_value(902)), ("chained",)),
    "noted": Many((noted_value(900),) * FEW, ("waiting", "noted")),
    "keyed": Many(some(keyed_value), ("empty", "keyed")),
    "keyed_large": Many(some(keyed_value, 2), ("keyed",)),
}


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A ring of 46 slots."""
    made = Scene(SMALL)
    yield made
    made.close()


def put(ring: Ring, many: Many, now_ns: int) -> None:
    """Enqueues them together."""
    data = [ring.encode_arguments(each) for each in many.calls]
    keys = [key_of(each) for each in many.calls]
    ring.bulk.put(
        META, data, priority=0, due_ns=now_ns + FAR_NS if many.deferred else 0,
        metadata=metadata_of(many.calls[0]), keys=keys if any(keys) else (), tally=tally_of(ring),
    )  # fmt: skip


def body_of(scene: Scene, many: Many) -> Callable[[Steps], None]:
    """The child's part."""

    def body(steps: Steps) -> None:

        ring = scene.attach()
        steps.arm()
        put(ring, many, time.time_ns())

    return body


def verification(scene: Scene, many: Many) -> Callable[[bool], None]:
    """What must hold after a death."""

    def verify(completed: bool) -> None:
        scene.verify({}, [*many.calls])
        if completed:
            assert scene.extras == len(many.calls)
        seen.add(scene.extras)

    seen: set[int] = set()
    return verify


def kill_in(scene: Scene, many: Many) -> None:
    """Kills a child at each step of it, in the scene as it is."""
    scene.save()
    body, verify = body_of(scene, many), verification(scene, many)
    assert die_everywhere(scene, body, verify)


@pytest.mark.parametrize(
    ("name", "state"), [(name, state) for name, each in CASES.items() for state in each.states]
)
def test_death_at_every_step(scene: Scene, name: str, state: str) -> None:
    """Either all of them are there, each once and in their order, or nothing is."""
    {**STATES, "keyed": keyed}[state](scene)
    kill_in(scene, CASES[name])


@pytest.mark.parametrize(
    ("name", "state"), [("small", "holes"), ("large", "crowded"), ("keyed", "keyed")]
)
def test_death_between_pieces(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str, state: str
) -> None:
    """Likewise where each hold of the lock takes one slot, and makes one task READY."""
    for constant in (
        "TAKEN_AT_ONCE", "PUBLISHED_AT_ONCE", "PUBLISHED_SLOWLY_AT_ONCE", "FREED_AT_ONCE",
    ):  # fmt: skip
        monkeypatch.setattr(batches, constant, 1)
    monkeypatch.setattr(slots, "RUNS_AT_ONCE", 1)
    {**STATES, "keyed": keyed}[state](scene)
    kill_in(scene, CASES[name])


@pytest.mark.parametrize("accepted", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["small", "keyed", "large"])
def test_second_death_in_the_recovery(scene: Scene, name: str, accepted: bool) -> None:
    """Whoever dies while settling a batch, the next one settles it: all of it the same way."""
    many = CASES[name]
    STATES["waiting"](scene)

    def die_at_the_commit() -> None:

        ring = scene.attach()
        operations: Any = ring.bulk._batches
        commit = operations.commit

        def commit_or_die(batch: Any) -> bool:
            if not accepted:
                os.kill(os.getpid(), 9)
            commit(batch)
            os.kill(os.getpid(), 9)
            return True

        operations.commit = commit_or_die
        put(ring, many, time.time_ns())

    die_in_child(die_at_the_commit)
    scene.save()

    def settle(steps: Steps) -> None:
        ring = scene.attach()
        steps.arm()
        ring.upkeep.settle_dead()
        ring.attachment.become(Role.SITE)

    def verify(completed: bool) -> None:
        scene.verify({}, [*many.calls])
        assert scene.extras == (FEW if accepted else 0)

    assert die_everywhere(scene, settle, verify)
