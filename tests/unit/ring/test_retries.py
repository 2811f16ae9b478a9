"""Retries in the ring: each attempt counted once, no error lost, never more room than there is."""

import os
import time
from dataclasses import replace
from typing import Any

import pytest
from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.ring import Loss, Ring, Role, loss_word
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records import retrying
from django_tasks_local.ring.records.payload import Pickled
from django_tasks_local.store import StopAsked, time_limit_word
from tests import rings as peers
from tests.rings import (
    ERROR,
    FAR_NS,
    LIMITS,
    META,
    Rings,
    done,
    past_of,
    put,
    retry,
    ring_address,
    run,
)

SMALL = replace(LIMITS, shm_size=at.COLUMNS_AT + 9 * 4096 + 40 * (LIMITS.slot_size + 57))


def put_lost(ring: Ring, attempts: int = 3, arguments: Any = ((), {})) -> str:
    """Enqueues a task that is tried so often when its worker dies."""
    word = time_limit_word(None, 5, attempts)
    return ring.enqueue(META, ring.encode(arguments), priority=0, due_ns=0, time_limit=word)[0]


def claim_and_die(rings: Rings, ring: Ring, body: Any = None) -> str:
    """A worker claims a task, does something with it, and is killed; it is settled."""
    worker = rings.peer(role=Role.WORKER)
    result_id = worker.do(peers.claim)
    if body is not None:
        worker.do(body, result_id)
    worker.kill()
    ring.upkeep.settle_dead()
    assert isinstance(result_id, str)
    return result_id


# --- by the worker ---------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [((), {}), ((b"x" * 5000,), {})], ids=["inline", "chained"])
def test_a_retry_is_ready_again(ring: Ring, arguments: Any) -> None:
    """READY, with its attempt and its error; then it runs once more, and ends like any other."""
    free = ring.counts().free_slots
    result_id = put(ring, arguments)
    claim = ring.claim()
    assert claim is not None
    claim.report(1, 2, "half")
    assert ring.retry(claim, error=ERROR, due_ns=0)
    claim.report(2, 2, "too late")
    found = ring.get(result_id)
    assert (found.status, found.worker_id, found.started_at_ns) == (TaskResultStatus.READY, "", 0)
    assert found.progress is None
    assert found.past is not None
    assert found.past.errors == (ERROR,)
    assert found.past.first_started_at_ns == found.past.last_started_at_ns == claim.started_at_ns
    assert ring.upkeep.check() == []
    counts = ring.counts()
    assert (counts.waiting, counts.running) == (1, 0)
    again = ring.claim()
    assert again is not None
    assert again.result_id == result_id
    assert again.past == found.past
    assert again.worker_id == found.past.workers[0] != ""
    assert again.arguments() == arguments
    ring.finish(again, successful=True, outcome=ring.encode("done"))
    found = ring.get(result_id)
    assert (found.outcome(), found.past) == ("done", again.past)
    assert ring.upkeep.check() == []
    for _ in range(LIMITS.max_results):
        done(ring)
    assert ring.counts().free_slots == free - LIMITS.max_results
    assert ring.upkeep.check() == []


def test_in_order(ring: Ring) -> None:
    """Behind what waits with the same priority."""
    first, second = put(ring), put(ring)
    lower = put(ring, priority=-1)
    assert retry(ring) == first
    assert [run(ring), run(ring), run(ring)] == [second, first, lower]


def test_deferred(ring: Ring) -> None:
    """Among those that wait for their moment; a rebuild leaves it there."""
    due_ns = time.time_ns() + FAR_NS
    result_id = put(ring)
    retry(ring, due_ns=due_ns)
    assert (ring.counts().deferred, ring.upkeep.next_due_ns()) == (1, due_ns)
    assert ring.claim() is None
    ring.upkeep.rebuild()
    assert (ring.counts().deferred, ring.upkeep.next_due_ns()) == (1, due_ns)
    assert ring.upkeep.check() == []
    assert ring.cancel(result_id, running=False)[0]
    found = ring.get(result_id)
    assert "while it waited for its next attempt" in found.outcome()[1]
    assert (found.cancelled, len(found.past.workers)) == (True, 1)  # type: ignore[union-attr]
    assert ring.upkeep.check() == []


def test_a_task_that_is_to_stop(ring: Ring) -> None:
    """It is not tried again."""
    result_id = put(ring)
    claim = ring.claim()
    assert claim is not None
    ring.cancel(result_id, running=True)
    with pytest.raises(StopAsked):
        ring.retry(claim, error=ERROR, due_ns=0)
    ring.finish(claim, successful=False, outcome=ring.encode(("x", "y")), cancelled=True)
    assert (past_of(ring, result_id), ring.get(result_id).cancelled) == (None, True)
    assert ring.upkeep.check() == []


def test_a_kill_never_meets_the_next_attempt(ring: Ring, rings: Rings) -> None:
    """Though the worker and the task are the same, and so is the commit word."""
    worker = rings.peer(role=Role.WORKER)
    result_id = put(ring)
    worker.do(peers.claim)
    (entry,) = (each for each in ring.registry.attachments() if each.index == worker.index)
    run_before = ring.killing.run_of(entry)
    running = ring.stops.running(entry)
    assert running is not None
    assert running.run == run_before is not None
    worker.do(retry_claimed, result_id)
    assert worker.do(peers.claim) == result_id
    assert run_before is not None
    run_now = ring.killing.run_of(entry)
    assert run_now is not None
    assert run_now.word == run_before.word
    assert not ring.killing.note(run_before, loss_word(Loss.TIMED_OUT))
    assert ring.killing.note(run_now, loss_word(Loss.TIMED_OUT))


def retry_claimed(mine: Any, result_id: str) -> None:
    """Has a peer retry what it claimed."""
    assert mine.ring.retry(mine.claims.pop(result_id), error=ERROR, due_ns=0)


def test_many_attempts(ring: Ring) -> None:
    """All are counted, ten errors are kept, and the room is bounded."""
    result_id = put(ring)
    for number in range(300):
        retry(ring, ("app.Busy", f"{number} {'x' * 20_000}"))
    past = past_of(ring, result_id)
    assert len(past.workers) == 300
    numbers = [int(text.partition(" ")[0]) for _, text in past.errors]
    assert numbers == [0, *range(291, 300)]
    slot = ring_address(result_id)[0]
    assert ring._table.history.slots_of(slot) <= 64
    assert ring.upkeep.check() == []


def test_less_is_kept_where_there_is_less_room(
    rings: Rings, caplog: pytest.LogCaptureFixture
) -> None:
    """First the errors are cut; and where nothing is free, a first attempt is the last."""
    ring = rings.attach(SMALL)
    result_id = put(ring)
    # Free is then what is kept for the results of workers, and three slots.
    slots = ring.counts().free_slots - 1 - SMALL.max_workers - 3
    filler = put(ring, ((bytes(slots * SMALL.slot_size - 200),), {}), priority=-1)
    assert retry(ring, ("app.Busy", "x" * 4000)) == result_id
    ((_, text),) = past_of(ring, result_id).errors
    assert 500 < len(text) < 4000
    assert "[...]" in text
    assert ring.upkeep.check() == []
    while ring.counts().free_slots > SMALL.max_workers:
        put(ring)
    claim = ring.claim()
    assert claim is not None
    assert claim.result_id == result_id
    assert ring.retry(claim, error=("app.Busy", "y" * 4000), due_ns=0)  # where the first one lay
    assert ring.counts().free_slots >= SMALL.max_workers
    assert len(past_of(ring, result_id).errors) == 2
    assert ring.upkeep.check() == []
    while ring.counts().free_slots > SMALL.max_workers:
        put(ring)
    claim = ring.claim()
    assert claim is not None
    assert not ring.retry(claim, error=("app.Busy", "z" * 4000), due_ns=0)
    limit = f"{ring.segment.geometry.segment_bytes:,} bytes that SHM_SIZE allows. Raise SHM_SIZE."
    assert f"id={claim.result_id} path=tests.tasks.noop is not tried again" in caplog.text
    assert limit in caplog.text
    ring.finish(claim, successful=False, outcome=ring.encode(ERROR))
    assert ring.get(claim.result_id).outcome() == ERROR
    assert ring.upkeep.check() == []
    assert ring.get(filler).status == TaskResultStatus.READY


def test_a_damaged_history(ring: Ring, caplog: pytest.LogCaptureFixture) -> None:
    """Attempts that cannot be counted are the last; the log does not ask for more memory."""
    result_id = put(ring)
    assert retry(ring) == result_id
    claim = ring.claim()
    assert claim is not None
    start = claim.head.history_chain & at.EXTENT_SLOT_MASK
    ring.words[ring._table.offset(start) // 8 + 3] ^= 1
    assert not ring.retry(claim, error=ERROR, due_ns=0)
    assert "the history of its attempts is damaged" in caplog.text
    assert "SHM_SIZE" not in caplog.text


def test_evicted_results_make_room(rings: Rings) -> None:
    """As for anything else that is unfinished."""
    ring = rings.attach(SMALL)
    result_id = put(ring)
    claim = ring.claim()
    assert claim is not None
    kept = done(ring, outcome=bytes((ring.counts().free_slots - 4) * SMALL.slot_size))
    assert ring.retry(claim, error=("app.Busy", "x" * 4000), due_ns=0)
    with pytest.raises(TaskResultDoesNotExist):
        ring.get(kept)
    assert len(past_of(ring, result_id).errors[0][1]) == 4000
    assert ring.upkeep.check() == []


def test_an_interrupted_retry_is_completed(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its two stores its attempt is over: it is counted once, whatever comes next."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for second in ("retry", "finish"):
        result_id = put(ring)
        claim = ring.claim()
        assert claim is not None
        with monkeypatch.context() as patched:
            patched.setattr(retrying, "make_ready", interrupt)
            with pytest.raises(KeyboardInterrupt):
                ring.retry(claim, error=ERROR, due_ns=0)
        found = ring.get(result_id)
        assert (found.status, found.worker_id) == (TaskResultStatus.RUNNING, "")
        assert found.past is not None
        assert (len(found.past.workers), found.past.errors) == (1, (ERROR,))
        assert ring.upkeep.check() == []
        if second == "retry":
            assert ring.retry(claim, error=ERROR, due_ns=0)
            assert len(past_of(ring, result_id).workers) == 1
            assert run(ring) == result_id
        else:
            ring.finish(claim, successful=False, outcome=ring.encode(ERROR))
            assert ring.get(result_id).worker_id == ""
        assert ring.upkeep.check() == []


# --- by the process that settles a dead worker ------------------------------------------------


def test_lost_tasks_are_not_retried_unasked(ring: Ring, rings: Rings) -> None:
    """At most once is what holds."""
    result_id = put(ring)
    assert claim_and_die(rings, ring) == result_id
    found = ring.get(result_id)
    assert found.outcome()[0].endswith("WorkerLost")
    assert "It was not run again" in found.outcome()[1]
    assert found.past is None


def test_a_lost_task_is_tried_again(ring: Ring, rings: Rings) -> None:
    """After a pause that doubles, as often as its record says."""
    result_id = put_lost(ring, attempts=3)
    for number, pause_s in ((1, 1), (2, 2)):
        before_ns = time.time_ns()
        assert claim_and_die(rings, ring) == result_id
        after_ns = time.time_ns()
        found = ring.get(result_id)
        assert found.status == TaskResultStatus.READY
        assert found.past is not None
        assert (len(found.past.workers), len(found.past.errors)) == (number, number)
        assert found.past.errors[-1][0].endswith("WorkerLost")
        assert "It is tried again" in found.past.errors[-1][1]
        assert before_ns <= ring.upkeep.next_due_ns() - pause_s * 10**9 <= after_ns
        assert ring.upkeep.check() == []
        make_due(ring, result_id)
    assert claim_and_die(rings, ring) == result_id
    found = ring.get(result_id)
    assert found.status == TaskResultStatus.FAILED
    assert "It was not run again" in found.outcome()[1]
    assert found.worker_id
    assert len(found.past.workers) == 2  # type: ignore[union-attr]
    assert ring.upkeep.check() == []


def make_due(ring: Ring, result_id: str) -> None:
    """Sets the moment back for which a task waits."""
    ring.words[ring._table.due + ring_address(result_id)[0]] = 10**18
    ring.upkeep.rebuild()


def test_its_outcome_is_given_up(ring: Ring, rings: Rings) -> None:
    """What a worker had written of a large result before it died."""
    free = ring.counts().free_slots
    result_id = put_lost(ring, arguments=((b"x" * 3000,), {}))
    taken = free - ring.counts().free_slots
    assert claim_and_die(rings, ring, write_outcome) == result_id
    assert ring.upkeep.check() == []
    assert ring.counts().free_slots == free - taken - 1
    make_due(ring, result_id)
    assert run(ring) == result_id
    assert ring.upkeep.check() == []


def write_outcome(mine: Any, result_id: str) -> None:
    """Dies in the middle of a large result."""
    claim = mine.claims[result_id]
    mine.ring._chaining.write_outcome(claim, Pickled.of(os.urandom(2000)), 5)


@pytest.mark.parametrize(
    ("loss", "again"),
    [
        (loss_word(Loss.TIMED_OUT), True),
        (loss_word(Loss.MEMORY, 2048, 2**20), True),
        (loss_word(Loss.CANCELLED, 1), False),
    ],
)
def test_what_was_killed(ring: Ring, rings: Rings, loss: int, again: bool) -> None:
    """By its pool, at a limit: as a worker that was lost. What was cancelled is not tried again."""
    result_id = put_lost(ring, attempts=2)
    worker = rings.peer(role=Role.WORKER)
    worker.do(peers.claim)
    (entry,) = (each for each in ring.registry.attachments() if each.index == worker.index)
    noted = ring.killing.run_of(entry)
    assert noted is not None
    assert ring.killing.note(noted, loss)
    worker.kill()
    ring.upkeep.settle_dead()
    found = ring.get(result_id)
    assert (found.status == TaskResultStatus.READY) is again
    assert ring._table.head(ring_address(result_id)[0]).stop == 0 or not again
    assert ring.upkeep.check() == []


def test_nobody_retries_for_the_living(ring: Ring) -> None:
    """Who is wrong about a death changes nothing."""
    put_lost(ring)
    claim = ring.claim()
    assert claim is not None
    ring.upkeep.settle(ring.registry.index)
    assert ring.get(claim.result_id).status == TaskResultStatus.RUNNING
    ring.finish(claim, successful=True, outcome=b"N.")
