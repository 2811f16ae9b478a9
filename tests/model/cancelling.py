"""The rule by which the model cancels tasks; a part of the machine in ``test_model``."""

from contextlib import suppress
from typing import Any

from django.tasks.exceptions import TaskResultDoesNotExist
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.model.draws import interruptions
from tests.model.model import LOST, READY, RUNNING
from tests.model.saving import Saving


class Cancelling(Saving):
    """A machine that cancels tasks."""

    @precondition(lambda self: self.model.records)
    @rule(data=st.data(), running=st.booleans(), fault=interruptions)
    def cancel(self, data: st.DataObject, running: bool, fault: int) -> None:
        """What waits is taken out, what runs is asked to stop, what has ended stays as it is."""
        result_id = data.draw(st.sampled_from(list(self.model.records)))
        record = self.model.records[result_id]
        answers: list[Any] = []

        def operation() -> None:
            with suppress(TaskResultDoesNotExist):
                answers.append(self.ring.cancel(result_id, running=running)[0])

        waits, expired = record.status == READY, self.model.expired(result_id, self.clock.now_ns)
        asks = record.status == RUNNING and running and not record.noted
        if self.interrupted(fault, operation):
            self.after_interruption()
            if record.status == RUNNING:
                record.asked = self.look.asked(result_id)
                return
            waits = waits and self.look.found_states().get(result_id) != READY
        else:
            assert answers == ([] if expired else [waits or asks])
            record.asked = record.asked or asks
        if waits:
            record.asked = record.told = True
            self.model.finish(result_id, LOST, None, 0, self.clock.now_ns)
