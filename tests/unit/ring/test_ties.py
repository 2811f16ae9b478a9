"""Groups and follow-ups in the ring: what a record knows of others, and room for what follows."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from django.tasks import TaskResultStatus

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull, StoreUnavailable
from django_tasks_local.ring import Due, Look, Outcome, Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.blocks import BLOCK_HEAD_BYTES
from django_tasks_local.ring.format.ties import decode_ties, encode_ties
from django_tasks_local.ring.records.groups import Groups
from django_tasks_local.ring.records.payload import Pickled
from django_tasks_local.ties import NOTHING, FollowUp, Ties, group_digest
from tests import rings as peers
from tests.rings import ERROR, LIMITS, META, Rings, change_limits, ring_address

# 46 slots.
SMALL = replace(LIMITS, max_pending=100, shm_size=at.COLUMNS_AT + 63_096)
THEN, FAILING = b"app:then", b"app:failing"


def ties_to(*plan: FollowUp, group: str = "g") -> Ties:
    """Ties of a task that the first of a plan follows, however it ends."""
    return Ties(group, "", 0, 0, plan)


def put(ring: Ring, ties: Ties | None, arguments: Any = ((), {}), **words: Any) -> str:
    """Enqueues a task."""
    words = {"priority": 0, "due_ns": 0} | words
    return ring.enqueue(META, ring.encode(arguments), ties=ties, **words)[0]


def end(ring: Ring, *, successful: bool = True, outcome: Any = None) -> Any:
    """Runs the next task; its claim."""
    claim = ring.claim()
    assert claim is not None
    ring.finish(claim, successful=successful, outcome=ring.encode(outcome))
    return claim


@pytest.mark.parametrize(
    "ties",
    [
        Ties(),
        Ties("a group, ä"),
        Ties("g", "1" * 36, 1, 0, (FollowUp(b"m:a", None, -100, 2**63),) * 2),
        Ties("", "", NOTHING, 1, (
            FollowUp(b"m:a", b"pickled", 100, 0, 1, NOTHING, "x"),
            FollowUp(b"m:b\0fields", None, 0, 7, 0, 1, "y"),
        )),
    ],
)  # fmt: skip
def test_ties_as_bytes(ties: Ties) -> None:
    """They come back as they were, also with room behind them; what is cut is none."""
    data = encode_ties(ties)
    assert decode_ties(data) == decode_ties(data + bytes(99)) == ties
    assert [cut for cut in range(len(data)) if decode_ties(data[:cut]) == ties] == []


def test_room_that_is_kept_already_counts_once(rings: Rings) -> None:
    """What a ring takes once it takes again; and what never fits beside it is too large."""
    ring = rings.attach(SMALL)
    ties = ties_to(FollowUp(THEN, b"x" * 5000, 0, 0))
    for _ in range(2):
        put(ring, ties)
        end(ring)
        end(ring)
    usable = ring.counts().slots - SMALL.max_workers - 2
    with pytest.raises(PayloadTooLarge, match="Arguments of task"):
        put(ring, ties, ((b"x" * (usable - 20) * SMALL.slot_size,), {}))
    assert ring.upkeep.check() == []


def test_a_follow_up_passes_on_what_it_has() -> None:
    """The group stays, or else that of its own counts; the bytes keep their length."""
    plan = FollowUp(b"m:a", None, 0, 0, 1, 0, "own"), FollowUp(b"m:b", None, 0, 0)
    first = Ties("", "", 0, 1, plan)
    follow_up = first.next(successful=True)
    assert follow_up is plan[0]
    second = first.passed_on(follow_up, "2" * 36)
    assert second == Ties("own", "2" * 36, 1, 0, plan)
    assert len(encode_ties(second)) == len(encode_ties(first))
    assert Ties("g", "", 0, 1, plan).passed_on(plan[0], "").group == "g"
    assert plan[1].group == ""
    assert group_digest("") == 0 != group_digest("a")


def test_what_follows(ring: Ring) -> None:
    """Its priority, time limit, arguments and code; it is READY with the end of the first."""
    large = ring.encode(((b"x" * 3000,), {}))
    plan = FollowUp(THEN, large, 7, 5, 1, NOTHING), FollowUp(FAILING, None, -3, 6)
    first = put(ring, ties_to(*plan), priority=3)
    put(ring, None, priority=7)
    end(ring)
    claim = end(ring, outcome="first")
    assert claim.result_id == first
    second = end(ring)
    assert (second.meta, second.arguments(), second.time_limit) == (THEN, ((b"x" * 3000,), {}), 5)
    assert second.ties.after == first
    assert second.head.origin == claim.head.origin - 3 + 7
    third = end(ring, successful=False)
    assert (third.meta, third.arguments(), third.ties.after) == (
        FAILING, ((second.result_id,), {}), second.result_id,
    )  # fmt: skip
    assert ring.claim() is None
    assert ring.upkeep.check() == []


def test_it_waits_for_the_last_attempt(ring: Ring) -> None:
    """A retry is no end; ties go along with it."""
    first = put(ring, ties_to(FollowUp(THEN, None, 0, 0)))
    claim = ring.claim()
    assert claim is not None
    assert ring.retry(claim, error=ERROR, due_ns=0)
    assert ring.counts().waiting == 1
    assert end(ring, successful=False).result_id == first
    assert end(ring).ties.after == first
    assert ring.upkeep.check() == []


def test_a_full_ring_has_room(rings: Rings) -> None:
    """Also where two workers have taken what is kept for their results."""
    ring = rings.attach(SMALL)
    for _ in range(2):
        put(ring, ties_to(FollowUp(THEN, ring.encode(((b"x" * 1500,), {})), 0, 0)))
    for size in (2000, 0):
        with pytest.raises(QueueFull):  # noqa: PT012
            for _ in range(99):
                put(ring, None, ((bytes(size),), {}))
    claims = [ring.claim(), ring.claim()]
    for claim in claims:
        assert claim is not None
        ring.finish(claim, successful=True, outcome=ring.encode("x" * 300))
    assert len(ring.unfinished_in("g")) == 2
    assert ring.upkeep.check() == []
    assert {end(ring).meta for _ in range(ring.counts().waiting)} == {META, THEN}


def test_a_full_ring_with_more_workers_than_before(rings: Rings) -> None:
    """Their results take no room that is kept for what follows."""
    ring = rings.attach(SMALL)
    for _ in range(6):
        put(ring, ties_to(FollowUp(THEN, None, 0, 0)))
    with pytest.raises(QueueFull):  # noqa: PT012
        for _ in range(99):
            put(ring, None)
    change_limits(ring, max_workers=6)
    *others, last = (ring.claim() for _ in range(6))
    assert last is not None
    outcome = Pickled.of(ring.encode("x" * 440))
    for claim in filter(None, others):
        with suppress(PayloadTooLarge):
            ring._chaining.write_outcome(claim, outcome, 1)
    ring.finish(last, successful=True, outcome=ring.encode(None))
    waiting = ring.listed({TaskResultStatus.READY}, None)
    assert [each.meta for each in waiting if each.ties.after == last.result_id] == [THEN]


def test_many_need_no_more_room_than_one(rings: Rings) -> None:
    """What is kept for their follow-ups is kept once, also where others have kept it before."""
    ring = rings.attach(SMALL)
    ties, arguments = ties_to(FollowUp(THEN, ring.encode(((b"x" * 1500,), {})), 0, 0)), b"none"
    empty = ring.words[at.H_FREE]
    put(ring, ties)
    needed = empty - ring.words[at.H_FREE] + 1  # and the batch's own record
    while ring.words[at.H_FREE] > ring._table.kept() + needed:
        put(ring, None)
    assert len(ring.bulk.put(META, [arguments], priority=0, due_ns=0, ties=ties)[0]) == 1
    with pytest.raises(QueueFull):
        ring.bulk.put(META, [arguments], priority=0, due_ns=0, ties=ties)
    assert ring.upkeep.check() == []


def test_what_could_never_follow(ring: Ring) -> None:
    """Plans have at most 64 slots; the text names the task and the limit, and nothing is stored."""
    huge = FollowUp(THEN, ring.encode(((b"x" * 17_000,), {})), 0, 0)
    with pytest.raises(PayloadTooLarge, match=r"Follow-ups of task tests\.tasks\.noop.*SLOT_SIZE"):
        put(ring, ties_to(huge, huge))
    assert ring.counts().waiting == 0
    assert ring.upkeep.check() == []


def test_a_periodic_task_is_followed(rings: Rings) -> None:
    """Firing stores ties, too."""
    rings.attach(role=Role.VISITOR)
    pool = rings.attach(role=Role.POOL)
    pool.firing.adopt([(5, 7)], 10)
    due = Due(pool.firing.rows()[5], 11, overlap=True)
    ties = ties_to(FollowUp(THEN, None, 0, 0))
    fired = pool.firing.fire(
        due, META, pool.encode(((), {})), priority=0, time_limit=0, metadata=b"{}", ties=ties
    )
    assert fired is Outcome.FIRED
    assert end(pool).result_id == end(pool).ties.after


def test_a_task_of_another_release(rings: Rings) -> None:
    """What follows belongs to the release of the first task, whoever ends that."""
    blue, green = rings.attach(path="/blue"), rings.attach(path="/green")
    first = put(green, ties_to(FollowUp(THEN, None, 0, 0)))
    assert blue.cancel(first, running=False)[0]
    (found,) = blue.listed({TaskResultStatus.READY}, None)
    assert at.code_of(found.head.origin) == green.registry.code
    assert found.head.origin & ~0xFF == green.registry.origin << 8


def test_groups(rings: Rings, ring: Ring) -> None:
    """They are listed by all who look; a name is compared, not only its digest."""
    ids = {put(ring, Ties(name)): name for name in ("a", "a", "b")}
    put(ring, None)
    found = {each.result_id for each in ring.listed(frozenset(TaskResultStatus), None, "a")}
    assert found == {key for key, name in ids.items() if name == "a"}
    assert set(ring.unfinished_in("a")) == found
    look = Look.into(rings.name, "unit")
    assert look is not None
    assert {each.result_id for each in look.listed(frozenset(TaskResultStatus), None, "a")} == found
    slot = ring_address(next(iter(ids)))[0]
    start = ring._table.head(slot).ties_chain & at.EXTENT_SLOT_MASK
    digest = (ring._table.offset(start) + BLOCK_HEAD_BYTES) // 8
    assert ring.words[digest] == group_digest("a")


def test_a_group_that_goes_on_meanwhile(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task ends and is evicted between two looks: what follows it is found."""
    put(ring, ties_to(FollowUp(THEN, None, 0, 0)))
    find = Groups._record

    def find_too_late(groups: Groups, slot: int) -> Any:
        monkeypatch.setattr(Groups, "_record", find)
        end(ring)
        ring._mutex.run(ring._table.evict_oldest)
        return find(groups, slot)

    monkeypatch.setattr(Groups, "_record", find_too_late)
    (follower,) = ring.unfinished_in("g")
    assert ring.get(follower).meta == THEN


def test_damaged_ties(ring: Ring) -> None:
    """A reader is told; the audit names them, and the repair drops that record alone."""
    damaged, whole = (put(ring, ties_to(FollowUp(THEN, None, 0, 0))) for _ in range(2))
    start = ring._table.head(ring_address(damaged)[0]).ties_chain & at.EXTENT_SLOT_MASK
    ring.segment.bytes[ring._table.offset(start) + 40] ^= 1
    with pytest.raises(StoreUnavailable, match="damaged"):
        ring.get(damaged)
    assert ring.unfinished_in("g") == [whole]
    assert any("its ties do not match their CRC" in problem for problem in ring.upkeep.check())
    ring.upkeep.repair()
    assert ring.upkeep.check() == []
    assert ring.get(whole).ties.group == "g"


@pytest.mark.parametrize("size", [0, 400, 1500])
@pytest.mark.parametrize("own", [0, 400, 9000])
def test_room_that_a_rebuild_keeps(rings: Rings, size: int, own: int) -> None:
    """It is read off how large records are: as much as was kept when the first was enqueued."""
    ring = rings.attach(SMALL)
    steps = FollowUp(THEN, ring.encode(((b"x" * size,), {})), 0, 0, 1), FollowUp(THEN, b"y", 0, 0)
    put(ring, ties_to(*steps), ((b"x" * own,), {}))
    kept = []
    for _ in range(3):
        kept.append(ring.words[at.H_HANDOVER])
        end(ring)
        ring.upkeep.rebuild()
    assert kept[0] == kept[1] > 1 == 1 + kept[2] == 1 + ring.words[at.H_HANDOVER]


@pytest.mark.parametrize("handover", [0, 2**40])
def test_damaged_room(ring: Ring, handover: int) -> None:
    """The audit names a HANDOVER that cannot be, and a rebuild finds it again."""
    put(ring, ties_to(FollowUp(THEN, None, 0, 0)))
    before = ring.words[at.H_HANDOVER]
    assert before == 2
    ring.words[at.H_HANDOVER] = handover
    assert any("HANDOVER" in problem for problem in ring.upkeep.check())
    ring.words[at.H_FREE] = 1
    assert "1 slots can be made free, and follow-ups need 2" in ring.upkeep.check()
    ring.upkeep.rebuild()
    assert ring.words[at.H_HANDOVER] == before
    assert ring.upkeep.check() == []


def test_a_lost_worker_is_followed_once(rings: Rings, ring: Ring) -> None:
    """Whoever settles it; its other threads' tasks too."""
    first, second = (put(ring, ties_to(FollowUp(THEN, None, 100, 0))) for _ in range(2))
    worker = rings.peer(role=Role.WORKER)
    assert {worker.do(peers.claim), worker.do(peers.claim)} == {first, second}
    worker.kill()
    ring.upkeep.settle_dead()
    ring.upkeep.settle_dead()
    assert {end(ring).ties.after, end(ring).ties.after} == {first, second}
    assert ring.claim() is None
    assert ring.upkeep.check() == []
