"""Unique tasks, enqueued at random, and interrupted; a part of the machine in ``test_model``."""

from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import rule

from django_tasks_local.exceptions import QueueFull
from django_tasks_local.ring.format import layout as at
from django_tasks_local.store import Arguments, KeyTaken
from tests.model.draws import interruptions, notes
from tests.model.model import READY, RUNNING, Record
from tests.model.retrying import Retrying
from tests.rings import META, ring_address, tally_of


class Keying(Retrying):
    """A machine some of whose tasks are unique."""

    def holder(self, key: bytes) -> str | None:
        """The task that has a key."""
        return next(
            (
                result_id
                for result_id, each in self.model.records.items()
                if each.key == key and each.status in (READY, RUNNING)
            ),
            None,
        )

    @rule(
        number=st.integers(0, 6), size=st.sampled_from([0, 300, 2000]), noted=notes,
        fault=interruptions,
    )  # fmt: skip
    def enqueue_unique(self, number: int, size: int, noted: int, fault: int) -> None:
        """It is refused while one with its key waits, or runs in a living process."""
        # The bits that choose a bucket are the same for some of them.
        key = (number % 4).to_bytes(15, "little") + bytes([number])
        arguments: Arguments = (bytes(size), uuid4().hex[:4]), {}
        data, metadata = self.ring.encode(arguments), bytes(noted)
        wanted = Record(arguments, 16 + len(META) + len(data), 0, 0, 0, key=key, metadata=metadata)
        wanted.code, wanted.serial = self.ring.registry.code, self.ring.registry.serial
        holder, told, taken = self.holder(key), [], []

        def operation() -> None:
            try:
                told.append(self.ring.enqueue(
                    META, data, priority=0, due_ns=0, metadata=metadata, key=key,
                    tally=tally_of(self.ring),
                )[0])  # fmt: skip
            except KeyTaken as error:
                taken.append(error.result_id)

        try:
            interrupted = self.interrupted(fault, operation)
        except QueueFull:
            self.adopt_death_of(holder)
            assert self.holder(key) is None
            assert not self.model.accepts(wanted.request_bytes, metadata)
            return
        if interrupted:
            self.after_interruption()
            told = [each for each in self.look.found_ids() if each not in self.model.records]
            assert len(told) <= 1
        elif holder is None or self.adopt_death_of(holder):
            assert not taken
            assert self.model.accepts(wanted.request_bytes, metadata)
        else:
            assert taken == [holder]
            assert not told
        if told:
            self.model.enqueue(told[0], wanted)

    def adopt_death_of(self, holder: str | None) -> bool:
        """Whether a holder was found dead, and settled with all that its process left."""
        owner = self.model.records[holder].owner if holder else -1
        if owner in self.dead:
            self.settle_in_model(owner)
            return True
        return False

    def keys_are_held(self) -> None:
        """By all that wait or run, and by nobody else."""
        held = {key for each in self.model.records.values() if (key := each.key)}
        for key in held:
            holder = self.holder(key)
            slot = self.ring._table.keys.find(key)
            assert slot == (ring_address(holder)[0] if holder else 0)
        count = sum(bool(each.key) and each.status in (READY, RUNNING)
                    for each in self.model.records.values())  # fmt: skip
        assert self.ring.words[at.H_KEYED] == count
