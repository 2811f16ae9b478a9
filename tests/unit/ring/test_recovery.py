"""What is derived is made anew from the commit words, whatever they were."""

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Loss, Ring, Role, loss_word
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import OUTCOME_AT, S_ARGUMENTS_CHAIN, S_OUTCOME_CHAIN
from django_tasks_local.ring.records.slots import Wanted
from django_tasks_local.ring.records.table import Room
from django_tasks_local.store import Arguments
from tests import rings as peers
from tests.rings import FAR_NS, LANE, LIMITS, Rings, done, exists, put, ring_address, run

NOTHING: Arguments = ((), {})
LARGE: Arguments = ((b"x" * 2000,), {})
# Words of the header that a rebuild makes anew.
DERIVED = (
    at.H_UNFINISHED, at.H_TICK, at.H_FREE, at.H_DEFERRED, at.H_RUNNING,
    at.H_FINISHED, at.H_FINISHED_SLOTS, at.H_OLDEST, at.H_NEWEST, at.H_CURSOR,
    LANE + at.L_BITMAP, LANE + at.L_BITMAP + 3, LANE + at.L_WAITING, LANE + at.L_HEAD + 100,
    LANE + at.L_TAIL + 100, at.LANES_AT + at.L_WAITING, at.code_word(0, at.C_DEFERRED),
)  # fmt: skip


def furnish(ring: Ring) -> dict[str, str]:
    """Records in every state, small and large; their statuses by id."""
    ids = {}
    for arguments in (NOTHING, LARGE):
        ids[done(ring, arguments, "small")] = "SUCCESSFUL"
        ids[done(ring, arguments, b"y" * 2000)] = "SUCCESSFUL"
        ids[put(ring, arguments)] = "READY"
        ids[put(ring, arguments, priority=-100)] = "READY"
        ids[put(ring, arguments, due_ns=time.time_ns() + FAR_NS)] = "READY"
        ids[put(ring, arguments, priority=100)] = "RUNNING"
        assert ring.claim() is not None
    return ids


def statuses(ring: Ring, ids: dict[str, str]) -> dict[str, str]:
    return {each: ring.get(each).status.name for each in ids if exists(ring, each)}


def waiting(ring: Ring) -> list[int]:
    """Slots in the order in which they would be claimed."""
    order = ring._table.order
    found = []
    while (each := order.first())[0]:
        found.append(each[0])
        order.pop(each)
    ring.upkeep.rebuild()
    return found


# --- rebuild -------------------------------------------------------------------------------


def test_a_rebuild_changes_nothing_in_a_sound_ring(ring: Ring) -> None:
    """Same order, same counts, same statuses."""
    ids = furnish(ring)
    counts, order = ring.counts(), waiting(ring)
    ring.upkeep.rebuild()
    assert ring.upkeep.check() == []
    assert ring.counts() == counts
    assert waiting(ring) == order
    assert statuses(ring, ids) == ids


@pytest.mark.parametrize("garbage", [0, 1, 77, 2**32, 2**63, 2**64 - 1])
def test_whatever_is_derived_may_be_garbage(ring: Ring, garbage: int) -> None:
    """Counts, lists, map, heap, bitmap: nothing of it is needed to make it anew."""
    ids = furnish(ring)
    order = waiting(ring)
    geometry, words = ring._table.geometry, ring.words
    for word in DERIVED:
        words[word] = garbage
    for name in ("link", "back", "heap"):
        for slot in range(1024):
            if not _is_link_of_a_chain(ring, name, slot):
                words[geometry.column(name) + slot] = garbage
    ring.segment.bytes[geometry.map_at : geometry.map_at + 1024] = bytes([garbage & 0xFF]) * 1024
    words[at.H_DIRTY] = 1
    assert ring.upkeep.check() == []
    assert waiting(ring) == order
    assert statuses(ring, ids) == ids
    assert ring.words[at.H_TICK] > max(
        word & at.GENERATION_MASK for word in words[ring._commit : ring._commit + 1024].tolist()
        if word >> at.STATE_SHIFT != at.CHAIN
    )  # fmt: skip


def _is_link_of_a_chain(ring: Ring, name: str, slot: int) -> bool:
    return name == "link" and ring._table.state(slot) == at.CHAIN


@pytest.mark.parametrize(
    "word",
    [at.head_word(at.FREE, 5), *(at.head_word(at.READY, 5) ^ 1 << bit for bit in (0, 47, 58, 61))],
)
def test_a_commit_word_that_nobody_wrote_is_dropped(
    ring: Ring, word: int, caplog: pytest.LogCaptureFixture
) -> None:
    """And said so, once."""
    ids = furnish(ring)
    ring.words[ring._commit + 900] = word
    ring.words[at.H_DIRTY] = 1
    assert ring.upkeep.check() == []
    assert caplog.text.count("slot 900") == 1
    assert statuses(ring, ids) == ids


def test_a_record_without_its_chain_is_dropped(
    ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of a payload is of no use to anybody; its slots are free again."""
    ids = furnish(ring)
    broken = next(each for each in ids if len(ring._table.chains(ring_address(each)[0])) == 2)
    chain = ring._table.chains(ring_address(broken)[0])[1]
    ring.words[ring._commit + (chain & at.EXTENT_SLOT_MASK) + 3] = 0
    ring.upkeep.rebuild()
    assert "dropped" in caplog.text
    del ids[broken]
    assert statuses(ring, ids) == ids
    assert not exists(ring, broken)
    assert ring.upkeep.check() == []


def test_two_records_never_share_a_slot(ring: Ring) -> None:
    """Where two claim the same chain the second is dropped."""
    first, second = put(ring, LARGE), put(ring, LARGE)
    table = ring._table
    chains = [table.offset(ring_address(each)[0]) // 8 + S_ARGUMENTS_CHAIN
              for each in (first, second)]  # fmt: skip
    ring.words[chains[1]] = ring.words[chains[0]]
    ring.upkeep.rebuild()
    assert ring.upkeep.check() == []
    assert [exists(ring, each) for each in (first, second)] == [True, False]


def test_a_record_never_has_a_slot_twice(ring: Ring) -> None:
    """Not even as the chain of its arguments and that of its outcome."""
    result_id = put(ring, LARGE)
    ring.claim()
    word = ring._table.offset(ring_address(result_id)[0]) // 8
    ring.words[word + S_OUTCOME_CHAIN] = ring.words[word + S_ARGUMENTS_CHAIN]
    ring.upkeep.rebuild()
    assert not exists(ring, result_id)
    assert ring.upkeep.check() == []


def test_a_sequence_that_can_not_be_is_replaced(ring: Ring) -> None:
    """It must not push the counter of generations out of its field."""
    ids = [put(ring) for _ in range(3)]
    ring.words[ring._table.sequence + ring_address(ids[0])[0]] = 2**64 - 1
    ring.upkeep.rebuild()
    assert ring.upkeep.check() == []
    assert [run(ring) for _ in ids] == ids


def test_a_damaged_reserved_heals(ring: Ring) -> None:
    """Nothing can be enqueued for a moment; then everything is back."""
    ids = furnish(ring)
    while ring._mutex.run(ring._table.slots.grow):
        pass
    ids[put(ring)] = "READY"
    ring.words[at.H_RESERVED] ^= 1 << 40
    with pytest.raises(StoreUnavailable):
        put(ring)
    assert put(ring)
    assert ring.upkeep.check() == []
    assert statuses(ring, ids) == ids


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(
    damage=st.lists(
        st.tuples(st.integers(1, 200), st.integers(0, 7), st.integers(0, 2**56 - 1), st.booleans()),
        max_size=12,
    ),
    seed=st.integers(0, 2**32),
)
@example(damage=[(3, at.WRITING, at.GENERATION_MASK, True)], seed=0)
def test_any_commit_words_make_a_ring(
    rings: Rings, damage: list[tuple[int, int, int, bool]], seed: int
) -> None:
    """Whatever stands in the commit words, a rebuild ends, and the next enqueue works."""
    ring = rings.attach(replace(LIMITS, max_pending=100_000))
    ring.attachment.become(Role.SITE)
    while run_anything(ring):
        pass
    if ring.counts().reserved_slots == 1024:
        furnish(ring)
    for slot, state, rest, whole in damage:
        word = at.head_word(
            state, rest & at.GENERATION_MASK, rest >> at.OWNER_SHIFT & at.OWNER_MASK
        )
        ring.words[ring._commit + slot] = word if whole else word ^ 1 << at.CHECK_SHIFT
    ring.words[at.H_DIRTY] = 1
    ring.upkeep.repair()
    assert ring.upkeep.check() == []
    result_id = put(ring)
    assert ring.get(result_id).status.name == "READY"


def run_anything(ring: Ring) -> bool:
    claim = ring.claim()
    if claim is None:
        return False
    ring.finish(claim, successful=True, outcome=ring.encode(None))
    return True


def test_two_records_in_one_place(ring: Ring) -> None:
    """A damaged TICK gives places away that others have: a rebuild gives all new ones."""
    ids = [done(ring, outcome=number) for number in range(4)] + [put(ring) for _ in range(4)]
    tick, sequence = ring.words[at.H_TICK], ring._table.sequence
    for state in (ids[:4], ids[4:]):
        slots = [ring_address(each)[0] for each in state]
        ring.words[sequence + slots[2]] = ring.words[sequence + slots[1]]
    assert any("against their sequence" in each for each in ring.upkeep.check())
    ring.upkeep.repair()
    assert ring.upkeep.check() == []
    assert ring.words[at.H_TICK] == tick + 8
    assert [run(ring) for _ in range(4)][::3] == ids[4::3]


# --- interruptions of a rebuild -------------------------------------------------------------


def test_a_rebuild_that_fails_is_done_again(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dirty word stays until a rebuild came to its end."""
    ids = furnish(ring)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ring._table.order, "fill", interrupted)
    ring.words[at.H_DIRTY] = 1
    ring.words[at.H_RUNNING] = 99
    with pytest.raises(KeyboardInterrupt):
        put(ring)
    assert ring.words[at.H_DIRTY]
    monkeypatch.undo()
    assert ring.upkeep.check() == []
    assert statuses(ring, ids) == ids


# --- WRITING -------------------------------------------------------------------------------


@pytest.mark.parametrize("chained", [True, False])
def test_what_is_being_written_survives_a_rebuild(
    ring: Ring, monkeypatch: pytest.MonkeyPatch, chained: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else dies while we copy: our slots stay ours, and the task is published."""
    slots = ring._table.slots
    write = slots.write

    def slow(*args: Any) -> None:
        ring.upkeep.rebuild()
        assert ring.upkeep.check() == []
        write(*args)

    monkeypatch.setattr(slots, "write", slow)
    if chained:
        result_id = put(ring, LARGE)
        assert ring.get(result_id).arguments() == LARGE
    else:
        result_id = put(ring)
        run(ring, b"y" * 3000)
        outcome = ring.get(result_id).outcome
        assert outcome is not None
        assert outcome() == b"y" * 3000
    assert ring.upkeep.check() == []
    assert not caplog.records


def test_a_death_before_the_chain_was_whole_is_no_damage(
    ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a slot is freed without a word."""
    free = ring.counts().free_slots
    result_id = put(ring, LARGE)
    slot = ring_address(result_id)[0]
    word = ring.words[ring._commit + slot]
    ring.words[ring._commit + slot] = at.head_word(
        at.WRITING, word & at.GENERATION_MASK, ring.registry.index
    )
    ring.registry.set_field(at.E_OTHERS, 1)
    ring.words[ring._table.offset(slot) // 8 + S_ARGUMENTS_CHAIN] = 0
    ring.upkeep.rebuild()
    assert ring.counts().free_slots == free - 1
    assert ring.upkeep.check() == []
    assert not caplog.records


# --- LOST ----------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome_bytes", [0, 10, 3000])
@pytest.mark.parametrize("arguments", [((), {}), LARGE], ids=["small", "large"])
def test_a_lost_task_keeps_only_its_request(
    rings: Rings, arguments: Any, outcome_bytes: int
) -> None:
    """Whatever its worker had written of a result is freed with it."""
    ring = rings.attach()
    result_id = put(ring, arguments)
    free = ring.counts().free_slots
    peer = rings.peer()
    peer.do(peers.claim)
    peer.do(half_a_result, result_id, outcome_bytes)
    peer.kill()
    ring.upkeep.settle(peer.index, loss_word(Loss.EXIT, 1))
    assert ring.upkeep.check() == []
    assert ring.counts().free_slots == free
    found = ring.get(result_id)
    assert found.status.name == "FAILED"
    assert found.arguments() == arguments
    ring.upkeep.rebuild()
    assert ring.upkeep.check() == []


def half_a_result(mine: Any, result_id: str, size: int) -> None:
    found = mine.claims[result_id]
    if size > 100:
        wanted = Wanted(12, mine.ring._table.owner_word(found.slot))
        chain = mine.ring._operations.chain_outcome
        assert mine.ring._mutex.run(chain, found, wanted, 0) is Room.ENOUGH
    offset = mine.ring._table.offset(found.slot) + OUTCOME_AT
    mine.ring.segment.bytes[offset : offset + 13] = b"\xff" * 13  # torn in the middle of a word


def test_losing_counts_as_a_result(ring: Ring) -> None:
    """It is the most recent one, and the least recently used goes for it."""
    ids = [done(ring) for _ in range(LIMITS.max_results)]
    lost = put(ring)
    claim = ring.claim()
    assert claim is not None
    ring._mutex.run(ring._operations.mark_lost, claim)
    assert not exists(ring, ids[0])
    assert exists(ring, lost)
    assert ring.words[at.H_NEWEST] == ring_address(lost)[0]
    assert ring.upkeep.check() == []


# --- wrong lists that nobody marked as dirty -----------------------------------------------


@pytest.mark.parametrize("slot", [0, 900, 2**40])
def test_a_wrong_queue_is_noticed(ring: Ring, slot: int) -> None:
    """A claim takes nothing that is not READY: it fails once, the next one finds a new one."""
    result_id = put(ring)
    ring.words[LANE + at.L_HEAD + 100] = slot
    with pytest.raises(StoreUnavailable, match="rebuilt at the next use"):
        ring.claim()
    assert run(ring) == result_id
    assert ring.upkeep.check() == []


@pytest.mark.parametrize("slot", [0, 900, 2**40])
def test_a_wrong_recency_list_is_noticed(ring: Ring, slot: int) -> None:
    """An eviction frees nothing that is not finished."""
    for _ in range(LIMITS.max_results):
        done(ring)
    put(ring)
    ring.words[at.H_OLDEST] = slot
    with pytest.raises(StoreUnavailable, match="rebuilt at the next use"):
        run(ring)
    assert ring.upkeep.check() == []
    assert done(ring)


@pytest.mark.parametrize("column", ["link", "back"])
def test_a_link_that_leads_out_of_the_segment_is_noticed(ring: Ring, column: str) -> None:
    """Whatever an operation stumbles over, the next one finds everything made anew."""
    ids = [done(ring) for _ in range(3)]
    slot = ring_address(ids[1])[0]
    ring.words[ring._table.geometry.column(column) + slot] = 2**62
    with pytest.raises(StoreUnavailable, match="rebuilt at the next use"):
        ring.get(ids[1])
    assert ring.get(ids[1]).status.name == "SUCCESSFUL"
    assert ring.upkeep.check() == []


def test_a_wrong_count_of_free_slots_is_noticed(ring: Ring) -> None:
    """An enqueue that finds none where some should be fails once."""
    map_at = ring._table.geometry.map_at
    ring.segment.bytes[map_at : map_at + 1024] = b"\x01" * 1024
    with pytest.raises(StoreUnavailable, match="rebuilt at the next use"):
        put(ring)
    assert put(ring)
    assert ring.upkeep.check() == []
