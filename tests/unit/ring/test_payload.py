"""Pickles in pieces: what goes into a chain comes out of it, or is refused unseen."""

import io
import pickle
import zlib
from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist
from hypothesis import given
from hypothesis import strategies as st

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records.payload import (
    LARGE,
    Pickled,
    _Pieces,
    _table,
    decode,
    encode,
    is_whole,
)
from django_tasks_local.ring.records.source import Source
from tests.rings import LIMITS, Rings, done, put, ring_address

ROOMY = replace(LIMITS, slot_size=1024, shm_size=2**24)
X, Y = b"x" * LARGE, b"y" * (LARGE + 1)
CALLS: list[str] = []


class Buffer:
    """Pickled as a buffer of its own memory, like an array of numbers."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Buffer, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Buffer) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]


class Caller:
    """Unpickling it is noticed."""

    before: Callable[[], None] = staticmethod(lambda: None)

    def __reduce__(self) -> Any:
        return Caller.called, ()

    @staticmethod
    def called() -> str:
        CALLS.append("called")
        Caller.before()
        return "called"


VALUES = {
    "bytes": X,
    "a byte less": X[1:],
    "bytearray": bytearray(Y),
    "ASCII": "t" * LARGE,
    "text": "ä€😀" * LARGE,
    "surrogates": "\ud800" * LARGE,
    "empty": [b"", "", bytearray()],
    "nested": {"a": [1, X, ("b", {"c": Y})], "d": "e" * LARGE},
    "twice the same": [X, X],
    "many": [bytes([n]) * LARGE for n in range(9)],
    "many small": [bytes([n]) * 70_000 for n in range(9)],
    "frames": list(range(100_000)),
    "buffer": Buffer(Y),
    "in the middle": [b"q" * 70_000, X, list(range(50_000)), Y, "end"],
}


@pytest.fixture
def ring(rings: Rings) -> Ring:
    return rings.attach(ROOMY)


def read(ring: Ring, result_id: str) -> Any:
    outcome = ring.get(result_id).outcome
    assert outcome is not None
    return outcome()


def stored(payload: Pickled) -> bytes:
    return b"".join(payload.parts)


def source_of(data: bytes, cuts: tuple[int, ...] = ()) -> Source:
    """A chain whose extents end at the cuts."""
    ends = [*sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return Source(memoryview(data), iter(list(zip([0, *ends], ends, strict=False))))


class Refused(Exception):
    pass


def refuse() -> NoReturn:
    raise Refused


# --- there and back ------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 1, "text", {"a": [b"b" * 3000]}, list(range(9000))])
def test_a_small_value_is_one_piece(value: Any) -> None:
    """It costs nothing beyond `pickle.dumps`."""
    assert encode(value, 0) == pickle.dumps(value, protocol=5)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_come_back(ring: Ring, value: Any) -> None:
    """As arguments and as outcome, whole to the audit, and no larger than the pickle by much."""
    result_id = done(ring, ((value,), {"key": value}), value)
    assert ring.upkeep.check() == []
    assert read(ring, result_id) == value
    assert ring.get(result_id).arguments() == ((value,), {"key": value})
    assert type(read(ring, result_id)) is type(value)


@pytest.mark.parametrize("name", ["nested", "many", "text", "in the middle"])
def test_pieces_across_extents(name: str) -> None:
    """Wherever an extent ends: in the table, in opcodes, in large bytes."""
    encoded = encode(VALUES[name], 0)
    assert isinstance(encoded, Pickled)
    data = stored(encoded)
    cuts = tuple(range(1, 200, 3)) + tuple(range(200, len(data), 100_001))
    assert decode(source_of(data, cuts), len(data), encoded.crc, refuse) == VALUES[name]
    assert is_whole(source_of(data, cuts), len(data), encoded.crc)


def test_what_fits_a_head_slot_goes_there(rings: Rings) -> None:
    """In slots of 1 MiB large bytes are inline, and without a table."""
    ring = rings.attach(replace(LIMITS, slot_size=2**20, shm_size=2**26))
    encoded = ring.encode(X)
    assert encoded == pickle.dumps(X, protocol=5)
    result_id = done(ring, ((X,), {}), X)
    assert (read(ring, result_id), ring.get(result_id).arguments()) == (X, ((X,), {}))
    assert ring.upkeep.check() == []


@pytest.mark.parametrize("value", [bytearray(X), Buffer(X)])
def test_what_may_change_is_copied(ring: Ring, value: Any) -> None:
    """Whatever becomes of it between pickling and storing."""
    encoded = ring.encode((value, 1))
    data = value.data if isinstance(value, Buffer) else value
    data[:] = bytes(len(data))
    claim = ring.claim() if put(ring) else None
    assert claim is not None
    ring.finish(claim, successful=True, outcome=encoded)
    back = read(ring, claim.result_id)[0]
    assert (back.data if isinstance(back, Buffer) else back) == X


# --- damage --------------------------------------------------------------------------------


def places(ring: Ring, result_id: str) -> tuple[int, list[int]]:
    """The byte where an outcome's table starts, and those where its pieces do."""
    table, slot = ring._table, ring_address(result_id)[0]
    head = table.head(slot)
    start = table.offset(head.outcome_chain & at.EXTENT_SLOT_MASK)
    source = table.slots.source(head.outcome_chain, table.owner_word(slot), 0)
    found = _table(source, head.outcome_bytes, head.outcome_crc >> 32)
    assert found is not None
    pieces = [start + 8 + 16 * len(found)]
    for length, _ in found:
        pieces.append(pieces[-1] + length)
    return start, pieces


def test_damage_is_told_and_nothing_damaged_is_unpickled(ring: Ring) -> None:
    """In the table, in opcodes before and behind large bytes, in the bytes and in text."""
    value = [Caller(), X, Caller(), "t" * LARGE, Caller()]
    result_id = done(ring, ((), {}), value)
    start, pieces = places(ring, result_id)
    assert len(pieces) == 6
    # By place: how many callers come before it.
    wanted = {start: 0, start + 8: 0, start + 16: 0, pieces[0] - 1: 0, pieces[0]: 0}
    wanted |= {pieces[1] - 1: 0, pieces[1]: 1, pieces[2] - 1: 1, pieces[2]: 1, pieces[3] - 1: 1}
    wanted |= {pieces[3]: 2, pieces[4] - 1: 2, pieces[4]: 2, pieces[5] - 1: 2}
    for place, calls in wanted.items():
        CALLS.clear()
        ring.segment.bytes[place] ^= 0x10
        with pytest.raises(StoreUnavailable, match="CRC"):
            read(ring, result_id)
        assert len(CALLS) == calls
        assert any("outcome does not match its CRC" in problem for problem in ring.upkeep.check())
        ring.segment.bytes[place] ^= 0x10
    assert read(ring, result_id) == ["called", X, "called", "t" * LARGE, "called"]
    ring.segment.bytes[pieces[1]] ^= 0x10
    ring.upkeep.repair()
    assert ring.upkeep.check() == []
    with pytest.raises(TaskResultDoesNotExist):
        ring.get(result_id)


@pytest.mark.parametrize("large", [X, "t" * LARGE, bytearray(Y)], ids=["bytes", "text", "array"])
def test_recycled_while_it_is_read(ring: Ring, monkeypatch: pytest.MonkeyPatch, large: Any) -> None:
    """The value is half unpickled when others take its slots: it does not exist, nor its half."""
    result_id = done(ring, ((), {}), [Caller(), large])

    def evict() -> None:
        for _ in range(120):
            done(ring, ((), {}), Y)

    monkeypatch.setattr(Caller, "before", staticmethod(evict))
    with pytest.raises(TaskResultDoesNotExist):
        read(ring, result_id)


@pytest.mark.parametrize(
    "head",
    [b"", b"1234567", bytes(8), array("Q", [1]).tobytes(), array("Q", [2**60, 5, 0]).tobytes()],
)
def test_a_table_that_is_none(head: bytes) -> None:
    """Whatever bytes are there: refused, and no more is read than there is."""
    for crc in {0, zlib.crc32(head)}:
        if head == bytes(8) and crc:
            continue  # a table for nothing
        with pytest.raises(Refused):
            decode(source_of(head), len(head), crc, refuse)
        assert not is_whole(source_of(head), len(head), crc)


# --- the file ------------------------------------------------------------------------------


@given(st.data())
def test_the_file_is_a_file(data: st.DataObject) -> None:
    """Any mixture of reads gives what a file would give, wherever pieces and extents end."""
    whole = data.draw(st.binary(max_size=60))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)))))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    table = [(len(piece), zlib.crc32(piece)) for piece in pieces]
    extents = tuple(data.draw(st.sets(st.integers(1, max(1, len(whole) - 1)))))
    file, model = _Pieces(source_of(whole, extents), table, refuse), io.BytesIO(whole)
    for how, size in data.draw(st.lists(st.tuples(st.sampled_from("rit"), st.integers(0, 70)))):
        if how == "r":
            assert file.read(size) == model.read(size)
        elif how == "t":
            assert file.readline() == model.readline()
        else:
            mine, theirs = bytearray(size), bytearray(size)
            assert file.readinto(memoryview(mine)) == model.readinto(theirs)
            assert mine == theirs


def test_a_read_may_end_inside_a_piece() -> None:
    """What is left of the piece is private and checked already; nothing is read twice."""
    file = _Pieces(source_of(b"0123456789"), [(10, zlib.crc32(b"0123456789"))], refuse)
    target = bytearray(4)
    assert (file.readinto(memoryview(target)), bytes(target)) == (4, b"0123")
    assert (file.read(3), file.read(9), file.read(1)) == (b"456", b"789", b"")
    assert file.readinto(memoryview(target)) == 0
