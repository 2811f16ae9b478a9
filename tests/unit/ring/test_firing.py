"""Times of periodic tasks in the ring: each is settled with its task, or not at all."""

import threading
from dataclasses import replace
from typing import Any

import pytest

from django_tasks_local.exceptions import QueueFull
from django_tasks_local.ring import Due, Outcome, Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.ring.records.schedule import Row
from django_tasks_local.store import KeyTaken
from tests import rings as peers
from tests.rings import LIMITS, META, Rings, exists, put, run
from tests.unit.ring.quick import STEPS_PER_MS, count_steps

NAME, TIMING, NOW_NS = 5, 7, 10**18
SMALL: Any = ((1,), {})
LARGE: Any = ((b"x" * 5000,), {})
KEY = b"k" * 16
NOTE = b'{"_scheduled_for":"then"}'


def row_of(ring: Ring, name: int = NAME) -> Row:
    """A row as it is now."""
    return ring.firing.rows()[name]


def fire(
    ring: Ring, time_ns: int, row: Row | None = None, arguments: Any = SMALL, overlap: bool = True,
    key: bytes = b"",
) -> Outcome:  # fmt: skip
    """Fires for a time, as a pool that has seen this row."""
    due = Due(row or row_of(ring), time_ns, overlap)
    encoded = ring.encode(arguments)
    return ring.firing.fire(due, META, encoded, priority=0, time_limit=0, metadata=NOTE, key=key)


def last_id(row: Row) -> str:
    """The result id of a row's last run."""
    return format_id(row.id_high, row.id_low)


@pytest.fixture
def scheduled(ring: Ring) -> Ring:
    """A ring with one periodic task."""
    ring.firing.adopt([(NAME, TIMING)], NOW_NS)
    return ring


def test_a_new_entry_begins_now(scheduled: Ring) -> None:
    """Its times up to this moment are settled, and it has never fired."""
    assert row_of(scheduled) == Row(0, NAME, TIMING, NOW_NS, 0, 0, 0, 0)


@pytest.mark.parametrize("arguments", [SMALL, LARGE], ids=["inline", "chained"])
def test_a_time_fires_once(scheduled: Ring, arguments: Any) -> None:
    """Who comes second, with what it has seen before, comes too late."""
    ring, seen = scheduled, row_of(scheduled)
    free = ring.counts().free_slots
    assert fire(ring, NOW_NS + 1, seen, arguments) is Outcome.FIRED
    after = row_of(ring)
    assert (after.settled_ns, after.last_ns, after.skipped) == (NOW_NS + 1, NOW_NS + 1, 0)
    used = free - ring.counts().free_slots
    for time_ns in (NOW_NS + 1, NOW_NS + 2):
        assert fire(ring, time_ns, seen, arguments) is Outcome.TOO_LATE
    assert row_of(ring) == after
    assert ring.counts().free_slots == free - used
    found = ring.get(last_id(after))
    assert (found.metadata, found.arguments()) == (NOTE, arguments)
    assert run(ring) == last_id(after)
    assert ring.claim() is None
    assert ring.upkeep.check() == []


def test_of_many_pools_one_fires(rings: Rings) -> None:
    """However many see the same time at once."""
    ring = rings.attach()
    ring.firing.adopt([(NAME, TIMING)], NOW_NS)
    seen, outcomes, barrier = row_of(ring), [], threading.Barrier(4)

    def at_once() -> None:
        barrier.wait()
        outcomes.append(fire(ring, NOW_NS + 1, seen))

    threads = [threading.Thread(target=at_once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.name for each in outcomes) == ["FIRED"] + ["TOO_LATE"] * 3
    assert ring.counts().waiting == 1


@pytest.mark.parametrize("arguments", [SMALL, LARGE], ids=["inline", "chained"])
def test_it_does_not_overlap(scheduled: Ring, arguments: Any) -> None:
    """While the last run waits or runs, times are skipped and counted; then it fires again."""
    ring = scheduled
    fire(ring, NOW_NS + 1, arguments=arguments)
    first = last_id(row_of(ring))
    assert fire(ring, NOW_NS + 2, None, arguments, overlap=False) is Outcome.OVERLAPS
    claim = ring.claim()
    assert claim is not None
    assert claim.result_id == first
    assert fire(ring, NOW_NS + 3, None, arguments, overlap=False) is Outcome.OVERLAPS
    assert ring.counts().waiting == 0
    row = row_of(ring)
    assert (row.settled_ns, row.last_ns, row.skipped) == (NOW_NS + 3, NOW_NS + 1, 2)
    assert last_id(row) == first
    ring.finish(claim, successful=True, outcome=ring.encode(None))
    assert fire(ring, NOW_NS + 4, None, arguments, overlap=False) is Outcome.FIRED
    assert ring.upkeep.check() == []


@pytest.mark.parametrize("arguments", [SMALL, LARGE], ids=["inline", "chained"])
def test_a_unique_task_is_skipped_while_another_has_its_key(rings: Rings, arguments: Any) -> None:
    """Wherever that was enqueued; once its worker is dead, the time fires."""
    ring = rings.attach()
    ring.firing.adopt([(NAME, TIMING)], NOW_NS)
    ring.enqueue(META, ring.encode(SMALL), priority=0, due_ns=0, key=KEY)
    assert fire(ring, NOW_NS + 1, arguments=arguments, key=KEY) is Outcome.OVERLAPS
    worker = rings.peer(role=Role.WORKER)
    worker.do(peers.claim)
    assert fire(ring, NOW_NS + 2, arguments=arguments, key=KEY) is Outcome.OVERLAPS
    worker.kill()
    assert fire(ring, NOW_NS + 3, arguments=arguments, key=KEY) is Outcome.FIRED
    row = row_of(ring)
    assert (row.settled_ns, row.last_ns, row.skipped) == (NOW_NS + 3, NOW_NS + 3, 2)
    with pytest.raises(KeyTaken) as taken:
        ring.enqueue(META, ring.encode(SMALL), priority=0, due_ns=0, key=KEY)
    assert taken.value.result_id == last_id(row)
    assert ring.upkeep.check() == []


def test_a_run_that_was_evicted_is_over(scheduled: Ring) -> None:
    """So is one whose slot has another record by now."""
    ring = scheduled
    fire(ring, NOW_NS + 1)
    first = run(ring)
    while exists(ring, first):
        peers.done(ring)
    for _ in range(8):
        put(ring)
    assert fire(ring, NOW_NS + 2, overlap=False) is Outcome.FIRED


def test_a_run_that_was_lost_is_over(rings: Rings) -> None:
    """Its worker died, and that was settled."""
    ring = rings.attach()
    ring.firing.adopt([(NAME, TIMING)], NOW_NS)
    fire(ring, NOW_NS + 1)
    worker = rings.peer(role=Role.WORKER)
    worker.do(peers.claim)
    assert fire(ring, NOW_NS + 2, overlap=False) is Outcome.OVERLAPS
    worker.kill()
    ring.upkeep.settle_dead()
    assert fire(ring, NOW_NS + 3, overlap=False) is Outcome.FIRED


def test_where_there_is_no_room_nothing_is_settled(rings: Rings) -> None:
    """The next attempt, once there is room, fires for that time."""
    ring = rings.attach(replace(LIMITS, max_pending=1))
    ring.firing.adopt([(NAME, TIMING)], NOW_NS)
    put(ring)
    before = row_of(ring)
    for arguments in (SMALL, LARGE):
        with pytest.raises(QueueFull):
            fire(ring, NOW_NS + 1, arguments=arguments)
    assert row_of(ring) == before
    assert ring.upkeep.check() == []
    run(ring)
    assert fire(ring, NOW_NS + 1, before) is Outcome.FIRED


def test_times_are_settled_without_a_run(scheduled: Ring) -> None:
    """What is too long ago is passed over, by whoever comes first."""
    seen = row_of(scheduled)
    assert scheduled.firing.settle(seen, NOW_NS + 9)
    assert not scheduled.firing.settle(seen, NOW_NS + 8)
    assert row_of(scheduled) == seen._replace(settled_ns=NOW_NS + 9)


def test_entries_come_and_go(scheduled: Ring) -> None:
    """A new one begins now, one that has gone is forgotten, one with other times begins afresh."""
    ring = scheduled
    fire(ring, NOW_NS + 1)
    before = row_of(ring)
    ring.firing.adopt([(NAME, TIMING), (6, 1)], NOW_NS + 50)
    assert row_of(ring) == before
    assert row_of(ring, 6).settled_ns == NOW_NS + 50
    ring.firing.adopt([(NAME, TIMING + 1)], NOW_NS + 60)
    assert list(ring.firing.rows()) == [NAME]
    changed = row_of(ring)
    assert changed == before._replace(timing=TIMING + 1, settled_ns=NOW_NS + 60)
    assert fire(ring, NOW_NS + 2, before) is Outcome.TOO_LATE
    ring.firing.adopt([], NOW_NS + 70)
    assert ring.firing.rows() == {}
    ring.firing.adopt([(NAME, TIMING)], NOW_NS + 80)
    assert row_of(ring) == Row(0, NAME, TIMING, NOW_NS + 80, 0, 0, 0, 0)


def test_all_rows_are_given_in_one_short_hold(
    monkeypatch: pytest.MonkeyPatch, rings: Rings
) -> None:
    """As many entries as there can be, half of them new, within a millisecond inside."""
    steps = count_steps(monkeypatch)
    ring, half = rings.attach(), at.ROWS // 2
    ring.firing.adopt([(n, 1) for n in range(1, at.ROWS + 1)], NOW_NS)
    ring.firing.adopt([(n, 2) for n in range(half, half + at.ROWS)], NOW_NS + 1)
    assert 0 < steps.most["adopt"] < STEPS_PER_MS
    assert sorted(ring.firing.rows()) == list(range(half, half + at.ROWS))


def test_a_row_survives_a_rebuild_and_a_restart(rings: Rings) -> None:
    """No other process has to be there."""
    ring = rings.attach()
    ring.firing.adopt([(NAME, TIMING)], NOW_NS)
    fire(ring, NOW_NS + 1)
    before = row_of(ring)
    ring.upkeep.rebuild()
    assert row_of(ring) == before
    assert row_of(rings.attach()) == before
    ring.attachment.detach()
    assert row_of(rings.attach()) == before


def test_a_row_that_is_firing_for_nobody_is_repaired(scheduled: Ring) -> None:
    """Damage that only the next death would show."""
    ring = scheduled
    ring.words[at.SCHEDULE_AT + at.R_FIRING] = 12
    assert "row 0 of the schedule" in ring.upkeep.check()[0]
    assert ring.upkeep.repair()
    assert ring.upkeep.check() == []
    assert row_of(ring).settled_ns == NOW_NS
