"""A SIGKILL at every write step of what is done with unique tasks."""

from typing import Final

import pytest

from tests.crash.keyed import keyed, keyed_value
from tests.crash.operations import Operation, cancel_waiting, end, put
from tests.crash.scene import SUCCESSFUL, Scene
from tests.crash.states import STATES
from tests.crash.test_points import OUTCOME, kill_in, scene

__all__ = ["scene"]

NEW = keyed_value(904)
NEW_LARGE = keyed_value(905, 4)
OF_THE_DEAD = keyed_value(3)

UNIQUE: Final = {
    "enqueue": Operation(put(NEW), extra=NEW, states=("empty", "full", "deferred", "keyed")),
    "enqueue_large": Operation(put(NEW_LARGE), extra=NEW_LARGE, states=("full", "keyed")),
    "enqueue_a_key_of_the_dead": Operation(put(OF_THE_DEAD), extra=OF_THE_DEAD, states=("keyed",)),
    "claim": Operation(lambda ring, _: ring.claim(), claims=True, states=("keyed",)),
    "finish": Operation(
        end(OUTCOME), lambda ring: ring.claim(), ends=SUCCESSFUL, claims=True, states=("keyed",)
    ),
    "cancel_first": cancel_waiting(0, ("keyed",)),
    "cancel_second": cancel_waiting(1, ("keyed",)),
    "cancel_last": cancel_waiting(-1, ("keyed",)),
    "reap": Operation(lambda ring, _: ring.upkeep.settle_dead(), states=("keyed",)),
    "rebuild": Operation(lambda ring, _: ring.upkeep.rebuild(), states=("keyed",)),
    "repair": Operation(lambda ring, _: ring.upkeep.repair(), states=("keyed",)),
}  # fmt: skip
CASES: Final = [(name, state) for name, each in UNIQUE.items() for state in each.states]


@pytest.mark.parametrize(("name", "state"), CASES)
def test_death_at_every_step(scene: Scene, name: str, state: str) -> None:
    """No key is lost, and none is held by what has ended."""
    {**STATES, "keyed": keyed}[state](scene)
    kill_in(scene, UNIQUE[name])
