"""Damaged links and counts: found before they are followed, and mended by the next one inside."""

import struct

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records.slots import Wanted
from django_tasks_local.ring.records.table import Room
from tests.rings import Rings, done, put, ring_address, run

# Below SLOTS, but without memory: reading it is a page, or a SIGBUS.
HOLE = at.STEP_SLOTS + 5


def slot_of(result_id: str) -> int:
    return ring_address(result_id)[0]


def test_a_slot_without_memory_is_never_touched(ring: Ring) -> None:
    """The segment knows how far its memory goes, and learns of growth by others."""
    ring.segment.must_hold(at.STEP_SLOTS - 1)
    with pytest.raises(IndexError):
        ring.segment.must_hold(at.STEP_SLOTS)
    rings_slots = ring._table.slots
    ring._mutex.run(rings_slots.grow)
    ring.segment.must_hold(at.STEP_SLOTS)


@pytest.mark.parametrize("word", [at.H_NEWEST, at.H_OLDEST])
def test_an_end_of_the_recency_list_that_leads_into_a_hole(ring: Ring, word: int) -> None:
    """One operation is refused, the next finds all in order."""
    for _ in range(8):
        kept = done(ring)
    ring.words[word] = HOLE
    with pytest.raises(StoreUnavailable, match="do not fit"):
        done(ring)
    assert ring.upkeep.check() == []
    assert ring.get(kept).status.name == "SUCCESSFUL"


@pytest.mark.parametrize("column", ["link", "back"])
def test_a_link_of_the_recency_list_that_leads_into_a_hole(ring: Ring, column: str) -> None:
    """Whoever makes that result the most recent one finds out."""
    ids = [done(ring) for _ in range(3)]
    ring.words[ring.segment.geometry.column(column) + slot_of(ids[1])] = HOLE
    with pytest.raises(StoreUnavailable, match="do not fit"):
        ring.get(ids[1])
    assert ring.get(ids[1]).status.name == "SUCCESSFUL"
    assert ring.upkeep.check() == []


@pytest.mark.parametrize("wrong", [HOLE, 2**40])
def test_a_heap_that_leads_into_a_hole(ring: Ring, wrong: int) -> None:
    """Its first record is due at once then, so that somebody goes inside and finds out."""
    for number in range(3):
        put(ring, due_ns=2**62 + number)
    ring.words[ring.segment.geometry.column("heap")] = wrong
    assert ring.upkeep.next_due_ns() == 1
    with pytest.raises(StoreUnavailable, match="do not fit"):
        ring.claim()
    assert ring.claim() is None
    assert ring.upkeep.check() == []


def test_a_free_map_that_offers_what_is_taken(ring: Ring) -> None:
    """A damaged byte of it costs nobody a task."""
    waiting, large = put(ring), put(ring, ((bytes(3000),), {}))
    for slot in (slot_of(waiting), slot_of(waiting) + 2):
        ring.segment.bytes[ring.segment.geometry.map_at + slot] = 0
        ring.words[at.H_CURSOR] = slot
        with pytest.raises(StoreUnavailable, match="do not fit"):
            put(ring)
        assert ring.upkeep.check() == []
    assert [ring.get(key).arguments() for key in (waiting, large)] == [
        ((), {}),
        ((bytes(3000),), {}),
    ]


def test_slots_that_a_lost_result_left_are_free(ring: Ring) -> None:
    """Their commit words still name a record that is there, and that does not reach them."""
    result_id = put(ring)
    claim = ring.claim()
    assert claim is not None
    wanted = Wanted(3, ring._table.owner_word(claim.slot))
    assert ring._mutex.run(ring._operations.chain_outcome, claim, wanted, 0) is Room.ENOUGH
    ring._mutex.run(ring._operations.drop_outcome_chain, claim)
    ring.words[at.H_CURSOR] = wanted.chain & at.EXTENT_SLOT_MASK
    assert [put(ring) for _ in range(5)]
    assert ring.get(result_id).status.name == "RUNNING"
    assert ring.upkeep.check() == []


def test_a_commit_word_of_another_generation_is_not_run(ring: Ring) -> None:
    """What finished must not start again because its word looks like that of a waiting task."""
    finished, waiting = done(ring), put(ring)
    slot = slot_of(finished)
    ring.words[ring._commit + slot] = at.head_word(at.READY, ring.words[at.H_TICK] - 1)
    ring.upkeep.rebuild()
    assert run(ring) == waiting
    assert ring.claim() is None
    assert ring.upkeep.check() == []


@pytest.mark.parametrize("wrong", [2**63, 2**64 - 1, at.BEYOND_ANY_TICK])
def test_a_tick_out_of_its_range(ring: Ring, wrong: int) -> None:
    """Generations come from it: too large a one would run into the owner's bits."""
    ring.words[at.H_TICK] = wrong
    with pytest.raises(StoreUnavailable, match="do not fit"):
        put(ring)
    assert ring.get(put(ring)).status.name == "READY"
    assert ring.upkeep.check() == []


def test_errors_of_packing_are_damage(ring: Ring) -> None:
    """Whatever number of the ring does not fit, it is StoreUnavailable, and then rebuilt."""

    def pack() -> bytes:
        return struct.pack("=Q", 2**64)

    with pytest.raises(StoreUnavailable, match="do not fit"):
        ring._mutex.run(pack)
    assert ring.words[at.H_DIRTY]


def test_a_registry_whose_length_was_damaged(rings: Rings) -> None:
    """A newcomer finds a place, and who has one shows itself again."""
    first, last = rings.attach(), rings.attach()
    first.words[at.H_ENTRIES_USED] = 0
    late = rings.peer()
    assert late.index == 2
    first.words[at.H_ENTRIES_USED] = 1
    assert last.registry.hold()
    assert len(list(first.registry.attachments())) == 2


def test_damaged_limits_start_no_storm(rings: Rings) -> None:
    """MAX_WORKERS is at most what the option allows."""
    ring = rings.attach(role=Role.SITE)
    ring.words[at.H_MAX_WORKERS] = 2**50
    assert ring.upkeep.max_workers() == 1024
