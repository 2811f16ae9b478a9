"""Which waiting task is next."""

import heapq
import itertools
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_tasks_local.ring import Ring, operations, upkeep
from django_tasks_local.ring import ring as tasks
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records import order
from tests.rings import FAR_NS, LANE, LIMITS, Rings, put, run

SECOND_NS = 1_000_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until the test sets it."""
    clock = SimpleNamespace(now_ns=time.time_ns())
    for module in (operations, tasks, upkeep):
        monkeypatch.setattr(module, "time", SimpleNamespace(time_ns=lambda: clock.now_ns))
    return clock


def claimed(ring: Ring) -> list[str]:
    """All tasks that can be claimed now, in their order."""
    taken = []
    while (claim := ring.claim()) is not None:
        taken.append(claim.result_id)
        ring.finish(claim, successful=True, outcome=ring.encode(None))
    return taken


def test_first_in_first_out(ring: Ring) -> None:
    """Within one priority the oldest goes first."""
    ids = [put(ring) for _ in range(5)]
    assert claimed(ring) == ids


def test_a_higher_priority_goes_first(ring: Ring) -> None:
    """From 100 to -100, and FIFO within each."""
    priorities = [0, -100, 100, 63, 64, -1, 0, 100, 1, -100, 27, 28]
    ids = {put(ring, priority=priority): priority for priority in priorities}
    assert claimed(ring) == sorted(ids, key=lambda each: -ids[each])


@pytest.mark.parametrize("priority", [-100, -99, -37, -36, 27, 28, 91, 92, 99, 100])
def test_every_word_of_the_bitmap(ring: Ring, priority: int) -> None:
    """The edges of the bitmap's words are priorities like all others."""
    lower = put(ring, priority=max(-100, priority - 1))
    higher = put(ring, priority=priority)
    assert claimed(ring) == ([lower, higher] if priority == -100 else [higher, lower])


def test_bits_of_priorities_that_do_not_exist_lead_nowhere(ring: Ring) -> None:
    """A damaged bitmap must not lead behind the FIFOs."""
    result_id = put(ring)
    ring.words[LANE + at.L_BITMAP + 3] |= 1 << 60
    assert claimed(ring) == [result_id]


def test_an_arrival_overtakes_lower_ones_only(ring: Ring) -> None:
    """The order is looked up at each claim."""
    first, second = put(ring), put(ring)
    assert run(ring) == first
    urgent = put(ring, priority=1)
    assert claimed(ring) == [urgent, second]


def test_a_large_task_has_its_place_when_it_is_published(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one process copies, others pass; a rebuild agrees with that order."""
    slots = ring._table.slots
    write = slots.write
    passing = []

    def slow(*args: object) -> None:
        monkeypatch.setattr(slots, "write", write)
        passing.append(put(ring))
        write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(slots, "write", slow)
    large = put(ring, ((b"x" * 5000,), {}))
    assert ring.upkeep.check() == []
    ring.upkeep.rebuild()
    assert claimed(ring) == [*passing, large]


# --- run_after -----------------------------------------------------------------------------


def test_a_deferred_task_waits(ring: Ring, clock: SimpleNamespace) -> None:
    """Not a nanosecond too early, and then at once."""
    later = put(ring, due_ns=clock.now_ns + 5)
    assert claimed(ring) == []
    assert ring.upkeep.next_due_ns() == clock.now_ns + 5
    clock.now_ns += 4
    assert claimed(ring) == []
    clock.now_ns += 1
    assert claimed(ring) == [later]
    assert ring.upkeep.next_due_ns() == 0


def test_a_time_in_the_past_is_now(ring: Ring, clock: SimpleNamespace) -> None:
    """Such a task is never deferred."""
    ids = [put(ring, due_ns=due) for due in (1, clock.now_ns - 1, clock.now_ns)]
    assert ring.counts().deferred == 0
    assert claimed(ring) == ids


def test_what_falls_due_takes_its_place_by_priority(ring: Ring, clock: SimpleNamespace) -> None:
    """Behind those of its priority that wait already, before lower ones."""
    due = put(ring, due_ns=clock.now_ns + SECOND_NS, priority=5)
    low, high, equal = put(ring), put(ring, priority=9), put(ring, priority=5)
    clock.now_ns += SECOND_NS
    assert claimed(ring) == [high, equal, due, low]


def test_those_that_fall_due_together_come_in_the_order_of_their_times(
    ring: Ring, clock: SimpleNamespace
) -> None:
    """And those of one time in the order in which they were enqueued."""
    delays = [5, 3, 9, 3, 1, 5]
    ids = {put(ring, due_ns=clock.now_ns + each): each for each in delays}
    clock.now_ns += 10
    assert claimed(ring) == sorted(ids, key=lambda each: ids[each])


def test_a_promotion_without_deferred_tasks_does_nothing(ring: Ring) -> None:
    """It is called every second or so."""
    tick = ring.words[at.H_TICK]
    ring.upkeep.promote()
    assert ring.words[at.H_TICK] == tick


def test_promote_moves_what_is_due(ring: Ring, clock: SimpleNamespace) -> None:
    """Somebody who only looks moves what is due, and wakes workers for it."""
    put(ring, due_ns=clock.now_ns + 5)
    put(ring, due_ns=clock.now_ns + FAR_NS)
    ring.upkeep.promote()
    assert (ring.counts().waiting, ring.counts().deferred) == (0, 2)
    clock.now_ns += 5
    ring.upkeep.promote()
    assert (ring.counts().waiting, ring.counts().deferred) == (1, 1)
    assert ring._semaphores.wake_ups() == 1
    assert ring.upkeep.check() == []


def herd(rings: Rings, clock: SimpleNamespace, count: int) -> tuple[Ring, list[str]]:
    """A ring with so many tasks that have fallen due together, and their ids in order."""
    ring = rings.attach(replace(LIMITS, max_pending=count + 10))
    ids = [put(ring, due_ns=clock.now_ns + SECOND_NS) for _ in range(count)]
    clock.now_ns += SECOND_NS
    return ring, ids


def test_a_herd_is_moved_in_steps(rings: Rings, clock: SimpleNamespace) -> None:
    """However many fall due at one instant, one hold of the lock moves some, in their order."""
    step = order.PROMOTED_AT_ONCE
    ring, ids = herd(rings, clock, 2 * step + 1)
    promote = ring._table.order.promote
    assert ring._mutex.run(promote, clock.now_ns)
    assert (ring.counts().waiting, ring.counts().deferred) == (step, step + 1)
    assert ring.upkeep.check() == []
    assert ring._mutex.run(promote, clock.now_ns)
    assert not ring._mutex.run(promote, clock.now_ns)
    assert (ring.counts().waiting, ring.counts().deferred) == (2 * step + 1, 0)
    assert ring.upkeep.check() == []
    assert claimed(ring) == ids


def test_claims_take_a_herd_in_its_order(rings: Rings, clock: SimpleNamespace) -> None:
    """Nobody has to have moved it: each claim moves a step, and takes one of what is there."""
    ring, ids = herd(rings, clock, 3 * order.PROMOTED_AT_ONCE)
    assert claimed(ring) == ids


def test_priority_holds_among_those_of_a_herd_that_were_moved(
    rings: Rings, clock: SimpleNamespace
) -> None:
    """What comes in a later step cannot go before what an earlier claim found."""
    ring, ids = herd(rings, clock, order.PROMOTED_AT_ONCE)
    clock.now_ns -= SECOND_NS
    urgent = put(ring, due_ns=clock.now_ns + SECOND_NS, priority=9)
    clock.now_ns += SECOND_NS
    assert claimed(ring) == [ids[0], urgent, *ids[1:]]


def test_a_herd_of_other_code_hides_nothing(rings: Rings, clock: SimpleNamespace) -> None:
    """A claim looks behind the tasks that it may not run, however many have fallen due."""
    ring, _ = herd(rings, clock, 2 * order.PROMOTED_AT_ONCE)
    other = rings.attach(path="/green/settings.py")
    mine = put(other, due_ns=clock.now_ns + SECOND_NS)
    clock.now_ns += SECOND_NS
    claim = other.claim(at.Share(1, other.registry.serial))
    assert claim is not None
    assert claim.result_id == mine
    other.finish(claim, successful=True, outcome=other.encode(None))
    assert ring.upkeep.check() == []


def test_promote_moves_a_herd(rings: Rings, clock: SimpleNamespace) -> None:
    """Some hundreds at once; then the next moment at which something is due has passed already."""
    count = 40 * order.PROMOTED_AT_ONCE
    ring, _ = herd(rings, clock, count)
    ring.upkeep.promote()
    assert 0 < ring.counts().waiting < count
    assert 0 < ring.upkeep.next_due_ns() <= clock.now_ns
    ring.upkeep.promote()
    assert (ring.counts().waiting, ring.upkeep.next_due_ns()) == (count, 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=40))
def test_the_heap_is_a_heap(
    rings: Rings, clock: SimpleNamespace, steps: list[tuple[int, bool]]
) -> None:
    """Whatever comes and goes, the earliest is due next, as Python's own heap has it."""
    ring = rings.attach()
    claimed(ring)
    count = itertools.count()
    expected: list[tuple[int, int, str]] = []
    for delay, leave in steps:
        if leave and expected:
            due, _, result_id = heapq.heappop(expected)
            clock.now_ns = due
            assert run(ring) == result_id
        elif len(expected) < ring.attachment.limits.max_pending:
            number = next(count)
            due = (clock.now_ns // 1000 + delay) * 1000 + number  # no two fall due together
            heapq.heappush(expected, (due, number, put(ring, due_ns=due)))
        assert ring.upkeep.next_due_ns() == (expected[0][0] if expected else 0)
        assert ring.upkeep.check() == []
    clock.now_ns += FAR_NS
    assert claimed(ring) == [each[2] for each in sorted(expected)]
