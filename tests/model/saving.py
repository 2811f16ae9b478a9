"""Metadata that are replaced at random, and interrupted."""

import os
from collections.abc import Callable

from django.tasks.exceptions import TaskResultDoesNotExist
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from django_tasks_local.exceptions import PayloadTooLarge
from tests.model.adopting import Adopting
from tests.model.draws import interruptions, notes


class Saving(Adopting):
    """A machine whose tasks have metadata."""

    def interrupted(self, writes: int, operation: Callable[[], object]) -> bool:
        """Call an operation that is interrupted at one of its writes; whether it was."""
        raise NotImplementedError

    @precondition(lambda self: self.model.records)
    @rule(data=st.data(), noted=notes, fault=interruptions)
    def save_metadata(self, data: st.DataObject, noted: int, fault: int) -> None:
        """Any process gives a task in any state other metadata, or takes them away."""
        result_id = data.draw(st.sampled_from(list(self.model.records)))
        before, metadata = self.model.records[result_id].metadata, os.urandom(noted)
        claim = self.claims.get(result_id) if data.draw(st.booleans()) else None
        try:
            interrupted = self.interrupted(
                fault, lambda: self.ring.save_metadata(result_id, metadata, claim)
            )
        except TaskResultDoesNotExist:
            assert self.model.expired(result_id, self.clock.now_ns)
            return
        except PayloadTooLarge:
            assert not self.model.saves(result_id, metadata)
            return
        if not interrupted:
            assert not self.model.expired(result_id, self.clock.now_ns)
            assert self.model.saves(result_id, metadata)
            return
        assert self.ring.upkeep.check() == []
        if self.look.recency()[-1:] == [result_id]:
            self.model.read(result_id)
        self.after_interruption()
        if result_id in self.model.records:
            found = self.look.metadata(result_id)
            assert found in (before, metadata)
            if found == metadata:
                self.model.saved(result_id, metadata)
