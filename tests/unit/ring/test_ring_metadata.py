"""Metadata in the ring: kept in every state, replaced as a whole, never leaked."""

from dataclasses import replace
from typing import Any

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull, StoreUnavailable
from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.blocks import BLOCK_HEAD_BYTES, Block, most_bytes
from tests import rings as peers
from tests.rings import LIMITS, META, Rings, done, exists, ring_address, run

SIZE = LIMITS.slot_size
# Metadata of one slot, filled to the last byte; of one byte more; and of as many as there can be.
ONE_SLOT, TWO_SLOTS = SIZE - BLOCK_HEAD_BYTES, SIZE - BLOCK_HEAD_BYTES + 1
MOST = most_bytes(SIZE)
SMALL = replace(LIMITS, shm_size=at.COLUMNS_AT + 9 * 4096 + 40 * (SIZE + 57))


def note(text: str = "old", size: int = 0) -> bytes:
    """Metadata of so many bytes."""
    return f'{{"text":"{text}"}}'.encode().ljust(size)


def put(ring: Ring, metadata: bytes = b"", arguments: Any = ((), {})) -> str:
    """Enqueues a task with metadata; its result id."""
    data = ring.encode(arguments)
    return ring.enqueue(META, data, priority=0, due_ns=0, metadata=metadata)[0]


def metadata_of(ring: Ring, result_id: str) -> bytes:
    return ring.get(result_id).metadata


def save_often(mine: Any, result_id: str, times: int) -> None:
    """Replaces metadata by others of another size, again and again."""
    for number in range(times):
        size = (0, ONE_SLOT, TWO_SLOTS, 3000)[number % 4]
        mine.ring.save_metadata(result_id, note(str(number), size))


def save(mine: Any, result_id: str, metadata: bytes) -> None:
    """Saves metadata of any task."""
    mine.ring.save_metadata(result_id, metadata)


# --- kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [((), {}), ((b"x" * 5000,), {})], ids=["inline", "chained"])
@pytest.mark.parametrize("size", [1, ONE_SLOT, TWO_SLOTS, MOST])
def test_metadata_is_kept_to_the_end(ring: Ring, arguments: Any, size: int) -> None:
    """What was enqueued is there while the task waits, runs and has ended."""
    free = ring.counts().free_slots
    metadata = note(size=size)[:size]
    result_id = put(ring, metadata, arguments)
    assert metadata_of(ring, result_id) == metadata
    claim = ring.claim()
    assert claim is not None
    assert claim.metadata == metadata_of(ring, result_id) == metadata
    ring.finish(claim, successful=True, outcome=ring.encode(None))
    assert metadata_of(ring, result_id) == metadata
    assert ring.get(result_id).arguments() == arguments
    assert ring.upkeep.check() == []
    for _ in range(LIMITS.max_results):
        done(ring)
    assert ring.counts().free_slots == free - LIMITS.max_results
    assert ring.upkeep.check() == []


def test_a_lost_task_keeps_its_metadata(ring: Ring, rings: Rings) -> None:
    """What the worker saved before it died, too."""
    result_id = put(ring, note("old"))
    worker = rings.peer(role=Role.WORKER)
    assert worker.do(peers.claim) == result_id
    worker.do(save, result_id, note("new"))
    worker.kill()
    ring.upkeep.settle_dead()
    found = ring.get(result_id)
    assert found.outcome()[0].endswith("WorkerLost")
    assert found.metadata == note("new")
    assert ring.upkeep.check() == []


def test_a_task_without_metadata_has_no_block(ring: Ring) -> None:
    """It occupies its head slot, and nothing else."""
    free = ring.counts().free_slots
    result_id = put(ring)
    assert metadata_of(ring, result_id) == b""
    assert ring.counts().free_slots == free - 1
    assert ring._table.head(ring_address(result_id)[0]).metadata_chain == 0


# --- replaced --------------------------------------------------------------------------------


def test_any_process_replaces_them_in_any_state(ring: Ring, rings: Rings) -> None:
    """The task's worker and others, while it waits, runs and has ended; no slot is lost by it."""
    other = rings.peer()
    free = ring.counts().free_slots
    result_id = put(ring)
    claim = None
    for state in ("READY", "RUNNING", "SUCCESSFUL"):
        if state == "RUNNING":
            claim = ring.claim()
            assert claim is not None
            ring.save_metadata(result_id, note("by its worker", 2000), claim)
            assert metadata_of(ring, result_id) == note("by its worker", 2000)
        elif claim is not None:
            ring.finish(claim, successful=True, outcome=ring.encode(None))
        for size in (1, TWO_SLOTS, MOST, ONE_SLOT):
            other.do(save, result_id, note(state, size))
            found = ring.get(result_id)
            assert (found.status.name, found.metadata) == (state, note(state, size))
            assert ring.upkeep.check() == []
    other.do(save, result_id, b"")
    assert metadata_of(ring, result_id) == b""
    assert ring.counts().free_slots == free - 1
    assert ring.upkeep.check() == []


def test_readers_see_the_old_or_the_new(ring: Ring, rings: Rings) -> None:
    """Without the lock, while another process replaces them as fast as it can."""
    result_id = put(ring, note("0"))
    other = rings.peer()
    other.start(save_often, result_id, 3000)
    seen = set()
    while other.busy():
        metadata = metadata_of(ring, result_id)
        number = int(metadata.strip().removeprefix(b'{"text":"').removesuffix(b'"}'))
        assert metadata == note(str(number), len(metadata))
        seen.add(number)
    other.result()
    assert len(seen) > 1
    assert ring.upkeep.check() == []


def test_saving_is_a_use(ring: Ring) -> None:
    """A finished result is the most recent then, and not what is evicted next."""
    ids = [done(ring) for _ in range(LIMITS.max_results)]
    ring.save_metadata(ids[0], note())
    for _ in range(LIMITS.max_results - 1):
        done(ring)
    assert metadata_of(ring, ids[0]) == note()
    with pytest.raises(TaskResultDoesNotExist):
        ring.get(ids[1])


def test_saving_makes_room(rings: Rings) -> None:
    """Other results go for it, never the one that is saved."""
    ring = rings.attach(replace(SMALL, max_results=1000))
    first = done(ring)
    while ring.counts().free_slots > SMALL.max_workers:
        done(ring)
    ring.save_metadata(first, note("new", 8 * SIZE))
    assert metadata_of(ring, first) == note("new", 8 * SIZE)
    assert ring.upkeep.check() == []


# --- refused ---------------------------------------------------------------------------------


def test_metadata_of_more_than_64_slots_are_refused(ring: Ring) -> None:
    """With size, limit and option; what was stored before stays."""
    result_id = put(ring, note())
    for refused in (
        lambda: ring.save_metadata(result_id, note(size=MOST + 1)),
        lambda: put(ring, note(size=MOST + 1)),
    ):
        with pytest.raises(PayloadTooLarge, match="as JSON") as caught:
            refused()
        error = caught.value
        assert (error.size, error.limit, error.option) == (MOST + 1, MOST, "SLOT_SIZE")
        assert error.what == "metadata of task tests.tasks.noop"
    assert metadata_of(ring, result_id) == note()
    assert ring.counts().waiting == 1
    assert ring.upkeep.check() == []


def test_metadata_larger_than_the_ring_are_refused(rings: Rings) -> None:
    """The option is then the one that makes the ring larger."""
    ring = rings.attach(SMALL)
    result_id = put(ring, note())
    with pytest.raises(PayloadTooLarge) as caught:
        ring.save_metadata(result_id, note(size=40 * SIZE))
    assert caught.value.option == "SHM_SIZE"
    assert caught.value.limit < 40 * SIZE
    assert metadata_of(ring, result_id) == note()


def test_without_room_the_old_stay(rings: Rings) -> None:
    """Tasks fill the ring: neither is new metadata saved, nor a task with metadata accepted."""
    ring = rings.attach(replace(SMALL, max_pending=1000))
    result_id = put(ring, note())
    while ring.counts().free_slots > SMALL.max_workers:
        put(ring)
    with pytest.raises(QueueFull):
        put(ring)
    with pytest.raises(PayloadTooLarge, match="SHM_SIZE"):
        ring.save_metadata(result_id, note("new", TWO_SLOTS))
    for size in (0, 3000):
        with pytest.raises(QueueFull):
            put(ring, note("new"), ((b"x" * size,), {}))
    assert metadata_of(ring, result_id) == note()
    assert ring.upkeep.check() == []


def test_a_result_is_not_evicted_for_its_own_metadata(rings: Rings) -> None:
    """Where no other one could go for it: result and metadata stay."""
    ring = rings.attach(SMALL)
    result_id = put(ring, note())
    run(ring, b"x" * 20 * SIZE)
    with pytest.raises(PayloadTooLarge, match="SHM_SIZE"):
        ring.save_metadata(result_id, note("new", 20 * SIZE))
    assert ring.get(result_id).outcome() == b"x" * 20 * SIZE
    assert metadata_of(ring, result_id) == note()
    ring.save_metadata(result_id, note("new", 10 * SIZE))
    assert ring.get(result_id).outcome() == b"x" * 20 * SIZE
    assert ring.upkeep.check() == []


def test_arguments_make_room_for_metadata_of_their_own_result(rings: Rings) -> None:
    """Where tasks fill the rest of the ring: the arguments are dropped, the result stays."""
    ring = rings.attach(replace(SMALL, max_pending=1000))
    result_id = put(ring, note(), ((b"x" * 20 * SIZE,), {}))
    run(ring, "outcome")
    while ring.counts().free_slots:
        put(ring)
    ring.save_metadata(result_id, note("new", 5 * SIZE))
    assert ring.get(result_id).outcome() == "outcome"
    assert metadata_of(ring, result_id) == note("new", 5 * SIZE)
    assert ring.upkeep.check() == []


def test_a_refusal_never_names_more_room_than_was_needed(rings: Rings) -> None:
    """Neither where less than one slot was, nor where others make room meanwhile."""
    ring = rings.attach(replace(SMALL, max_pending=1000))
    result_id = put(ring)
    while ring.counts().free_slots > SMALL.max_workers:
        put(ring)
    with pytest.raises(PayloadTooLarge, match="room for 0") as caught:
        ring.save_metadata(result_id, note("new"))
    for _ in range(5):
        run(ring)
    found = ring._reader.find(result_id)
    late = ring._refusals.of_metadata(Block(note("new", TWO_SLOTS)), found)
    assert (caught.value.size, caught.value.limit) == (len(note("new")), 0)
    assert (late.size, late.limit) == (TWO_SLOTS, ONE_SLOT)


@pytest.mark.parametrize("more", [0, 1])
def test_what_never_fits_in_whole_slots_is_too_large(rings: Rings, more: int) -> None:
    """Arguments and metadata do not share a slot: a refusal as full would be one for ever."""
    ring = rings.attach(SMALL)
    usable = ring.counts().slots - SMALL.max_workers - 2
    metadata = note(size=17 * SIZE)  # in 18 slots
    fixed = len(META) + len(ring.encode_arguments(((b"x" * 1000,), {}))) + 24 - 1000
    size = (usable - 18) * SIZE - fixed + more
    if not more:
        assert exists(ring, put(ring, metadata, ((b"x" * size,), {})))
        return
    with pytest.raises(PayloadTooLarge, match="Arguments and metadata") as caught:
        put(ring, metadata, ((b"x" * size,), {}))
    assert caught.value.size == caught.value.limit + 1
    assert ring.upkeep.check() == []


def test_arguments_and_metadata_that_never_fit_together(rings: Rings) -> None:
    """Each would, and the refusal says that both are meant."""
    ring = rings.attach(SMALL)
    with pytest.raises(PayloadTooLarge, match="Arguments and metadata of task"):
        put(ring, note(size=20 * SIZE), ((b"x" * 20 * SIZE,), {}))
    assert ring.upkeep.check() == []


def test_what_has_gone_cannot_be_saved(ring: Ring) -> None:
    """An evicted result does not exist; a worker that has lost its task is told."""
    result_id = put(ring, note())
    claim = ring.claim()
    assert claim is not None
    ring.finish(claim, successful=True, outcome=ring.encode(None))
    with pytest.raises(StoreUnavailable, match="taken for dead"):
        ring.save_metadata(result_id, note("new"), claim)
    assert metadata_of(ring, result_id) == note()
    for _ in range(LIMITS.max_results):
        done(ring)
    with pytest.raises(TaskResultDoesNotExist):
        ring.save_metadata(result_id, note("new"))


# --- damage ----------------------------------------------------------------------------------


def test_a_flipped_bit_is_told(ring: Ring) -> None:
    """In the block, and in the word that names it: readers refuse, and the audit names the slot."""
    result_id = put(ring, note())
    slot = ring_address(result_id)[0]
    chain = ring._table.head(slot).metadata_chain
    block = ring._table.offset(chain & at.EXTENT_SLOT_MASK)
    word = ring._table.metadata.word(slot) * 8
    view = ring.segment.bytes
    for byte in (*range(word, word + 8), *range(block, block + BLOCK_HEAD_BYTES + len(note()))):
        for bit in range(8):
            view[byte] ^= 1 << bit
            with pytest.raises(StoreUnavailable, match="CRC"):
                ring.get(result_id)
            problems = ring.upkeep.check()
            assert any(f"slot {slot} " in line and "metadata" in line for line in problems)
            view[byte] ^= 1 << bit
    assert metadata_of(ring, result_id) == note()
    assert ring.upkeep.check() == []


def test_a_damaged_block_is_given_back(rings: Rings) -> None:
    """With its record, though its length does not say how many slots it has."""
    ring = rings.attach(replace(LIMITS, max_results=1))
    free = ring.counts().free_slots
    result_id = put(ring, note(size=TWO_SLOTS))
    assert run(ring) == result_id
    chain = ring._table.head(ring_address(result_id)[0]).metadata_chain
    ring.words[ring._table.offset(chain & at.EXTENT_SLOT_MASK) // 8] = 0
    done(ring)
    ring.upkeep.trim()
    assert ring.counts().free_slots == free - 1


def test_another_records_block_does_not_pass(ring: Ring) -> None:
    """Nor its own of an earlier record in the same slots: the CRC covers whose it is."""
    owner_word = at.chain_word(5, 7)
    sealed = Block(note()).sealed(owner_word)
    assert sealed != Block(note()).sealed(at.chain_word(5, 8))
    first, second = put(ring, note("1")), put(ring, note("2"))
    words, table = ring.words, ring._table
    slots = [ring_address(each)[0] for each in (first, second)]
    words[table.metadata.word(slots[0])] = words[table.metadata.word(slots[1])]
    with pytest.raises(StoreUnavailable):
        ring.get(first)
    assert metadata_of(ring, second) == note("2")


def test_a_task_with_damaged_metadata_does_not_run(ring: Ring) -> None:
    """Its worker is told as soon as it asks; a repair drops it and keeps the others."""
    damaged, whole = put(ring, note("1")), put(ring, note("2"))
    chain = ring._table.head(ring_address(damaged)[0]).metadata_chain
    ring.segment.bytes[ring._table.offset(chain & at.EXTENT_SLOT_MASK) + BLOCK_HEAD_BYTES] ^= 1
    claim = ring.claim()
    assert claim is not None
    with pytest.raises(StoreUnavailable):
        _ = claim.metadata
    assert any("metadata" in line for line in ring.upkeep.check())
    assert ring.upkeep.repair()
    with pytest.raises(TaskResultDoesNotExist):
        ring.get(damaged)
    assert metadata_of(ring, whole) == note("2")
    assert ring.upkeep.check() == []
