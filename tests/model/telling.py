"""Losses that are given out to be announced, at random, and interrupted."""

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import rule

from django_tasks_local.ring.format import layout as at
from tests.model.firing import Firing
from tests.model.model import LOST

# What a worker may announce that has adopted every code.
EVERY_CODE: Final = at.Share(0, 0, 2**at.CODES - 1)


class Telling(Firing):
    """A machine whose lost tasks are announced."""

    @rule(fault=st.one_of(st.just(0), st.integers(1, 6)))
    def announce(self, fault: int) -> None:
        """Each loss is given out once; what an interruption has left, the next look finds."""
        records, losses = self.model.records, self.ring.upkeep.losses
        lost = [key for key, each in records.items() if each.status == LOST and not each.told]
        assert losses.may_be_there(EVERY_CODE) or not lost
        told: list[str] = []

        def operation() -> None:
            told.extend(found.result_id for found in losses.take(EVERY_CODE))

        if self.interrupted(fault, operation):
            self.after_interruption()
            told = [key for key in lost if self.look.told(key)]
        else:
            assert sorted(told) == sorted(lost)
            assert not losses.may_be_there(EVERY_CODE)
        for key in told:
            records[key].told = True
