"""A SIGKILL at every write step of what a pool does with its schedule.

Whatever dies, a time is settled together with its task or not at all, and the next pool makes up
for what is missing: each time fires once.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_tasks_local.ring import Due, Outcome, Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.ids import format_id
from tests.crash.deaths import deaths, die_everywhere
from tests.crash.noted import metadata_of, noted_value
from tests.crash.operations import Operation
from tests.crash.scene import META, SMALL, Scene
from tests.crash.states import STATES
from tests.crash.steps import Steps
from tests.rings import tally_of

NAME, OTHER, TIMING, BEGIN_NS, TIME_NS = 5, 6, 7, 10**18, 10**18 + 1
FIRED = noted_value(904)
FIRED_LARGE = noted_value(905, 4)


def adopt(ring: Ring) -> Due:
    """A schedule of two entries; a time of the first has come."""
    ring.firing.adopt([(NAME, TIMING), (OTHER, TIMING)], BEGIN_NS)
    return Due(ring.firing.rows()[NAME], TIME_NS, overlap=False)


def fire(ring: Ring, due: Due, arguments: Any) -> Outcome:
    """A pool fires."""
    encoded, metadata = ring.encode(arguments), metadata_of(arguments)
    return ring.firing.fire(
        due, META, encoded, priority=0, time_limit=0, metadata=metadata, tally=tally_of(ring)
    )


# For the interruptions, too.
FIRING = {
    "fire": Operation(lambda ring, due: fire(ring, due, FIRED), adopt, extra=FIRED),
    "fire_large": Operation(
        lambda ring, due: fire(ring, due, FIRED_LARGE), adopt, extra=FIRED_LARGE
    ),
    "adopt": Operation(lambda ring, _: ring.firing.adopt([(NAME, 1), (8, 1)], TIME_NS), adopt),
}


def waiting(ring: Ring, arguments: Any) -> list[str]:
    """Ids of the tasks that wait and were enqueued with these arguments."""
    table, found = ring._table, []
    for slot in range(1, table.slots.reserved()):
        if table.state(slot) == at.READY:
            head = table.head(slot)
            result_id = format_id(head.id_high, head.id_low)
            if ring.get(result_id).arguments() == arguments:
                found.append(result_id)
    return found


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A ring of 46 slots."""
    made = Scene(SMALL)
    yield made
    made.close()


def kill_in(scene: Scene, act: Callable[[Ring], object], judge: Callable[[bool], None]) -> None:
    """Kills a child at each step of what it does on the scene as it is."""

    def body(steps: Steps) -> None:
        ring = scene.attach(Role.SITE)
        steps.arm()
        act(ring)

    scene.save()
    assert die_everywhere(scene, body, judge)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("arguments", [FIRED, FIRED_LARGE], ids=["small", "large"])
def test_a_time_is_settled_with_its_task(scene: Scene, state: str, arguments: Any) -> None:
    """A death leaves both or neither, and the next pool fires if it was neither."""
    STATES[state](scene)
    due = adopt(scene.ring)

    def judge(completed: bool) -> None:
        ring = scene.ring
        ring.attachment.become(Role.SITE)
        ring.upkeep.settle_dead()
        row, ids = ring.firing.rows()[NAME], waiting(ring, arguments)
        if ids:
            assert row == due.row._replace(
                settled_ns=TIME_NS, last_ns=TIME_NS, id_high=row.id_high, id_low=row.id_low
            )
            assert ids == [format_id(row.id_high, row.id_low)]
        else:
            assert not completed
            assert row == due.row
        outcome = fire(ring, due, arguments)
        assert outcome is (Outcome.TOO_LATE if ids else Outcome.FIRED)
        assert len(waiting(ring, arguments)) == 1
        scene.verify({}, arguments)

    kill_in(scene, lambda ring: fire(ring, due, arguments), judge)


def test_a_time_is_skipped_once(scene: Scene) -> None:
    """Where the earlier run is not over: a death may count it twice, and never fires it."""
    due = adopt(scene.ring)
    assert fire(scene.ring, due, FIRED) is Outcome.FIRED
    due = Due(scene.ring.firing.rows()[NAME], TIME_NS + 1, overlap=False)

    def judge(completed: bool) -> None:
        ring = scene.ring
        ring.attachment.become(Role.SITE)
        settled = ring.firing.rows()[NAME].settled_ns == TIME_NS + 1
        assert settled or not completed
        outcome = fire(ring, due, FIRED)
        assert outcome is (Outcome.TOO_LATE if settled else Outcome.OVERLAPS)
        row = ring.firing.rows()[NAME]
        assert (row.settled_ns, row.last_ns) == (TIME_NS + 1, TIME_NS)
        assert row.skipped in (1, 2)
        assert len(waiting(ring, FIRED)) == 1
        scene.verify({}, FIRED)

    kill_in(scene, lambda ring: fire(ring, due, FIRED), judge)


def test_entries_come_and_go(scene: Scene) -> None:
    """Half an adoption is finished by the next: no time fires that was not of the new entries."""
    due = adopt(scene.ring)
    fire(scene.ring, due, FIRED)
    before = scene.ring.firing.rows()
    entries = [(NAME, TIMING + 1), (8, 1), (9, 1)]

    def judge(completed: bool) -> None:
        ring = scene.ring
        ring.attachment.become(Role.SITE)
        for name, row in ring.firing.rows().items():
            changed = before[name]._replace(settled_ns=TIME_NS + 5) if name == NAME else None
            fresh = (row.settled_ns, row.last_ns, row.skipped) == (TIME_NS + 5, 0, 0)
            assert fresh or row._replace(timing=TIMING) in (before.get(name), changed)
        ring.firing.adopt(entries, TIME_NS + 6)
        rows = ring.firing.rows()
        assert {name: row.timing for name, row in rows.items()} == dict(entries)
        settled = {row.settled_ns for row in rows.values()}
        assert settled <= {TIME_NS + 5, TIME_NS + 6}
        assert not completed or settled == {TIME_NS + 5}
        assert rows[NAME].last_ns == TIME_NS
        scene.verify({}, FIRED)

    kill_in(scene, lambda ring: ring.firing.adopt(entries, TIME_NS + 5), judge)


def test_a_second_death_in_the_recovery(scene: Scene) -> None:
    """Who dies while completing what a death left is completed by the next."""
    due = adopt(scene.ring)
    scene.save()

    def repair(steps: Steps) -> None:
        ring = scene.attach()
        steps.arm()
        ring.attachment.become(Role.SITE)

    def body(steps: Steps) -> None:
        ring = scene.attach()
        steps.arm()
        fire(ring, due, FIRED)

    def judge(_: bool) -> None:
        scene.ring.attachment.become(Role.SITE)
        row, ids = scene.ring.firing.rows()[NAME], waiting(scene.ring, FIRED)
        assert ids == ([format_id(row.id_high, row.id_low)] if row.last_ns else [])
        assert row.settled_ns == (TIME_NS if ids else BEGIN_NS)
        scene.ring.upkeep.settle_dead()
        assert scene.ring.upkeep.check() == []

    tried = 0
    for death in deaths(scene, body):
        firing = scene.ring.words[at.SCHEDULE_AT + at.R_FIRING]
        if scene.dirty() and firing and not death.torn:
            original = scene.save()
            tried += die_everywhere(scene, repair, judge)
            scene.save(original)
    assert tried
