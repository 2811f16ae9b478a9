"""The block that holds a record's earlier attempts: refused where it is not whole, and bounded."""

from dataclasses import replace

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.attempts import Past
from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.blocks import BLOCK_HEAD_BYTES, HISTORY, Block, most_bytes
from django_tasks_local.ring.format.history import decode_past, encode_past
from tests.rings import ERROR, META, past_of, put, retry, ring_address


def test_a_flipped_bit_is_told(ring: Ring) -> None:
    """In the block, and in the word that names it: readers refuse, and the audit names the slot."""
    result_id = put(ring)
    retry(ring)
    slot = ring_address(result_id)[0]
    chain = ring._table.head(slot).history_chain
    block = ring._table.offset(chain & at.EXTENT_SLOT_MASK)
    word = ring._table.history.word(slot) * 8
    view, size = ring.segment.bytes, ring._table.history.block_bytes(chain)
    for byte in (*range(word, word + 8), *range(block, block + size)):
        for bit in range(8):
            view[byte] ^= 1 << bit
            with pytest.raises(StoreUnavailable, match="CRC"):
                ring.get(result_id)
            assert any(
                f"slot {slot} " in line and "history" in line for line in ring.upkeep.check()
            )
            view[byte] ^= 1 << bit
    assert past_of(ring, result_id).errors == (ERROR,)
    assert ring.upkeep.check() == []


def test_metadata_is_no_history(ring: Ring) -> None:
    """A block of the other kind does not pass, though it is the same record's."""
    assert Block(b"x" * 40).sealed(7) != Block(b"x" * 40, HISTORY).sealed(7)
    result_id = ring.enqueue(META, ring.encode(((), {})), priority=0, due_ns=0, metadata=b"{}")[0]
    retry(ring)
    assert (ring.get(result_id).metadata, past_of(ring, result_id).errors) == (b"{}", (ERROR,))
    slot = ring_address(result_id)[0]
    words, table = ring.words, ring._table
    words[table.history.word(slot)] = words[table.metadata.word(slot)]
    with pytest.raises(StoreUnavailable, match="CRC"):
        ring.get(result_id)


def test_a_damaged_history_ends_the_attempts(ring: Ring) -> None:
    """They can't be counted any more: the task is FAILED with the error that it has."""
    result_id = put(ring)
    retry(ring)
    claim = ring.claim()
    assert claim is not None
    chain = ring._table.head(ring_address(result_id)[0]).history_chain
    ring.segment.bytes[ring._table.offset(chain & at.EXTENT_SLOT_MASK) + BLOCK_HEAD_BYTES] ^= 1
    assert not ring.retry(claim, error=ERROR, due_ns=0)
    with pytest.raises(StoreUnavailable):
        _ = claim.past
    (problem, *_) = ring.upkeep.repair()
    assert "history" in problem
    with pytest.raises(TaskResultDoesNotExist):
        ring.get(result_id)
    assert ring.upkeep.check() == []


def test_bytes_of_a_history() -> None:
    """They hold what was put in, of any text, and never more than there is room for."""
    past = Past((1, 2**64 - 1), (("a.B", "ä\ud800\n"), ("", "")), 3, 4)
    decoded = decode_past(encode_past(past, 10_000))
    assert decoded == replace(past, errors=(("a.B", "ä\\ud800\n"), ("", "")))
    past = Past((7,) * 1000, (("app.Error", "€" * 4000),) * 10, 3, 4)
    most = most_bytes(256)
    assert len(encode_past(past, most)) <= most
    whole = encode_past(past, most)
    assert decode_past(whole) is not None
    for end in (0, 8, 24, 31, 8023, 8030, 9000, len(whole) - 1):
        assert decode_past(whole[:end]) is None
    assert decode_past(whole + b"x") is None
