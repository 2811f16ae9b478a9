"""The rules by which the model fires periodic tasks; a part of the machine in ``test_model``."""

import os
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import rule

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull
from django_tasks_local.ring import Due, Outcome, Row
from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.store import Arguments
from tests.model.batching import Batching
from tests.model.draws import interruptions, sizes
from tests.model.model import READY, RUNNING, Record
from tests.rings import META, tally_of

NAMES = (5, 6)
TIMING = 1


class Firing(Batching):
    """A machine with a schedule of two entries."""

    def rows(self) -> dict[int, Row]:
        """The schedule, which the first to ask makes."""
        if not self.ring.firing.rows():
            self.ring.firing.adopt([(name, TIMING) for name in NAMES], self.clock.now_ns)
        return self.ring.firing.rows()

    @rule(
        name=st.sampled_from(NAMES),
        size=sizes,
        noted=st.integers(1, 600),
        overlap=st.booleans(),
        fault=interruptions,
    )
    def fire(self, name: int, size: int, noted: int, overlap: bool, fault: int) -> None:
        """A time is settled with its task, or by being skipped, or not at all."""
        before = self.rows()[name]
        due = Due(before, before.settled_ns + 1, overlap)
        arguments: Arguments = ((bytes(size), uuid4().hex[:4]), {})
        data, metadata = self.ring.encode(arguments), os.urandom(noted)
        wanted = Record(arguments, len(META) + len(data), 0, 0, 0, metadata=metadata)
        wanted.code = self.ring.registry.code
        wanted.serial = self.ring.registry.serial
        last = self.model.records.get(format_id(before.id_high, before.id_low))
        skips = not overlap and last is not None and last.status in (READY, RUNNING)
        outcomes: list[Outcome] = []
        operation = self._firing(due, data, metadata, outcomes)
        try:
            interrupted = self.interrupted(fault, operation)
        except (QueueFull, PayloadTooLarge):
            assert not skips
            assert not self.model.accepts(wanted.request_bytes, metadata)
            assert self.rows()[name] == before
            return
        skipped = before._replace(settled_ns=due.time_ns, skipped=before.skipped + 1)
        if interrupted:
            self.after_interruption()
        else:
            assert outcomes == [Outcome.OVERLAPS if skips else Outcome.FIRED]
            assert skips or self.model.accepts(wanted.request_bytes, metadata)
        told = [key for key in self.look.found_ids() if key not in self.model.records]
        row = self.rows()[name]
        if told:
            self.model.enqueue(told[0], wanted)
            ids = {"id_high": row.id_high, "id_low": row.id_low}
            fired = before._replace(settled_ns=due.time_ns, last_ns=due.time_ns, **ids)
            assert row == fired
            assert told == [format_id(row.id_high, row.id_low)]
        elif skips:
            assert row == skipped or interrupted
            assert row.last_ns == before.last_ns
        else:
            assert interrupted
            assert row == before

    def _firing(
        self, due: Due, data: Any, metadata: bytes, outcomes: list[Outcome]
    ) -> Callable[[], None]:
        def operation() -> None:
            fire = self.ring.firing.fire
            outcomes.append(fire(
                due, META, data, priority=0, time_limit=0, metadata=metadata,
                tally=tally_of(self.ring),
            ))  # fmt: skip

        return operation

    @rule(data=st.data())
    def fire_too_late(self, data: st.DataObject) -> None:
        """Another pool has been faster."""
        name = data.draw(st.sampled_from(NAMES))
        row = self.rows()[name]
        due = Due(row._replace(settled_ns=row.settled_ns - 1), row.settled_ns, overlap=True)
        outcomes: list[Outcome] = []
        self._firing(due, self.ring.encode(((), {})), b"{}", outcomes)()
        assert outcomes == [Outcome.TOO_LATE]
        assert self.rows()[name] == row
