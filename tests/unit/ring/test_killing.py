"""A kill that the pool decides on is noted in the record first, and can hit no other task."""

import os
import pickle
from typing import Any

import pytest

from django_tasks_local.exceptions import MemoryExceeded, WorkerLost
from django_tasks_local.ring import Entry, Loss, Ring, loss_word
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import S_STOP
from django_tasks_local.ring.records.killing import Run
from django_tasks_local.ring.records.loss import EXIT_DETACHED, KILLED, kill_note, noted_loss
from tests import rings as peers
from tests.rings import Peer, Rings, put

MIB = 2**20
WORD = loss_word(Loss.MEMORY, 600 * 1024, 512 * MIB)


def entry_of(ring: Ring, peer: Peer) -> Entry:
    """A peer's entry."""
    return next(each for each in ring.registry.attachments() if each.index == peer.index)


def working(rings: Rings, ring: Ring) -> tuple[Peer, str, Run]:
    """A peer that runs a task."""
    result_id = put(ring)
    peer = rings.peer()
    assert peer.do(peers.claim) == result_id
    run = ring.killing.run_of(entry_of(ring, peer))
    assert run is not None
    return peer, result_id, run


def error_of(ring: Ring, result_id: str) -> WorkerLost | None:
    """How a task was lost."""
    loss: WorkerLost | None = ring.get(result_id).loss
    return loss


def test_a_noted_reason_is_told(rings: Rings) -> None:
    """Whoever settles the dead worker, and whatever he believes: the note is what counts."""
    ring = rings.attach()
    peer, result_id, run = working(rings, ring)
    assert ring.killing.note(run, WORD)
    assert ring.get(result_id).status.name == "RUNNING"
    assert ring.upkeep.check() == []
    ring.upkeep.rebuild()
    peer.kill()
    ring.upkeep.settle(peer.index, loss_word(Loss.SIGNAL, 9))
    loss = error_of(ring, result_id)
    assert isinstance(loss, MemoryExceeded)
    assert (loss.pid, loss.signal, loss.exit_code) == (peer.pid, 9, None)
    assert (loss.measured, loss.limit, loss.option) == (600 * MIB, 512 * MIB, "MAX_TASK_MEMORY")
    copy = pickle.loads(pickle.dumps(loss))
    assert (type(copy), vars(copy), str(copy)) == (MemoryExceeded, vars(loss), str(loss))
    path, text = ring.get(result_id).outcome()
    assert path == "django_tasks_local.exceptions.MemoryExceeded"
    for part in ("600.0 MiB", "MAX_TASK_MEMORY allows 512.0 MiB", "not run again"):
        assert part in text
    assert ring.upkeep.check() == []
    assert ring.words[ring._table.due + run.slot] == 0


def test_a_reader_finds_the_reason_too(rings: Rings) -> None:
    """One who asks for the result finds the worker dead before its pool does."""
    ring = rings.attach()
    peer, result_id, run = working(rings, ring)
    ring.killing.note(run, WORD)
    peer.kill()
    assert isinstance(error_of(ring, result_id), MemoryExceeded)


def test_a_task_that_ends_after_the_note_is_not_finished(rings: Rings) -> None:
    """Its worker ends by itself: no signal can find it at another task."""
    ring = rings.attach()
    peer, result_id, run = working(rings, ring)
    assert ring.killing.note(run, WORD)
    peer.start(peers.finish, result_id, "in time?")
    assert peer.wait() == EXIT_DETACHED
    ring.upkeep.settle(peer.index, loss_word(Loss.EXIT, EXIT_DETACHED))
    assert isinstance(error_of(ring, result_id), MemoryExceeded)


def test_a_large_outcome_in_the_making_is_given_back(rings: Rings) -> None:
    """What a noted worker has chained for its result is free when it is settled."""
    ring = rings.attach()
    peer, result_id, run = working(rings, ring)
    assert ring.killing.note(run, WORD)
    peer.start(peers.finish, result_id, os.urandom(9000))
    assert peer.wait() == EXIT_DETACHED
    ring.upkeep.settle_dead()
    assert isinstance(error_of(ring, result_id), MemoryExceeded)
    assert ring.upkeep.check() == []


def test_a_task_that_has_ended_cannot_be_noted(rings: Rings) -> None:
    """Nor the next one in the hands of the same worker, be it in the same slot."""
    ring = rings.attach()
    peer, result_id, run = working(rings, ring)
    peer.do(peers.finish, result_id, "done")
    assert not ring.killing.note(run, WORD)
    assert ring.killing.run_of(entry_of(ring, peer)) is None
    ring._mutex.run(ring._table.evict_oldest)
    ring._table.words[at.H_CURSOR] = run.slot
    again = put(ring)
    assert peers.ring_address(again)[0] == run.slot
    assert peer.do(peers.claim) == again
    assert not ring.killing.note(run, WORD)
    peer.do(peers.finish, again, "done too")
    assert ring.get(again).status.name == "SUCCESSFUL"


def test_a_note_does_not_outlive_its_record(rings: Rings) -> None:
    """The next task in that slot runs and ends as any other."""
    ring = rings.attach()
    peer, _, run = working(rings, ring)
    ring.killing.note(run, WORD)
    peer.kill()
    ring.upkeep.settle_dead()
    ring._mutex.run(ring._table.evict_oldest)
    ring._table.words[at.H_CURSOR] = run.slot
    result_id = put(ring)
    assert peers.ring_address(result_id)[0] == run.slot
    assert peers.run(ring, "fine") == result_id
    assert ring.get(result_id).outcome() == "fine"


@pytest.mark.parametrize("bit", range(64))
def test_a_flipped_bit_is_no_note(rings: Rings, bit: int) -> None:
    """Damage does not keep a task from its end."""
    assert noted_loss(1 << bit) == 0
    ring = rings.attach()
    result_id = put(ring)
    claim: Any = ring.claim()
    ring.words[ring._table.offset(claim.slot) // 8 + S_STOP] = 1 << bit
    ring.finish(claim, successful=True, outcome=ring.encode(None))
    assert ring.get(result_id).status.name == "SUCCESSFUL"


@pytest.mark.parametrize("limit", [MIB, 3 * MIB, 512 * MIB, 200_000 * MIB, 2**40])
@pytest.mark.parametrize("measured_kib", [1, 2**31, 2**32 - 1, 2**40])
def test_a_note_holds_both_numbers(limit: int, measured_kib: int) -> None:
    """Any limit that the options allow fits one word, beside what was measured."""
    word = loss_word(Loss.MEMORY, measured_kib, limit)
    assert word < 2**63
    assert noted_loss(kill_note(word)) == word
    packed = word >> 40
    assert packed >> 5 << (packed & 31) == limit
    assert word & 0xFFFFFFFF == min(measured_kib, 2**32 - 1)
    assert Loss.MEMORY in KILLED


def test_want_of_memory_in_the_host(rings: Rings) -> None:
    """What the kernel has killed says so, as far as that can be known."""
    ring = rings.attach()
    peer, result_id, _ = working(rings, ring)
    peer.kill()
    ring.upkeep.settle(peer.index, loss_word(Loss.OUT_OF_MEMORY, 9))
    loss = error_of(ring, result_id)
    assert type(loss) is WorkerLost
    assert loss.cause == "was killed by SIGKILL, perhaps because memory ran out"
    assert loss.signal == 9


def test_the_first_reason_stands(rings: Rings) -> None:
    """A killed worker takes its time to go, and meanwhile a second limit may be reached."""
    ring = rings.attach()
    peer, result_id, run = working(rings, ring)
    assert ring.cancel(result_id, running=True)[0]
    assert ring.killing.note(run, loss_word(Loss.TIMED_OUT))
    assert ring.killing.note(run, loss_word(Loss.TIMED_OUT))
    assert ring.killing.note(run, WORD)
    assert ring.cancel(result_id, running=True)[0]
    assert not ring.cancel(result_id, running=False)[0]
    peer.kill()
    assert ring.get(result_id).outcome()[0].endswith(".TaskCancelled")
    assert ring.upkeep.check() == []


def test_no_flipped_bit_stops_a_task(ring: Ring) -> None:
    """Only what a pool or a site has noted does."""
    put(ring)
    claim: Any = ring.claim()
    word = ring._table.offset(claim.slot) // 8 + S_STOP
    for bit in range(64):
        ring.words[word] = 1 << bit
        assert not claim.stop_asked
    ring.words[word] = 0
    assert ring.cancel(claim.result_id, running=True)[0]
    assert claim.stop_asked
