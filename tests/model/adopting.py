"""After an interruption the model takes over what may have happened or not."""

from typing import Any

from hypothesis.stateful import RuleBasedStateMachine

from django_tasks_local.ring import Ring
from tests.model.model import LOST, READY, RUNNING, Model
from tests.model.world import SECOND_NS, Clock, Look


class Adopting(RuleBasedStateMachine):
    """A machine with one ring, and a model that can be told what became of an operation."""

    ring: Ring
    look: Look
    clock: Clock
    model: Model
    claims: dict[str, Any]
    dead: list[int]

    def after_interruption(self) -> None:
        """The next one rebuilds; evictions in progress may have happened, in their order.

        What an operation settles, it settles first of all.
        """
        self.recover()
        self.adopt_deaths()
        self.adopt_evictions()
        self.model.adopt_drops(filter(self.look.dropped, list(self.model.kept)))
        self.adopt_lanes()
        for key in self.model.running():  # whose attempt may be over by now
            record = self.model.records[key]
            if self.look.found_states()[key] == RUNNING and not record.over:
                record.over = self.look.attempts(key) > record.attempts
                if record.over:
                    record.past, record.attempts = self.look.past(key), self.look.attempts(key)
                    record.slots = self.look.slots(key)

    def recover(self) -> None:
        """The next one rebuilds, and a pool evicts the one that an interrupted end left to it."""
        assert self.ring.upkeep.check() == []
        assert self.ring.counts().kept <= self.model.limits.max_results + 1
        self.ring.upkeep.trim()

    def adopt_lanes(self) -> None:
        self.model.adopt_lanes(self.look.lanes())

    def adopt_evictions(self) -> None:
        found = self.look.found_ids()
        while self.model.kept and next(iter(self.model.kept)) not in found:
            self.model.evict()
        assert set(self.model.records) <= set(found)
        self.kept_before = list(self.model.kept)

    def adopt_promotions(self) -> None:
        """Those that were promoted are the first that fell due."""
        for key in sorted(self.model.records, key=self.look.sequence):
            record = self.model.records[key]
            if record.status == READY and record.due_ns and not self.look.due(key):
                assert record.due_ns <= self.clock.now_ns
                record.due_ns = 0
                record.place = self.model.next_place()
                record.lane = self.look.lanes().get(key, -1)
        deferred = {k: r for k, r in self.model.records.items() if r.status == READY and r.due_ns}
        newest = deferred[max(deferred, key=self.look.sequence)] if deferred else None
        if newest and newest.place < max(each.place for each in deferred.values()):
            # It had got its new place, and went back into the heap with that.
            assert newest.due_ns <= self.clock.now_ns
            newest.place = self.model.next_place()

    def adopt_deaths(self) -> None:
        """What the dead ran may be settled, and may even be evicted."""
        found = self.look.found_states()
        for key in self.model.running():
            owner = self.model.records[key].owner
            if owner in self.dead and found.get(key) != RUNNING:
                self.settle_in_model(owner)

    def settle_in_model(self, index: int) -> None:
        if index in self.dead:
            self.dead.remove(index)
        for key in self.model.running():
            record = self.model.records[key]
            if record.owner == index and not self.lost_again(key):
                self.model.finish(key, LOST, None, 0, self.clock.now_ns)
        self.model.half_written.pop(index, None)

    def lost_again(self, key: str) -> bool:
        """Whether a task that was lost is tried again: as often as it may be, where there is room.

        Its pause doubles with each attempt.
        """
        record = self.model.records[key]
        if self.look.found_states().get(key) != READY:
            may = record.attempts + 1 < record.lost_attempts and not (record.asked or record.over)
            assert not may or not self.model.has_room_for_slots(record, 1)
            return False
        if not record.over:
            assert record.attempts + 1 < record.lost_attempts
            assert not record.asked
            assert self.model.has_room_for_slots(record, self.look.history_slots(key))
            assert self.look.attempts(key) == record.attempts + 1
            assert self.look.past(key)[-1][0].endswith(("WorkerLost", "MemoryExceeded"))
            pause_s = 2**record.attempts
            assert self.look.due(key) == self.clock.now_ns + pause_s * SECOND_NS
        self.retried(key, self.look.due(key))
        return True

    def retried(self, result_id: str, due_ns: int) -> None:
        """It waits again."""
        raise NotImplementedError
