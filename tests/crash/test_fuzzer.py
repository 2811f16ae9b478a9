"""The fuzzer itself: what it says where exclusion fails, and that its own notes are right."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.ring import Loss, Ring, Role, loss_word, ring_name, unlink_objects
from django_tasks_local.ring.format.head import S_STOP
from django_tasks_local.ring.records.loss import kill_note
from tests import rings as peers
from tests.crash import ledger as ledgers
from tests.crash.actor import LIMITS, Actor, live
from tests.crash.fuzz import Round
from tests.crash.ledger import INSIDE, Ledger
from tests.crash.monitor import Monitor
from tests.rings import Peer, put, ring_address
from tests.support import wait_for


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """That of a round with two processes."""
    made = Ledger(5, 10)
    yield made
    made.close()


@contextmanager
def living(body: Callable[[], object]) -> Iterator[int]:
    """A child that does something and then stays until the block ends; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
            signal.pause()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def stay_inside(ledger: Ledger, place: int) -> None:
    """Lives at a place and never leaves the inside."""
    ledger.take_place(place)
    Monitor(ledger, place).inside(signal.pause, ())


def test_who_is_inside_too_is_described(ledger: Ledger) -> None:
    """Two inside at a time are found, with all that shows which of them lost what."""
    name = ring_name("fuzz", uuid4().hex)
    try:
        monitor = Monitor(ledger, 1)
        monitor.segment = Ring(name, "fuzz", LIMITS, Role.SITE).segment
        with living(lambda: stay_inside(ledger, 0)) as pid:
            wait_for(lambda: ledger.field(0, INSIDE))
            assert monitor.inside(lambda: "done", ()) == "done"
    finally:
        unlink_objects(name)
    first, description, last = ledger.violations()
    assert first.endswith("place 0 is inside too, on the way in")
    assert f"pid {pid} with thread {pid} at 0" in description
    assert f"the ring is {monitor.segment.inode}, its guard is held by None" in description
    assert f"open in {pid}: " in description
    assert last.endswith("place 0 is inside too, on the way out")


def test_a_removed_ring_is_no_failure_of_the_mutex(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who removes the ring lets newcomers make another, with a guard of its own; that is said."""
    monkeypatch.setattr(Round, "_torment", lambda each: unlink_objects(each.name))
    each = Round("removed", 2, 1000.0, 60.0)
    try:
        each.run()
        said = [line.partition(": ")[2] for line in each.ledger.violations()]
    finally:
        each.ledger.close()
    assert "somebody else removed the ring: this round says nothing" in said
    assert not [line for line in said if "inside too" in line]


def test_a_newcomer_with_another_ring_leaves(ledger: Ledger) -> None:
    """It does not go inside beside those that have the ring of the round."""
    name = ring_name("fuzz", uuid4().hex)
    Ring(name, "fuzz", LIMITS, Role.SITE)
    ledger.has_ring(1)
    try:
        pid = os.fork()
        if pid == 0:
            try:
                live(name, ledger, 0, "seed", 0.0)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
    finally:
        unlink_objects(name)
    assert os.waitstatus_to_exitcode(status) == 1
    assert [line for line in ledger.violations() if "the ring was replaced" in line]


def test_the_second_who_waits_for_a_place_leaves_the_mark_of_the_first(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw that nobody lives there; one of them takes the place and goes inside."""

    def only_once(predicate: Callable[[], object], *_: Any) -> None:
        assert predicate()

    with living(lambda: stay_inside(ledger, 0)):
        wait_for(lambda: ledger.field(0, INSIDE))
        monkeypatch.setattr(ledger, "lives", lambda place: False)  # as it was a moment ago
        monkeypatch.setattr(ledgers, "wait_for", only_once)
        with pytest.raises(AssertionError):
            ledger.take_place(0)
        assert ledger.field(0, INSIDE)


class Evicted:
    """A record that is evicted once its arguments have been read."""

    finished_at_ns = 0
    metadata = b""
    past = None

    def arguments(self) -> tuple[tuple[int, bytes], dict[str, Any]]:
        """Those of task 0."""
        return (0, b""), {}

    @property
    def meta(self) -> bytes:
        """Not there any more."""
        raise TaskResultDoesNotExist


def test_a_record_may_go_while_it_is_compared(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no violation, whichever part is read last."""
    name = ring_name("fuzz", uuid4().hex)
    ring = Ring(name, "fuzz", LIMITS, Role.SITE)
    unlink_objects(name)
    monkeypatch.setattr(ring, "get", lambda result_id: Evicted())
    ledger.accepted(0, 1, 1)
    assert Actor(ring, ledger, 0, random.Random(0)).compare(0) == "GONE"
    assert ledger.violations() == []


@pytest.mark.parametrize("asked", [False, True], ids=["running", "asked-to-stop"])
@pytest.mark.parametrize("changed", [False, True], ids=["stands", "changed"])
def test_the_first_reason_for_a_kill_must_stand(ledger: Ledger, asked: bool, changed: bool) -> None:
    """A task that was cancelled before its kill was noted was cancelled; any change is found."""
    name = ring_name("fuzz", uuid4().hex)
    ring = Ring(name, "fuzz", LIMITS, Role.SITE)
    worker = Peer(lambda: Ring(name, "fuzz", LIMITS, Role.WORKER))
    try:
        worker.result()
        actor = Actor(ring, ledger, 0, random.Random(0))
        result_id = put(ring)
        assert worker.do(peers.claim) == result_id
        if asked:
            assert ring.cancel(result_id, running=True)[0]
        actor.note_kill()
        actor.look_at_noted()  # it has not ended yet
        assert ledger.total("noted") == 1
        if changed:
            other = Loss.MEMORY if asked else Loss.CANCELLED
            stop = ring._table.offset(ring_address(result_id)[0]) // 8 + S_STOP
            ring.words[stop] = kill_note(loss_word(other))
        worker.kill()
        actor.look_at_noted()
    finally:
        worker.kill()
        unlink_objects(name)
    assert len(ledger.violations()) == changed
