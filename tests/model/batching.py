"""Tasks that are enqueued together, and interrupted; a part of the machine in ``test_model``."""

from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import rule

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull
from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.store import Arguments
from tests.model.draws import interruptions, notes
from tests.model.keying import Keying
from tests.model.model import Record
from tests.model.world import SECOND_NS
from tests.rings import META, tally_of


class Batching(Keying):
    """A machine that enqueues several tasks at once."""

    @rule(
        sizes=st.lists(st.sampled_from([0, 0, 100, 450, 1500, 9000]), min_size=1, max_size=11),
        priority=st.sampled_from([-1, 0, 0, 100]), delay_s=st.sampled_from([0, 0, 0, 5]),
        noted=notes, fault=interruptions,
    )  # fmt: skip
    def enqueue_many(
        self, sizes: list[int], priority: int, delay_s: int, noted: int, fault: int
    ) -> None:
        """All of them are accepted or none, also where it is interrupted."""
        calls: list[Arguments] = [((bytes(size), uuid4().hex[:4]), {}) for size in sizes]
        data = [self.ring.encode(each) for each in calls]
        due_ns = self.clock.now_ns + delay_s * SECOND_NS if delay_s else 0
        wanted = [
            Record(each, len(META) + len(pickled), priority, due_ns, 0, metadata=bytes(noted))
            for each, pickled in zip(calls, data, strict=True)
        ]
        for record in wanted:
            record.code, record.serial = self.ring.registry.code, self.ring.registry.serial
        told: list[str] = []

        def operation() -> None:
            ids, _, _ = self.ring.bulk.put(
                META, data, priority=priority, due_ns=due_ns, metadata=bytes(noted), tally=tally
            )
            told.extend(format_id(*words) for words in ids)

        before, tally = list(self.model.records), tally_of(self.ring)
        try:
            interrupted = self.interrupted(fault, operation)
        except (QueueFull, PayloadTooLarge):
            assert not self.model.accepts_many(wanted)
            return
        if interrupted:
            self.after_interruption()
            told = [key for key in self.look.found_ids() if key not in before]
            told.sort(key=self.look.sequence)
            assert len(told) in (0, len(wanted))
            for result_id, record in zip(told, wanted, strict=False):
                assert self.ring.get(result_id).arguments() == record.arguments
        else:
            assert self.model.accepts_many(wanted)
        for result_id, record in zip(told, wanted, strict=False):
            self.model.enqueue(result_id, record)
