"""The rule by which the model has tasks tried again; a part of the machine in ``test_model``."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from django_tasks_local.store import StopAsked
from tests.model.cancelling import Cancelling
from tests.model.draws import interruptions
from tests.model.model import READY, RUNNING
from tests.model.world import SECOND_NS


class Retrying(Cancelling):
    """A machine whose tasks fail, and are tried again."""

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(), size=st.integers(0, 3000), delay_s=st.integers(-2, 20), fault=interruptions
    )
    def retry(self, data: st.DataObject, size: int, delay_s: int, fault: int) -> None:
        """Its attempt is counted once, and its error kept; where there is no room it is as it was.

        An interruption may come between the two stores that decide: then the next retry makes the
        second one.
        """
        result_id = data.draw(st.sampled_from(list(self.claims)))
        claim, record = self.claims[result_id], self.model.records[result_id]
        error = "app.Busy", "x" * size
        self.clock.now_ns += 1  # no two attempts of a worker begin at the same moment
        due_ns = self.clock.now_ns + delay_s * SECOND_NS if delay_s > 0 else 0
        answers: list[bool] = []

        def operation() -> None:
            answers.append(self.ring.retry(claim, error=error, due_ns=due_ns))

        if record.asked:
            with pytest.raises(StopAsked):
                operation()
            return
        if self.interrupted(fault, operation):
            self.after_interruption()
            if self.look.found_states()[result_id] == RUNNING:
                record.slots = self.look.slots(result_id)
                return
            answers = [True]
        elif not record.over:
            whole = [*record.past, error]
            if self.model.has_room_for_history(record, whole):
                assert answers == [True]
                assert self.look.past(result_id) == whole[:1] + whole[1:][-9:]
            elif answers[0]:
                count = self.look.history_slots(result_id)
                assert self.model.has_room_for_slots(record, count)
            else:
                assert not self.model.has_room_for_slots(record, 1)
        if answers == [True]:
            self.retried(result_id, self.look.due(result_id))
            del self.claims[result_id]

    def retried(self, result_id: str, due_ns: int) -> None:
        """It waits again, behind the others or until some time."""
        record = self.model.records[result_id]
        record.past, record.over = self.look.past(result_id), False
        record.attempts = self.look.attempts(result_id)
        record.status, record.owner, record.noted = READY, -1, False
        record.due_ns, record.place = due_ns, self.model.next_place()
        record.lane = -1 if due_ns else self.model.lane_of(record)
        record.slots = self.model.slots_before_end(record)
