"""Random operations, deaths and interruptions: the ring does what the model does."""

import os
import pickle
import tempfile
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull
from django_tasks_local.ring import MEMORY, Limits, Ring, Role, ring_name, unlink_objects
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.store import Arguments, StopAsked, time_limit_word
from tests import rings as peers
from tests.model.draws import interruptions, notes, sizes
from tests.model.dying import Dying
from tests.model.faults import Fault, attach_with_faults
from tests.model.model import FAILED, LOST, READY, RUNNING, SUCCESSFUL, Model, Record
from tests.model.world import SECOND_NS, Clock, Look
from tests.rings import META, Peer

# 3 workers, 6 results, 9 waiting, 46 slots: every limit is reached within a few steps.
LIMITS: Final = Limits(3, 6, 9, 512, at.COLUMNS_AT + 63_296, result_ttl_s=15, failure_ttl_s=30)
# The same examples each time; a number of them in the environment searches for new ones.
ASKED: Final = os.environ.get("DTL_MODEL_EXAMPLES")
EXAMPLES: Final = int(ASKED or "120")
# Hypothesis makes a failing example smaller for up to five minutes. Cut short it says "flaky".
pytestmark = pytest.mark.time_limit(420 + EXAMPLES)


class RingMachine(Dying):
    """One ring, this process and up to two others that can be killed."""

    def __init__(self) -> None:
        super().__init__()
        # In a directory, since it is to survive a restart; on no disk, for speed.
        self.directory = tempfile.TemporaryDirectory(prefix="dtl-model-", dir=MEMORY)
        self.name = ring_name("model", uuid4().hex, self.directory.name)
        self.clock = Clock()
        self.model = Model(LIMITS)
        self.claims: dict[str, Any] = {}
        self.peers: list[Peer] = []
        self.dead: list[int] = []

    @initialize()
    def begin(self) -> None:
        self.attach()

    def attach(self, writes: int = 0) -> None:
        self.ring, self.faults = attach_with_faults(self.name, LIMITS, writes)
        self.look = Look(self.ring)
        # Two releases, and a site of the first that came last.
        self.sites = [self.ring, *(self.site(path) for path in ("/green", ""))]

    def site(self, path: str) -> Ring:
        return Ring(self.name, "model", LIMITS, Role.SITE, path=path)

    def teardown(self) -> None:
        self.clock.close()
        for peer in self.peers:
            peer.kill()
        unlink_objects(self.name)
        self.directory.cleanup()

    def interrupted(self, writes: int, operation: Callable[[], object]) -> bool:
        """Does an operation; True where it was interrupted at the given write."""
        self.faults.arm(writes)
        try:
            operation()
        except Fault:
            return True
        finally:
            self.faults.arm(0)
        return False

    # --- enqueue ------------------------------------------------------------------------------

    @rule(
        size=sizes,
        priority=st.sampled_from([-100, -1, 0, 0, 0, 63, 100]),
        delay_s=st.one_of(st.just(0), st.just(0), st.integers(-5, 20)),
        number=st.integers(0, 2),
        noted=notes,
        lost_attempts=st.sampled_from([0, 0, 1, 2, 4]),
        fault=interruptions,
    )
    def enqueue(
        self, size: int, priority: int, delay_s: int, number: int, noted: int,
        lost_attempts: int, fault: int,
    ) -> None:  # fmt: skip
        """A task of any size, priority, time and code; it may be interrupted at any write."""
        site = self.sites[number]
        arguments: Arguments = ((bytes(size), uuid4().hex[:4]), {})
        data = self.ring.encode(arguments)
        due_ns = self.clock.now_ns + delay_s * SECOND_NS if delay_s else 0
        wanted = Record(arguments, len(META) + len(data), priority, max(due_ns, 0), 0)
        if due_ns <= self.clock.now_ns:
            wanted.due_ns = 0
        wanted.code, wanted.serial = site.registry.code, site.registry.serial
        wanted.metadata, wanted.lost_attempts = os.urandom(noted), lost_attempts
        told: list[str] = []

        def operation() -> None:
            result_id, _ = site.enqueue(
                META, data, priority=priority, due_ns=due_ns, metadata=wanted.metadata,
                time_limit=time_limit_word(None, 0, lost_attempts), tally=number and tally,
            )  # fmt: skip
            told.append(result_id)

        waiting, tally = self.model.waiting(), peers.tally_of(site)
        try:
            interrupted = self.interrupted(fault, operation)
        except (QueueFull, PayloadTooLarge):
            assert not self.model.accepts(wanted.request_bytes, wanted.metadata)
            return
        if interrupted:
            self.after_interruption()
            told = [key for key in self.look.found_ids() if key not in self.model.records]
            assert len(told) <= 1
            if told:
                self.model.enqueue(told[0], wanted)
            return
        assert waiting < LIMITS.max_pending
        assert self.model.accepts(wanted.request_bytes, wanted.metadata)
        self.model.enqueue(told[0], wanted)

    # --- claim and finish -------------------------------------------------------------------

    def serials(self) -> list[int]:
        """Serials below, between and above those of the sites."""
        return [0, *(site.registry.serial for site in self.sites), 2**32 - 1]

    @rule(data=st.data(), code=st.integers(0, 1), fault=interruptions)
    def clear(self, data: st.DataObject, code: int, fault: int) -> None:
        """The pool of a code has compared its files with those of newer sites."""
        serial = data.draw(st.sampled_from(self.serials()[1:4]))
        site = self.sites[code]
        if serial >= self.model.runnable_up_to[code]:
            if self.interrupted(fault, lambda: site.upkeep.set_runnable_up_to(serial)):
                self.after_interruption()
            self.model.runnable_up_to[code] = site.codes.field(code, at.C_RUNNABLE_UP_TO)

    @precondition(lambda self: self.may_claim())
    @rule(data=st.data(), code=st.integers(-1, 1), adopts=st.booleans(), fault=interruptions)
    def claim(self, data: st.DataObject, code: int, adopts: bool, fault: int) -> None:
        """This process takes the next task that a share of it allows."""
        share = None
        if code >= 0:
            runnable_up_to, bound = (data.draw(st.sampled_from(self.serials())) for _ in range(2))
            adopted = bound << at.CODES | 1 << 1 - code if adopts else 0
            share = at.Share(code, runnable_up_to, adopted)
        taken: list[Any] = []
        if self.interrupted(fault, lambda: taken.append(self.ring.claim(share))):
            first = self.model.first(share)  # before what the next one rebuilds
            self.after_interruption()
            self.adopt_promotions()
            running = [key for key, state in self.look.found_states().items() if state == RUNNING]
            new = [key for key in running if self.model.records[key].status == READY]
            assert new in ([], [first], [self.model.first(share)])
            for key in new:  # it runs until this process ends: nobody holds its claim
                self.model.records[key].status = RUNNING
                self.model.records[key].owner = self.ring.registry.index
            return
        expected = self.model.claim(self.ring.registry.index, self.clock.now_ns, share)
        if expected is None:
            assert taken == [None]
        else:
            assert taken[0].result_id == expected
            assert taken[0].arguments() == self.model.records[expected].arguments
            self.claims[expected] = taken[0]

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), size=sizes, successful=st.booleans(), fault=interruptions)
    def finish(self, data: st.DataObject, size: int, successful: bool, fault: int) -> None:
        """A result of any size; where it has no room a small error must have some."""
        result_id = data.draw(st.sampled_from(list(self.claims)))
        claim = self.claims[result_id]
        record = self.model.records[result_id]
        if record.asked:
            with pytest.raises(StopAsked):
                self.ring.finish(claim, successful=successful, outcome=b"N.")
        successful = successful and not record.asked
        status = SUCCESSFUL if successful else FAILED
        outcome = os.urandom(size)
        encoded = pickle.dumps(outcome)
        self.model.drop_outcome(result_id)
        try:
            interrupted = self.interrupted(fault, lambda: self.ring.finish(
                claim, successful=successful, outcome=encoded, cancelled=record.asked
            ))  # fmt: skip
        except PayloadTooLarge:
            assert not self.model.has_room(result_id, len(encoded))
            status, outcome = FAILED, bytes(LIMITS.slot_size - 100)
            encoded = pickle.dumps(outcome)
            self.ring.finish(claim, successful=False, outcome=encoded, cancelled=record.asked)
            interrupted = False
        if interrupted:
            self.after_interruption()
            state = self.look.found_states().get(result_id)
            if state == RUNNING:  # it may have chained the slots for its result already
                record.slots = self.look.slots(result_id)
                return
            # Its own end may have been what was interrupted in evicting.
            assert state == status
        else:
            assert self.model.has_room(result_id, len(encoded))
        self.model.finish(result_id, status, outcome, len(encoded), self.clock.now_ns)
        del self.claims[result_id]

    # --- reading ------------------------------------------------------------------------------

    @precondition(lambda self: self.model.records)
    @rule(data=st.data(), fault=interruptions)
    def get(self, data: st.DataObject, fault: int) -> None:
        """Any record reads as the model has it; a finished one is then the most recent."""
        result_id = data.draw(st.sampled_from(list(self.model.records)))
        record = self.model.records[result_id]
        lost = record.owner in self.dead
        found: list[Any] = []
        expired: list[Any] = []

        def operation() -> None:
            try:
                found.append(self.ring.get(result_id))
            except TaskResultDoesNotExist as error:
                expired.append(error)

        if self.interrupted(fault, operation):
            self.after_interruption()
            order = self.look.recency()
            self.model.read(result_id)
            assert order in (list(self.model.kept), self.kept_before)
            self.model.kept = type(self.model.kept).fromkeys(order)
            return
        if lost:
            self.settle_in_model(record.owner)
            if result_id not in self.model.records:
                return
        if self.model.expired(result_id, self.clock.now_ns):
            assert expired
            return
        assert not expired
        self.model.read(result_id)
        status = FAILED if record.status == LOST else record.status
        assert found[0].status.name == status
        assert found[0].meta == META
        assert found[0].metadata == record.metadata
        self.look.compare_attempts(found[0].past, record)
        assert found[0].cancelled == (record.asked and found[0].finished_at_ns > 0)
        self.look.compare_arguments(found[0], record.arguments, record.dropped)
        if record.status in (SUCCESSFUL, FAILED):
            assert found[0].outcome() == record.outcome
        elif record.status == LOST:
            reason = ".MemoryExceeded" if record.noted else ".WorkerLost"
            reason = ".TaskCancelled" if record.asked else reason
            assert found[0].outcome()[0].endswith(reason)
        else:
            assert found[0].finished_at_ns == 0

    @rule(slot=st.integers(0, 2**24 - 1), low=st.integers(0, 2**38 - 1), high=st.integers(0, 2**60))
    def get_nonsense(self, slot: int, low: int, high: int) -> None:
        """An id that was never given out leads nowhere."""
        with pytest.raises(TaskResultDoesNotExist):
            self.ring.get(format_id(high, 0b10 << 62 | slot << 38 | low))

    # --- time, other processes, deaths ------------------------------------------------------

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int) -> None:
        """Deferred tasks fall due, and results expire."""
        self.clock.now_ns += seconds * SECOND_NS

    @rule(fault=interruptions)
    def sweep(self, fault: int) -> None:
        """The pool looks for expired results; none of them has to go before another."""
        if self.interrupted(fault, self.ring.expiry.sweep):
            assert self.ring.upkeep.check() == []
            self.model.sweep(self.clock.now_ns, but=self.look.found_ids())
            self.after_interruption()
        else:
            self.model.sweep(self.clock.now_ns)

    @rule(fault=interruptions)
    def promote(self, fault: int) -> None:
        """What has fallen due takes its place."""
        if self.interrupted(fault, self.ring.upkeep.promote):
            self.after_interruption()
            self.adopt_promotions()
        else:
            self.model.promote(self.clock.now_ns)

    @rule()
    def rebuild(self) -> None:
        """Everything derived is made anew, and nothing changes but lanes."""
        self.ring.upkeep.rebuild()
        self.adopt_lanes()

    @rule(fault=st.integers(1, 40))
    def rebuild_interrupted(self, fault: int) -> None:
        """A rebuild may be interrupted too."""
        self.interrupted(fault, self.ring.upkeep.rebuild)
        assert self.ring.upkeep.check() == []
        self.adopt_lanes()

    @rule()
    def repair(self) -> None:
        """There is nothing to repair."""
        assert self.ring.upkeep.repair() == []
        self.adopt_lanes()

    # --- what must hold -----------------------------------------------------------------------

    @invariant()
    def sound(self) -> None:
        """The audit finds nothing, and statuses, order, recency and counts are the model's."""
        if not hasattr(self, "ring"):
            return
        assert self.ring.upkeep.check() == []
        model = self.model
        assert self.look.found_states() == {key: each.status for key, each in model.records.items()}
        assert self.look.recency() == list(model.kept)
        for key, record in model.records.items():
            assert self.look.metadata(key) == record.metadata
        assert all(self.look.dropped(key) == model.records[key].dropped for key in model.kept)
        assert self.look.lanes() == {key: model.records[key].lane for key in model.queue()}
        self.look.compare_listing(self.ring, model)
        self.keys_are_held()
        counts = self.ring.counts()
        assert counts.free_slots == model.free()
        assert counts.waiting + counts.deferred == model.waiting()
        assert counts.kept == len(model.kept) <= LIMITS.max_results


TestRing = RingMachine.TestCase
TestRing.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=40, deadline=None, derandomize=not ASKED,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
