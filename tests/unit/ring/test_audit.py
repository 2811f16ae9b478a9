"""The audit finds every broken invariant, and the repair mends it and keeps what is whole."""

import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from django_tasks_local.ring import Ring, Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import HEAD_BYTES, Head
from django_tasks_local.store import Arguments
from tests import rings as peers
from tests.rings import FAR_NS, LANE, LIMITS, Rings, done, exists, put, ring_address

LARGE: Arguments = ((b"x" * 2000,), {})


@pytest.fixture
def furnished(rings: Rings) -> tuple[Ring, dict[str, str]]:
    """A ring with records in every state, and their ids by what they are."""
    ring = rings.attach()
    ids = {"lost": put(ring, LARGE)}
    peer = rings.peer()
    peer.do(peers.claim)
    peer.kill()
    ring.upkeep.settle_dead()
    ids["result"] = done(ring, ((), {}), "small")
    ids["large result"] = done(ring, LARGE, b"y" * 2000)
    ids["running"] = put(ring)
    ring.claim()
    for number in range(3):
        ids[f"waiting {number}"] = put(ring)
        ids[f"deferred {number}"] = put(ring, due_ns=time.time_ns() + FAR_NS * (3 - number))
    ids["large"] = put(ring, LARGE)
    ids["urgent"] = put(ring, priority=100)
    assert ring.upkeep.check() == []
    return ring, ids


def slot_of(ids: dict[str, str], name: str) -> int:
    return ring_address(ids[name])[0]


def head_word(ring: Ring, ids: dict[str, str], name: str, field: int) -> int:
    """The word index of a field of a head slot."""
    return ring._table.offset(slot_of(ids, name)) // 8 + field


def column(ring: Ring, ids: dict[str, str], name: str, which: str) -> int:
    return ring._table.geometry.column(which) + slot_of(ids, name)


def entry(ring: Ring, field: int) -> int:
    return at.REGISTRY_AT + ring.registry.index * at.ENTRY_WORDS + field


type Place = Callable[[Ring, dict[str, str]], int]


def header(word: int) -> Place:
    return lambda ring, ids: word


def field(name: str, word: int) -> Place:
    return lambda ring, ids: head_word(ring, ids, name, word)


def column_of(name: str, which: str) -> Place:
    return lambda ring, ids: column(ring, ids, name, which)


def word_of(name: str) -> int:
    """The number of a field's word in a head slot."""
    return Head._fields.index(name)


# --- one word is wrong ---------------------------------------------------------------------

COUNTS = {
    "UNFINISHED": at.H_UNFINISHED, "FREE": at.H_FREE,
    "DEFERRED": at.H_DEFERRED, "RUNNING": at.H_RUNNING, "FINISHED": at.H_FINISHED,
    "FINISHED_SLOTS": at.H_FINISHED_SLOTS,
}  # fmt: skip

# Where, what is written there, and a word of the sentence that must name it.
DERIVED: dict[str, tuple[Place, int, str]] = {
    **{name: (header(word), 700, f"{name} is 700") for name, word in COUNTS.items()},
    "tick 0": (header(at.H_TICK), 0, "TICK is 0"),
    "tick too low": (header(at.H_TICK), 2, "TICK is 2"),
    "tick too high": (header(at.H_TICK), 2**60, "TICK is"),
    "oldest": (header(at.H_OLDEST), 0, "recency list"),
    "oldest nowhere": (header(at.H_OLDEST), 2**50, "recency list"),
    "newest": (header(at.H_NEWEST), 5, "recency list"),
    "lane WAITING": (header(LANE + at.L_WAITING), 700, "WAITING of lane 1 is 700"),
    "another lane's": (header(at.LANES_AT + at.L_WAITING), 1, "WAITING of lane 0 is 1"),
    "code DEFERRED": (header(at.code_word(0, at.C_DEFERRED)), 5, "DEFERRED of code 0 is 5"),
    "bitmap": (header(LANE + at.L_BITMAP), 1, "bit is 1"),
    "bitmap beyond": (header(LANE + at.L_BITMAP + 3), 1 << 60, "do not exist"),
    "FIFO head": (header(LANE + at.L_HEAD + 100), 0, "FIFO 0 of lane 1 starts"),
    "FIFO tail": (header(LANE + at.L_TAIL + 100), 0, "FIFO 0 of lane 1 ends"),
    "FIFO of nobody": (header(LANE + at.L_HEAD + 7), 500, "FIFO -93 of lane 1"),
    "link": (column_of("waiting 0", "link"), 0, "in no FIFO"),
    "link in a circle": (column_of("waiting 1", "link"), 4, "FIFO 0"),
    "due": (column_of("waiting 0", "due"), 77, "DEFERRED"),
    "sequence": (column_of("waiting 0", "sequence"), 2**63, "sequence"),
    "sequence order": (column_of("waiting 1", "sequence"), 1, "against their sequence"),
    "recency order": (column_of("large result", "sequence"), 1, "against their sequence"),
    "back": (column_of("result", "back"), 99, "for older"),
}
RECORDS: dict[str, tuple[Place, int, str]] = {
    "id": (field("result", word_of("id_low")), 5, "leads to slot"),
    "generation": (field("result", word_of("generation")), 2, "generation 2"),
    "origin": (field("waiting 0", word_of("origin")), 3, "request"),
    "enqueued": (field("large", word_of("enqueued_at_ns")), 3, "arguments does not match"),
    "meta length": (field("large", word_of("meta_bytes")), 2**60, "arguments"),
    "length": (field("large", word_of("arguments_bytes")), 3000, "slots for"),
    "chain": (field("large", word_of("arguments_chain")), 0, "has no chain"),
    "started": (field("running", word_of("started_at_ns")), 3, "start"),
    "finished": (field("result", word_of("finished_at_ns")), 3, "CRC"),
    "outcome length": (field("large result", word_of("outcome_bytes")), 5, "CRC"),
    "outcome CRC": (field("large result", word_of("outcome_crc")), 5, "CRC"),
    "loss": (field("lost", word_of("outcome_bytes")), 5, "CRC"),
    "payload": (field("urgent", HEAD_BYTES // 8), 5, "request"),
    "owner": (column_of("urgent", "commit"), at.head_word(at.READY, 10**6, 5), "names an owner"),
    "state": (column_of("urgent", "commit"), at.head_word(at.READY, 10**6) ^ 2**63, "check bits"),
}
HEADER: dict[str, tuple[Place, int, str]] = {
    "magic": (header(at.H_MAGIC), 5, "magic"),
    "version": (header(at.H_VERSION), 9, "version"),
    "slot size": (header(at.H_SLOT_SIZE), 2 * LIMITS.slot_size, "slot size"),
    "slots": (header(at.H_SLOTS), 2**63, "number of slots"),
    "geometry CRC": (header(at.H_GEOMETRY_CRC), 1, "CRC"),
    "RESERVED": (header(at.H_RESERVED), 1024, "RESERVED"),
    "RESERVED too high": (header(at.H_RESERVED), at.checked(2**30), "RESERVED"),
}
REGISTRY: dict[str, tuple[Place, int, str]] = {
    "entries": (header(at.H_ENTRIES_USED), 0, "ENTRIES_USED"),
    "too many entries": (header(at.H_ENTRIES_USED), 10**6, "ENTRIES_USED"),
    "serial": (header(at.H_SERIAL), 0, "serial"),
    "role": (lambda ring, ids: entry(ring, at.E_COMMIT), 77 << at.ROLE_SHIFT | 1, "role 77"),
    "role of nobody": (header(at.REGISTRY_AT + 400 * at.ENTRY_WORDS), 9 << 56, "entry 400"),
    "others": (lambda ring, ids: entry(ring, at.E_CURRENT), 0, "OTHERS"),
}
DAMAGE = {**DERIVED, **RECORDS, **HEADER, **REGISTRY}


@pytest.mark.parametrize("name", DAMAGE)
def test_one_wrong_word_is_found_and_mended(
    furnished: tuple[Ring, dict[str, str]], name: str
) -> None:
    """A sentence names it; the repair says so too, and then there is nothing left to say."""
    ring, ids = furnished
    place, value, text = DAMAGE[name]
    word = place(ring, ids)
    assert ring.words[word] != value
    ring.words[word] = value
    problems = ring.upkeep.check()
    assert any(text in problem for problem in problems), problems
    assert not ring.words[at.H_DIRTY]
    done_ = ring.upkeep.repair()
    assert any(text in sentence for sentence in done_), done_
    assert ring.upkeep.check() == []
    assert ring.upkeep.repair() == []
    kept = {each for each in ids if exists(ring, ids[each])}
    broken = {each for each in ids if name in RECORDS} - kept
    assert len(broken) == (1 if name in RECORDS else 0)
    assert kept | broken == set(ids)
    new = put(ring)
    assert ring.get(new).arguments() == ((), {})


def test_a_slot_marked_wrongly_is_found(furnished: tuple[Ring, dict[str, str]]) -> None:
    """Free and used, both ways."""
    ring, ids = furnished
    map_at = ring._table.geometry.map_at
    for slot, mark in ((slot_of(ids, "large"), 0), (1000, 1)):
        ring.segment.bytes[map_at + slot] = mark
        assert any(f"first is slot {slot}" in each for each in ring.upkeep.check())
        ring.upkeep.repair()
        assert ring.upkeep.check() == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_wrong_heap_is_found(furnished: tuple[Ring, dict[str, str]], place: int) -> None:
    """A slot that is not deferred, one that is in it twice, and the wrong order."""
    ring, ids = furnished
    ring.upkeep.rebuild()  # as each repair leaves the heap
    heap = ring._table.geometry.column("heap")
    for slot in (0, 900, 2**40, slot_of(ids, "waiting 0"), ring.words[heap + (place + 1) % 3]):
        ring.words[heap + place] = slot
        assert any("heap" in each for each in ring.upkeep.check())
        ring.upkeep.repair()
        assert ring.upkeep.check() == []
    due = ring._table.due + ring.words[heap + place]
    ring.words[due] = 1 if place else 2**62
    assert any("due before its parent" in each for each in ring.upkeep.check())
    ring.upkeep.repair()
    assert ring.upkeep.check() == []


def test_a_chain_through_a_foreign_slot_is_found(
    furnished: tuple[Ring, dict[str, str]],
) -> None:
    """Every slot of a chain names its head, not only the first and the last."""
    ring, ids = furnished
    start = ring._table.chains(slot_of(ids, "large"))[0] & at.EXTENT_SLOT_MASK
    ring.words[ring._commit + start + 2] = at.chain_word(1, 1)
    assert any(f"runs through slot {start + 2}" in each for each in ring.upkeep.check())
    ring.upkeep.repair()
    assert ring.upkeep.check() == []
    assert not exists(ring, ids["large"])
    assert exists(ring, ids["large result"])


def test_wrong_chains_of_a_running_task_are_found(rings: Rings) -> None:
    """One that leads nowhere, and one that has the slots of the other."""
    ring = rings.attach()
    for number in range(2):
        slot = ring_address(put(ring, LARGE))[0]
        ring.claim()
        words = ring.words[ring._table.offset(slot) // 8 :]
        words[word_of("outcome_chain")] = [5, words[word_of("arguments_chain")]][number]
        text = ["outcome has no slots", "have a slot in common"][number]
        assert any(text in each for each in ring.upkeep.check())
        ring.upkeep.repair()
        assert ring.upkeep.check() == []


def test_a_flipped_bit_in_a_payload_is_found(furnished: tuple[Ring, dict[str, str]]) -> None:
    """The audit reads every byte that a read would return."""
    ring, ids = furnished
    for chain in ring._table.chains(slot_of(ids, "large result")):
        start = chain & at.EXTENT_SLOT_MASK
        offset = ring._table.offset(start + 1) + 3
        ring.segment.bytes[offset] ^= 1
        assert any("does not match its CRC" in each for each in ring.upkeep.check())
        ring.segment.bytes[offset] ^= 1
    assert ring.upkeep.check() == []


def test_two_records_of_one_generation_are_found(
    furnished: tuple[Ring, dict[str, str]],
) -> None:
    """The counter hands each out once."""
    ring, ids = furnished
    first, second = slot_of(ids, "waiting 0"), slot_of(ids, "waiting 1")
    ring.words[ring._commit + second] = ring.words[ring._commit + first]
    assert any("same generation" in each for each in ring.upkeep.check())
    ring.upkeep.repair()
    assert ring.upkeep.check() == []


@pytest.mark.parametrize("owner", [300, at.OWNER_MASK])
def test_a_task_that_nobody_runs_is_lost(
    furnished: tuple[Ring, dict[str, str]], owner: int
) -> None:
    """Its owner is no entry that is in use: nobody would ever settle it."""
    ring, ids = furnished
    word = ring._commit + slot_of(ids, "running")
    generation = ring.words[word] & at.GENERATION_MASK
    ring.words[word] = at.head_word(at.RUNNING, generation, owner)
    assert any(f"entry {owner}" in each for each in ring.upkeep.check())
    assert ring.upkeep.repair()
    assert ring.upkeep.check() == []
    assert ring.get(ids["running"]).status.name == "FAILED"


def test_a_slot_that_nobody_writes_is_freed(rings: Rings) -> None:
    """The same for an enqueue that will never come to its end."""
    ring = rings.attach()
    free = ring.counts().free_slots
    slot = ring_address(put(ring, LARGE))[0]
    generation = ring.words[ring._commit + slot] & at.GENERATION_MASK
    ring.words[ring._commit + slot] = at.head_word(at.WRITING, generation, 300)
    ring.upkeep.rebuild()
    assert any("entry 300" in each for each in ring.upkeep.check())
    ring.upkeep.repair()
    assert ring.upkeep.check() == []
    assert ring.counts().free_slots == free


def test_an_audit_looks_at_the_file(ring: Ring) -> None:
    """A segment that was cut while in use is named before anything behind its end is touched."""
    os.ftruncate(ring.segment.fd, ring.segment.geometry.segment_bytes + 4096)
    assert any("the file has" in each for each in ring.upkeep.check())
    os.ftruncate(ring.segment.fd, ring.segment.geometry.segment_bytes)
    assert ring.upkeep.check() == []


def test_what_lives_may_stay(rings: Rings) -> None:
    """A sound ring with processes of every role in it, some of them dead, needs no repair."""
    ring = rings.attach()
    pool = rings.peer(role=Role.POOL)
    worker = rings.peer(role=Role.WORKER, pool=pool.index)
    site = rings.peer()
    ids = [put(ring), put(ring, LARGE)]
    worker.do(peers.claim)
    site.do(peers.claim)
    site.kill()
    assert ring.upkeep.check() == []
    assert ring.upkeep.repair() == []
    assert [ring.get(each).status.name for each in ids] == ["RUNNING", "FAILED"]


# --- any bytes -----------------------------------------------------------------------------


def areas(ring: Ring) -> dict[str, tuple[int, int]]:
    """Byte ranges that damage may hit: everything that has memory but the fixed words."""
    geometry = ring._table.geometry
    ranges = {name: (geometry.column(name) * 8, at.STEP_SLOTS * 8) for name in at.COLUMNS}
    ranges["map"] = (geometry.map_at, at.STEP_SLOTS)
    ranges["slots"] = (geometry.slots_at, 30 * LIMITS.slot_size)
    ranges["header"] = (at.H_RESERVED * 8, at.HEADER_BYTES - at.H_RESERVED * 8)
    ranges["registry"] = (at.HEADER_BYTES, 4 * at.ENTRY_BYTES)
    ranges["schedule"] = (at.SCHEDULE_AT * 8, 4 * at.ROW_WORDS * 8)
    return ranges


def harm(ring: Ring, chance: random.Random, area: str) -> None:
    """A few bits, a word, or a stretch of bytes."""
    start, length = areas(ring)[area]
    for _ in range(chance.randint(1, 8)):
        at_byte = start + chance.randrange(length)
        kind = chance.random()
        if kind < 0.4:
            ring.segment.bytes[at_byte] ^= 1 << chance.randrange(8)
        elif kind < 0.8:
            value = chance.choice([0, 1, 2**64 - 1, chance.getrandbits(64), chance.randrange(1100)])
            ring.words[at_byte // 8] = value
        else:
            size = min(chance.randint(1, 200), start + length - at_byte)
            ring.segment.bytes[at_byte : at_byte + size] = chance.randbytes(size)


@pytest.mark.parametrize("area", [*at.COLUMNS, "map", "slots", "header", "registry", "schedule"])
def test_any_damage_is_survived(rings: Rings, area: str) -> None:
    """Audit and repair end, whatever they read, and the repair leaves a ring that works."""
    chance = random.Random(area)
    ring = rings.attach()
    peer = rings.peer()
    waiting: list[Any] = []
    for _ in range(25):
        while ring.counts().waiting + ring.counts().deferred < 5:
            waiting.append(put(ring, chance.choice([((), {}), LARGE]), chance.randint(-5, 5)))
            waiting.append(put(ring, due_ns=time.time_ns() + FAR_NS))
        for _ in range(4):
            done(ring, chance.choice([((), {}), LARGE]), chance.choice([None, b"y" * 900]))
        harm(ring, chance, area)
        ring.upkeep.check()
        ring.upkeep.repair()
        assert ring.upkeep.check() == []
        ring.attachment.limits.share(ring.words)
        if ring.counts().waiting + ring.counts().deferred > 8:
            for each in ring._table.order, ring._table.order:
                each.promote(2**63)
            while (claim := ring.claim()) is not None:
                ring.finish(claim, successful=True, outcome=b"")
        result_id = put(ring, LARGE, priority=50)
        assert ring.get(result_id).arguments() == LARGE
    assert peer.do(peers.enqueue)
