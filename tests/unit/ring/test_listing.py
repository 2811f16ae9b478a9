"""Lists of a ring's records: without its lock, without a trace, and as it says."""

import random
import time

import pytest
from django.tasks import TaskResultStatus

from django_tasks_local.ring import Ring
from django_tasks_local.ring.format.head import HEAD_BYTES
from django_tasks_local.ring.records import listing
from tests import rings as peers
from tests.rings import FAR_NS, Rings, done, put, ring_address

ALL = frozenset(TaskResultStatus)


def ids(ring: Ring, *statuses: TaskResultStatus) -> list[str]:
    """What is listed, in order."""
    return [found.result_id for found in ring.listed(statuses or ALL, None)]


def test_the_order_is_that_of_claims(ring: Ring) -> None:
    """READY records are listed in the order in which they are claimed, whatever they are."""
    draw = random.Random(1)
    for n in range(12):
        deferred = draw.random() < 0.3
        due_ns = time.time_ns() + 5_000_000 * draw.randrange(1, 4) if deferred else 0
        put(ring, ((n, b"x" * draw.choice((0, 1000))), {}), draw.randrange(-2, 3), due_ns)
    later = ids(ring, TaskResultStatus.READY)
    assert len(later) == 12
    moment = time.time_ns() + 20_000_000
    while time.time_ns() < moment:
        pass
    listed = ids(ring, TaskResultStatus.READY)
    claimed = []
    while claim := ring.claim():
        claimed.append(claim.result_id)
    assert claimed == listed


@pytest.mark.parametrize("many", [1, listing._MANY])
def test_the_latest_end_first(ring: Ring, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    """Finished records by their ends, not by their uses, however many there are."""
    monkeypatch.setattr(listing, "_MANY", many)
    ended = [done(ring, outcome="x" * size) for size in (1, 2000, 3, 400)]
    ring.get(ended[0])
    assert ids(ring) == ended[::-1]


def test_no_trace(rings: Rings, ring: Ring) -> None:
    """It changes no word, and needs no lock: another process may be frozen inside."""
    ended = done(ring)
    running = put(ring)
    assert ring.claim()
    waiting = put(ring, due_ns=time.time_ns() + FAR_NS)
    peer = rings.peer()
    before = bytes(ring.segment.bytes)
    ring._mutex.run(peer.stop)
    assert ids(ring) == [running, waiting, ended]
    assert bytes(ring.segment.bytes) == before
    peer.resume()


def test_what_is_damaged_is_left_out(ring: Ring) -> None:
    """A record whose CRC does not hold is not listed; the others are."""
    whole, broken = done(ring), done(ring)
    offset = ring._table.offset(ring_address(broken)[0])
    ring.segment.bytes[offset + HEAD_BYTES] ^= 1
    assert ids(ring) == [whole]


def test_what_ends_meanwhile(ring: Ring) -> None:
    """A record whose state has changed since is left out, unless the new one is asked for too."""
    first, second = put(ring), put(ring)
    found = ring.listed({TaskResultStatus.READY}, None)
    assert next(found).result_id == first
    peers.run(ring)
    peers.run(ring)
    assert list(found) == []
    assert ids(ring) == [second, first]


def test_by_what_names_the_task(ring: Ring) -> None:
    """A filter is asked about records in a slot and in chains alike."""
    small, large = done(ring), done(ring, ((b"x" * 2000,), {}))
    seen = []

    def accepts(meta: bytes) -> bool:
        seen.append(meta)
        return True

    assert [each.result_id for each in ring.listed(ALL, accepts)] == [large, small]
    assert set(seen) == {peers.META}
    assert list(ring.listed(ALL, lambda meta: False)) == []
