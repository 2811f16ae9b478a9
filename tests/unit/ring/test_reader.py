"""Result ids from strangers, and reading while others write."""

import os
import pickle
import struct
import uuid
from typing import Any

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import HEAD_BYTES, PROGRESS_BYTES, S_GENERATION, Head
from django_tasks_local.ring.format.ids import (
    ID_LENGTH,
    format_id,
    new_id_words,
    parse_id,
    random_id,
    with_slot,
)
from django_tasks_local.ring.records import claim as claims
from django_tasks_local.store import Arguments
from tests import rings as peers
from tests.rings import META, Rings, done, put, ring_address, run

LARGE: Arguments = ((b"x" * 3000,), {})


def offset_of(ring: Ring, result_id: str) -> int:
    return ring._table.offset(ring_address(result_id)[0])


def flip(ring: Ring, offset: int) -> None:
    """Damages one byte of the segment."""
    ring.segment.bytes[offset] ^= 0x10


# --- ids -----------------------------------------------------------------------------------


@given(st.integers(1, at.MAX_SLOTS - 1))
def test_an_id_is_a_uuid_with_its_slot(slot: int) -> None:
    """Version 8, as text exactly what uuid.UUID makes of it, and it leads back to its slot."""
    high, low = new_id_words()
    result_id = format_id(high, with_slot(low, slot))
    parsed = uuid.UUID(result_id)
    assert str(parsed) == result_id
    assert parsed.version == 8
    assert parsed.variant == uuid.RFC_4122
    assert parse_id(result_id)[0] == slot


def test_ids_of_one_slot_differ() -> None:
    """98 random bits."""
    assert len({format_id(*new_id_words()) for _ in range(1000)}) == 1000


def test_ids_of_a_forked_child_differ() -> None:
    """Random bits are drawn for many ids at once, but each process draws its own."""
    random_id()  # so that there are some left
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write_end, "".join(random_id() for _ in range(10)).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end) as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    assert len(theirs) == 10 * ID_LENGTH
    assert not [ours for ours in (random_id() for _ in range(10)) if ours in theirs]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
def test_any_string_may_be_asked_for(ring: Ring, text: str) -> None:
    """Whatever comes in from a URL: it does not exist, and nothing else happens."""
    with pytest.raises(TaskResultDoesNotExist):
        ring.get(text)


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda each: each.replace("-", ""),
        lambda each: f" {each[1:]}",
        lambda each: f"  {each[2:]}",
        lambda each: f"{each[:-1]}\n",
        lambda each: f"{{{each[1:-1]}}}",
        lambda each: each.replace("-", "_"),
        lambda each: f"0x{each[2:]}",
        lambda each: f"+{each[1:]}",
        lambda each: each[:-1],
        lambda each: f"{each}0",
        lambda each: each[::-1],
        lambda each: "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in each),
        lambda each: "".join(chr(ord(c) - 48 + 0x660) if c.isdigit() else c for c in each),
        lambda each: each.replace("-", "", 1) + "-",
        lambda each: f"\ud800{each[1:]}",
        lambda each: f"{each[:10]}\0{each[11:]}",
    ],
)
def test_another_spelling_is_another_id(ring: Ring, change: Any) -> None:
    """One record has one id: caches and permission checks compare them as text."""
    result_id = put(ring)
    other = change(result_id)
    if other != result_id:
        with pytest.raises(TaskResultDoesNotExist):
            ring.get(other)
    assert ring.get(result_id).result_id == result_id


def test_a_string_of_another_class_is_a_string(ring: Ring) -> None:
    """Templates hand out SafeString, forms hand out subclasses."""

    class Text(str):
        __slots__ = ()

    assert ring.get(Text(put(ring))).status.name == "READY"


@pytest.mark.parametrize("nonsense", [None, 5, b"x" * 36, ["x"] * 36, uuid.uuid4(), object()])
def test_anything_may_be_asked_for(ring: Ring, nonsense: Any) -> None:
    """What is no string is no id."""
    with pytest.raises(TaskResultDoesNotExist):
        ring.get(nonsense)


@pytest.mark.parametrize("slot", [0, 1, 2, 1023, 1024, 2479, 2480, at.MAX_SLOTS - 1])
def test_every_slot_number_may_be_asked_for(ring: Ring, slot: int) -> None:
    """Free ones, ones without memory, ones behind the end: none is touched in vain."""
    with pytest.raises(TaskResultDoesNotExist):
        ring.get(format_id(0x8000, 0b10 << 62 | slot << 38 | 1))


def test_a_recycled_slot_does_not_answer_for_its_former_record(ring: Ring) -> None:
    """The random bits tell them apart."""
    seen: dict[int, str] = {}
    while (slot := ring_address(latest := done(ring))[0]) not in seen:
        seen[slot] = latest
    first = seen[slot]
    with pytest.raises(TaskResultDoesNotExist):
        ring.get(first)
    assert ring.get(latest).status.name == "SUCCESSFUL"


def test_a_slot_that_continues_a_record_is_no_record(ring: Ring) -> None:
    """An id that points into the middle of a payload finds nothing, whatever bytes lie there."""
    head = put(ring, LARGE)
    chained = ring_address(head)[0] + 1
    assert ring._table.state(chained) == at.CHAIN
    offset = ring._table.offset(chained)
    high, low = new_id_words()
    low = with_slot(low, chained)
    ring.segment.bytes[offset : offset + 16] = struct.pack("=2Q", high, low)
    with pytest.raises(TaskResultDoesNotExist):
        ring.get(format_id(high, low))


# --- whole records -------------------------------------------------------------------------


def test_a_record_is_read_as_it_stands(rings: Rings) -> None:
    """Status, times, worker, arguments and outcome at each of its states."""
    ring = rings.attach()
    arguments = ((1, (2, 3), {4}), {"a": b"\0"})
    result_id = put(ring, arguments)
    found = ring.get(result_id)
    assert (found.status.name, found.meta, found.worker_id) == ("READY", META, "")
    assert (found.started_at_ns, found.finished_at_ns) == (0, 0)
    assert found.arguments() == arguments
    claim = ring.claim()
    assert claim is not None
    found = ring.get(result_id)
    assert (found.status.name, found.worker_id) == ("RUNNING", claim.worker_id)
    assert 0 < found.enqueued_at_ns <= found.started_at_ns == claim.started_at_ns
    assert found.finished_at_ns == 0
    ended = ring.finish(claim, successful=False, outcome=ring.encode(("E", "text")))
    found = ring.get(result_id)
    assert (found.status.name, found.finished_at_ns) == ("FAILED", ended)
    assert found.outcome() == ("E", "text")
    assert found.arguments() == arguments


UNPICKLED: list[str] = []


def unpickle_here(text: str) -> None:
    UNPICKLED.append(text)


class Noted:
    """Notes when it is unpickled."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> Any:
        return unpickle_here, (self.text,)


def test_nothing_is_unpickled_before_it_is_asked_for(ring: Ring) -> None:
    """A poll for the status does not touch the payloads."""
    UNPICKLED.clear()
    result_id = put(ring, ((Noted("arguments"),), {}))
    run(ring, Noted("outcome"))
    found = ring.get(result_id)
    assert UNPICKLED == []
    found.arguments()
    assert UNPICKLED == ["arguments"]
    found.outcome()
    assert UNPICKLED == ["arguments", "outcome"]


def test_a_read_goes_on_after_an_eviction(ring: Ring) -> None:
    """A chain that was recycled meanwhile does not exist; it is never half another's."""
    result_id = put(ring, LARGE)
    run(ring, b"y" * 3000)
    found = ring.get(result_id)
    for _ in range(60):
        done(ring, LARGE, b"z" * 3000)
    with pytest.raises(TaskResultDoesNotExist):
        found.outcome()


# --- torn and damaged ones -----------------------------------------------------------------


def test_a_change_during_the_copy_is_copied_again(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit word before and after must be the same."""
    result_id = put(ring)
    reader = ring._reader

    class Racing:
        """The head slots' bytes; the record is claimed while they are copied for the first time."""

        def __init__(self, view: memoryview) -> None:
            self._view = view
            self.copies = 0

        def __getitem__(self, key: Any) -> Any:
            data = memoryview(bytes(self._view[key]))
            self.copies += 1
            if self.copies == 1:
                assert ring.claim() is not None
            return data

    racing = Racing(reader._bytes)
    monkeypatch.setattr(reader, "_bytes", racing)
    assert ring.get(result_id).status.name == "RUNNING"
    assert racing.copies == 2


@pytest.mark.parametrize("outcome", [None, b"y" * 3000], ids=["inline", "chained"])
@pytest.mark.parametrize("arguments", [((1,), {}), LARGE], ids=["small", "large"])
def test_damage_is_told_and_never_unpickled(ring: Ring, arguments: Any, outcome: Any) -> None:
    """Every byte that a read returns is covered: one flipped bit ends in StoreUnavailable."""
    result_id = done(ring, arguments, outcome)
    head = offset_of(ring, result_id)
    found = ring.get(result_id)
    data = pickle.dumps(arguments, protocol=5)
    # All words but the id, which leads elsewhere, the generation, the links to chains, and STOP,
    # which has its own check.
    unseen = {"id_high", "id_low", "generation", "arguments_chain", "outcome_chain", "stop"}
    places = [head + n * 8 for n, name in enumerate(Head._fields) if name not in unseen]
    if arguments != LARGE:
        places += [head + HEAD_BYTES, head + HEAD_BYTES + len(META) + len(data) - 1]
    for place in places:
        flip(ring, place)
        with pytest.raises(StoreUnavailable, match=r"damaged.*check --fix"):
            read_all(ring, result_id)
        flip(ring, place)
    assert read_all(ring, result_id) == (arguments, outcome)
    assert found.arguments() == arguments


def read_all(ring: Ring, result_id: str) -> tuple[Any, Any]:
    found = ring.get(result_id)
    return found.arguments(), found.outcome()


def test_damage_in_a_chain_is_told(ring: Ring) -> None:
    """Chained payloads have CRCs of their own, and broken chains are noticed."""
    result_id = done(ring, LARGE, b"y" * 3000)
    table = ring._table
    for chain in table.chains(ring_address(result_id)[0]):
        start = chain & at.EXTENT_SLOT_MASK
        flip(ring, table.offset(start) + 5)
        with pytest.raises(StoreUnavailable, match="CRC"):
            read_all(ring, result_id)
        flip(ring, table.offset(start) + 5)
        ring.words[table.commit + start] ^= 1
        with pytest.raises(StoreUnavailable, match="CRC"):
            read_all(ring, result_id)
        ring.words[table.commit + start] ^= 1
    assert read_all(ring, result_id) == (LARGE, b"y" * 3000)


def test_a_damaged_generation_is_another_record(ring: Ring) -> None:
    """Head slot and commit word must agree, else the id leads nowhere."""
    result_id = put(ring)
    flip(ring, offset_of(ring, result_id) + S_GENERATION * 8)
    with pytest.raises(TaskResultDoesNotExist):
        ring.get(result_id)


# --- progress ------------------------------------------------------------------------------


def test_progress_is_seen_by_others(rings: Rings) -> None:
    """What the task says last, in its own words."""
    ring = rings.attach()
    peer = rings.peer()
    result_id = put(ring)
    assert ring.get(result_id).progress is None
    assert peer.do(peers.claim) == result_id
    assert ring.get(result_id).progress is None
    peer.do(peers.report, result_id, 3, None, "")
    progress = ring.get(result_id).progress
    assert progress is not None
    assert (progress.done, progress.total, progress.message) == (3, None, "")
    peer.do(peers.report, result_id, 4.5, 9, "ü" * 40)
    progress = ring.get(result_id).progress
    assert progress is not None
    assert (progress.done, progress.total) == (4.5, 9)
    assert progress.message == "ü" * 32
    peer.do(peers.finish, result_id)
    assert ring.get(result_id).progress == progress


def test_half_a_report_is_not_shown(ring: Ring) -> None:
    """A worker that was killed in the middle of a report leaves an odd number."""
    result_id = put(ring)
    claim = ring.claim()
    assert claim is not None
    claim.report(1, 2, "whole")
    word = (offset_of(ring, result_id) + ring._table.slots.size - PROGRESS_BYTES) // 8
    ring.words[word] += 1
    assert ring.get(result_id).progress is None
    claim.report(2, 2, "whole again")
    progress = ring.get(result_id).progress
    assert progress is not None
    assert progress.message == "whole again"


def test_the_progress_of_another_record_is_not_shown(ring: Ring) -> None:
    """A recycled slot starts without progress, whatever bytes it held before."""
    result_id = put(ring)
    word = (offset_of(ring, result_id) + ring._table.slots.size - PROGRESS_BYTES) // 8
    claim = ring.claim()
    assert claim is not None
    claim.report(1, 2, "old")
    generation = ring.words[at.H_TICK]
    ring.finish(claim, successful=True, outcome=ring.encode(None))
    ring._mutex.run(ring._table.evict_oldest)
    ring.words[word] = generation + 1 << 16  # as a payload might have it by chance
    ring.words[at.H_CURSOR] = 1
    again = put(ring)
    assert ring_address(again)[0] == ring_address(result_id)[0]
    assert ring.get(again).progress is None


def test_a_report_that_left_its_lock_does_not_block_the_end(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler may raise at the worst moment: the task ends all the same."""
    monkeypatch.setattr(claims, "LEFT_LOCKED_S", 0.01)
    result_id = put(ring)
    claim = ring.claim()
    assert claim is not None
    claim._lock.acquire()
    claim.report(1, 2, "given up")
    ring.finish(claim, successful=True, outcome=ring.encode(None))
    assert ring.get(result_id).status.name == "SUCCESSFUL"


def test_a_report_after_the_end_goes_nowhere(ring: Ring) -> None:
    """A thread that outlives its task must not write into a slot that is somebody else's."""
    result_id = put(ring)
    claim = ring.claim()
    assert claim is not None
    ring.finish(claim, successful=True, outcome=ring.encode(None))
    claim.report(1, 2, "late")
    assert ring.get(result_id).progress is None
