"""Free slots, chains of them, growth, and payloads going in and out."""

import errno
import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records.slots import RUNS_AT_ONCE, Slots, Wanted
from tests.rings import LIMITS, SLOT, Rings

OWNER = at.chain_word(1, 7)
OTHER = at.chain_word(2, 7)


@pytest.fixture
def slots(ring: Ring) -> Slots:
    """The slots of a fresh ring, the dirty word set as every caller does."""
    ring.words[at.H_DIRTY] = 1
    return ring._table.slots


def free_slots(slots: Slots) -> list[int]:
    """What the free map says."""
    marks = bytes(slots._bytes[slots._map : slots._map + slots.reserved()])
    return [slot for slot in range(1, len(marks)) if not marks[slot]]


def take_chain(slots: Slots, count: int, owner: int) -> int:
    """A chain of so many slots, taken as a process does that goes in and out for it."""
    wanted = Wanted(count, owner)
    for _ in range(1000):
        if slots.take_runs(wanted):
            break
    assert not wanted.count
    return wanted.chain


def discard(slots: Slots, chain: int) -> int:
    """Gives a chain up, and frees all of it; how many holds of the lock that takes."""
    slots.discard(chain)
    holds = 1
    while slots._words[at.H_DISCARDED]:
        slots.free_discarded()
        holds += 1
    return holds


def extents(slots: Slots, chain: int, owner: int = OWNER) -> list[tuple[int, int]]:
    return list(slots.extents(chain, owner))


# --- one slot ------------------------------------------------------------------------------


def test_slot_0_is_never_handed_out(slots: Slots) -> None:
    """It means "none" in every link."""
    taken = [slots.take_one() for _ in range(slots.reserved() - 1)]
    assert sorted(taken) == list(range(1, slots.reserved()))
    assert slots._words[at.H_FREE] == 0


def test_a_slot_that_was_given_back_is_found_again(slots: Slots) -> None:
    """Wherever it lies, before or behind the place where the search begins."""
    taken = [slots.take_one() for _ in range(slots.reserved() - 1)]
    for slot in (1, 500, taken[-1]):
        slots.give_back(slot)
        assert slots._words[at.H_FREE] == 1
        assert slots.take_one() == slot


@pytest.mark.parametrize("cursor", [0, 1, 1023, 1024, 5000, 2**63])
def test_any_cursor_will_do(slots: Slots, cursor: int) -> None:
    """The place where the search begins is a hint, even a damaged one."""
    slots._words[at.H_CURSOR] = cursor
    assert 0 < slots.take_one() < slots.reserved()
    slots._words[at.H_CURSOR] = cursor
    assert extents(slots, take_chain(slots, 3, OWNER))


def test_a_wrong_count_of_free_slots_does_not_hang(slots: Slots) -> None:
    """Where the map has none after all it is an error, and the dirty word brings the rebuild."""
    while slots._words[at.H_FREE]:
        slots.take_one()
    slots._words[at.H_FREE] = 5
    with pytest.raises(StoreUnavailable, match="rebuilt at the next use"):
        slots.take_one()
    with pytest.raises(StoreUnavailable, match="rebuilt at the next use"):
        take_chain(slots, 2, OWNER)


# --- chains --------------------------------------------------------------------------------


def test_neighbouring_slots_are_one_extent(slots: Slots) -> None:
    """A payload of any size is one copy where there is room for it in one piece."""
    chain = take_chain(slots, 700, OWNER)
    assert [length for _, length in extents(slots, chain)] == [700]
    assert slots._words[at.H_FREE] == slots.reserved() - 1 - 700


def test_a_fragmented_map_gives_many_extents(slots: Slots) -> None:
    """Every free slot can be used, in whatever pieces they are."""
    everything = [slots.take_one() for _ in range(slots.reserved() - 1)]
    given_back = everything[::2] + everything[401:420:2]
    for slot in given_back:
        slots.give_back(slot)
    chain = take_chain(slots, len(given_back), OWNER)
    found = extents(slots, chain)
    assert sorted(each for start, n in found for each in range(start, start + n)) == sorted(
        given_back
    )
    assert max(length for _, length in found) >= 8
    assert slots._words[at.H_FREE] == 0


def test_a_chain_goes_back_whole(slots: Slots) -> None:
    """All its slots are free again, and counted."""
    before = free_slots(slots)
    for slot in (5, 6, 11):
        slots._bytes[slots._map + slot] = 1
    slots._words[at.H_FREE] -= 3
    chain = take_chain(slots, 900, OWNER)
    assert discard(slots, chain) == 1
    for slot in (5, 6, 11):
        slots.give_back(slot)
    assert free_slots(slots) == before
    assert slots._words[at.H_FREE] == len(before)


def test_many_runs_are_taken_and_freed_in_several_holds(slots: Slots) -> None:
    """No hold of the lock takes or frees more than its share, however fragmented the map is."""
    everything = sorted(slots.take_one() for _ in range(slots.reserved() - 1))
    for slot in everything[::2]:
        slots.give_back(slot)
    free = len(everything[::2])
    wanted = Wanted(free, OWNER)
    holds = 1
    while not slots.take_runs(wanted):
        assert free - wanted.count <= holds * RUNS_AT_ONCE
        holds += 1
    assert free / RUNS_AT_ONCE <= holds <= 2 * free / RUNS_AT_ONCE
    assert len(extents(slots, wanted.chain)) == free
    assert discard(slots, wanted.chain) == -(-free // RUNS_AT_ONCE)
    assert free_slots(slots) == everything[::2]


def test_chains_that_were_given_up_wait_in_a_list(slots: Slots) -> None:
    """Two that are too long for one hold are both freed, one after the other."""
    everything = sorted(slots.take_one() for _ in range(slots.reserved() - 1))
    for slot in everything[::2]:
        slots.give_back(slot)
    first, second = take_chain(slots, 200, OWNER), take_chain(slots, 200, OTHER)
    inside = [slot for chain, owner in ((first, OWNER), (second, OTHER)) for slot in (
        each for start, n in extents(slots, chain, owner) for each in range(start, start + n)
    )]  # fmt: skip
    slots.discard(first)
    slots.discard(second)
    left = slots.discarded()
    assert sorted([*left, *free_slots(slots)]) == everything[::2]
    assert set(left) <= set(inside)
    while slots._words[at.H_DISCARDED]:
        slots.free_discarded()
    assert free_slots(slots) == everything[::2]


def test_no_chain_has_no_slots(slots: Slots) -> None:
    """A record without a chain has 0 for one."""
    assert extents(slots, 0) == []
    assert discard(slots, 0) == 1


@pytest.mark.parametrize(
    "chain",
    [
        1 << 32,  # slot 0
        1 << 32 | 1024,  # behind what has memory
        2 << 32 | 1023,  # runs out of it
        1 << 32 | 2**32 - 1,
        2**32 - 1 << 32 | 1,
        5,  # no length
        2**64 - 1,
    ],
)
def test_a_chain_that_leaves_the_ring_ends_there(slots: Slots, chain: int) -> None:
    """Damage and recycled records must not lead a reader out of the memory that there is."""
    assert extents(slots, chain) == []


def test_a_chain_of_another_record_is_not_followed(slots: Slots) -> None:
    """Its slots name their head and its generation: who comes too late reads nothing."""
    chain = take_chain(slots, 3, OWNER)
    assert extents(slots, chain, OTHER) == []
    assert extents(slots, chain, at.chain_word(1, 8)) == []


def test_a_circular_chain_ends(slots: Slots) -> None:
    """A link back to the beginning, as damage could make it."""
    chain = take_chain(slots, 3, OWNER)
    start = chain & at.EXTENT_SLOT_MASK
    slots._words[slots._link + start] = chain
    assert len(extents(slots, chain)) <= slots.reserved() // 3


# --- payloads ------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=4),
    holes=st.sets(st.integers(1, 200), max_size=60),
    data=st.data(),
)
def test_payloads_come_back(
    slots: Slots, sizes: list[int], holes: set[int], data: st.DataObject
) -> None:
    """Pieces written one after the other are read whole and in parts, over any fragmentation."""
    slots._words[at.H_CURSOR] = 1
    for slot in holes:
        slots._bytes[slots._map + slot] = 1
    slots._words[at.H_FREE] -= len(holes)
    pieces = [os.urandom(size) for size in sizes]
    whole = b"".join(pieces)
    chain = take_chain(slots, max(1, at.slots_for(len(whole), slots.size)), OWNER)
    slots.write(chain, OWNER, pieces)
    assert slots.source(chain, OWNER, 0).copy(len(whole)) == whole
    start = data.draw(st.integers(0, len(whole)))
    size = data.draw(st.integers(0, len(whole) - start))
    assert slots.source(chain, OWNER, start).copy(size) == whole[start : start + size]
    discard(slots, chain)
    for slot in holes:
        slots.give_back(slot)


def test_a_short_chain_reads_short(slots: Slots) -> None:
    """A damaged length is no reason to read beyond: the caller sees that bytes are missing."""
    chain = take_chain(slots, 2, OWNER)
    data = slots.source(chain, OWNER, 100).copy(2**60)
    assert len(data) == 2 * slots.size - 100


def test_a_part_of_a_later_extent_is_read(slots: Slots) -> None:
    """Arguments begin behind meta, which may fill the first pieces of a chain."""
    taken = [slots.take_one() for _ in range(slots.reserved() - 1)]
    for slot in taken[10:20:2]:
        slots.give_back(slot)
    chain = take_chain(slots, 5, OWNER)
    assert len(extents(slots, chain)) == 5
    data = os.urandom(5 * slots.size)
    slots.write(chain, OWNER, [data])
    for start in (0, slots.size - 1, slots.size, 3 * slots.size + 7, 5 * slots.size):
        assert slots.source(chain, OWNER, start).copy(len(data) - start) == data[start:]


def test_writing_to_a_chain_that_is_gone_is_refused(slots: Slots) -> None:
    """A process that was taken for dead must not write over what others have there now."""
    chain = take_chain(slots, 2, OWNER)
    start = chain & at.EXTENT_SLOT_MASK
    slots._words[slots._commit + start] = OTHER
    with pytest.raises(StoreUnavailable, match="taken for dead"):
        slots.write(chain, OWNER, [b"x" * 300])


# --- growth --------------------------------------------------------------------------------


def test_growth_goes_in_steps_to_the_ceiling(slots: Slots) -> None:
    """Each step is counted as free, the last one is what is left."""
    steps = [slots.reserved()]
    while slots.grow():
        steps.append(slots.reserved())
    assert steps == [1024, 2048, slots.total]
    assert slots._words[at.H_FREE] == slots.total - 1
    assert not slots.grow()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM, errno.EDQUOT])
def test_a_full_file_system_ends_growth(
    slots: Slots, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """No room says no and changes nothing, be it the file system's or the container's."""

    def fallocate(*_: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    assert not slots.grow()
    assert slots.reserved() == 1024
    assert slots._words[at.H_FREE] == 1023


def test_other_errors_are_not_swallowed(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed descriptor is no full file system."""

    def fallocate(*_: int) -> None:
        raise OSError(errno.EBADF, "bad")

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    with pytest.raises(OSError, match="bad"):
        slots.grow()


def test_growing_makes_no_holes_real(rings: Rings) -> None:
    """What a step reserves is what it uses: a page behind it stays a hole."""
    ring = rings.attach(replace(LIMITS, shm_size=64 * 2**20))
    before = os.fstat(ring.segment.fd).st_blocks * 512
    assert ring._mutex.run(ring._table.slots.grow)
    grown = os.fstat(ring.segment.fd).st_blocks * 512 - before
    step = at.STEP_SLOTS * (SLOT + at.COLUMN_BYTES_PER_SLOT)
    assert step - at.PAGE <= grown <= step + 20 * at.PAGE


@pytest.mark.parametrize("used", [0, 5, 1023, 1024, 2047, 2100])
def test_a_damaged_reserved_is_found_out_again(slots: Slots, used: int) -> None:
    """From the highest slot that was ever used, without touching what has no memory."""
    while slots.grow():
        pass
    if used:
        slots._words[slots._commit + used] = 1
    slots._words[at.H_RESERVED] = 12345
    assert slots.reserved() == 0
    slots.restore_reserved()
    assert used < slots.reserved() <= slots.total
    assert slots.reserved() - used <= at.STEP_SLOTS
