"""What a model needs of the real ring: a clock to set, and a look that uses nothing."""

import time
from typing import Any, Final

import pytest
from django.tasks import TaskResultStatus

from django_tasks_local.exceptions import ArgumentsDropped
from django_tasks_local.ring import Ring
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.ring.records.loss import STOP_ASKED, TOLD
from django_tasks_local.ring.records.retrying import past_of
from tests.model.model import FAILED, LOST, READY, RUNNING, SUCCESSFUL, Model, Record
from tests.rings import ring_address

SECOND_NS: Final = 1_000_000_000
STATES: Final = {
    at.READY: READY, at.RUNNING: RUNNING, at.SUCCESSFUL: SUCCESSFUL, at.FAILED: FAILED,
    at.LOST: LOST,
}  # fmt: skip


class Clock:
    """A clock that the test sets, for all of this process and its children."""

    def __init__(self) -> None:
        self.now_ns = 1_700_000_000 * SECOND_NS
        self._real = time.time_ns
        # Not module by module, which would miss one that comes to ask for the time tomorrow.
        time.time_ns = lambda: self.now_ns

    def close(self) -> None:
        """Puts the real one back."""
        time.time_ns = self._real


class Look:
    """What is in a ring, read without using it."""

    def __init__(self, ring: Ring) -> None:
        self._words = ring.words
        self._table = ring._table

    def found_states(self) -> dict[str, str]:
        """The status of every record, by id."""
        found = {}
        for slot in range(1, self._table.slots.reserved()):
            state = self._table.state(slot)
            if state in STATES:
                found[self._id_of(slot)] = STATES[state]
        return found

    def found_ids(self) -> list[str]:
        """The ids of all records."""
        return list(self.found_states())

    def sequence(self, result_id: str) -> int:
        """A record's place in any order."""
        return int(self._words[self._table.sequence + ring_address(result_id)[0]])

    def due(self, result_id: str) -> int:
        """When a record falls due, 0 for now."""
        return int(self._words[self._table.due + ring_address(result_id)[0]])

    def slots(self, result_id: str) -> int:
        """How many slots a record occupies, with what an interrupted end has chained so far.

        They are counted along the chains: as long as a task runs, its head has no length for that.
        """
        slot = ring_address(result_id)[0]
        owner_word = self._table.owner_word(slot)
        return 1 + sum(
            length
            for chain in self._table.chains(slot)
            for _, length in self._table.slots.extents(chain, owner_word)
        )

    def asked(self, result_id: str) -> bool:
        """Whether a task is asked to stop."""
        head = self._table.head(ring_address(result_id)[0])
        return head.stop == STOP_ASKED

    def told(self, result_id: str) -> bool:
        """Whether a process has the loss of a task to announce."""
        return self._table.head(ring_address(result_id)[0]).stop == TOLD

    def dropped(self, result_id: str) -> bool:
        """Whether the arguments of a finished record were dropped."""
        return self._table.slots.is_cut(ring_address(result_id)[0])

    def compare_arguments(self, found: Any, arguments: Any, dropped: bool) -> None:
        """A record has its arguments, unless they were dropped."""
        if dropped:
            with pytest.raises(ArgumentsDropped):
                found.arguments()
        else:
            assert found.arguments() == arguments

    def compare_listing(self, ring: Ring, model: Model) -> None:
        """A list has what has not expired once, and what is due as the FIFOs have it."""
        assert self.queue() == model.queue()
        listed = [found.result_id for found in ring.listed(frozenset(TaskResultStatus), None)]
        there = [key for key in model.records if not model.expired(key, time.time_ns())]
        assert sorted(listed) == sorted(there)
        waiting = [key for key in listed if model.records[key].status == READY]
        assert [key for key in waiting if not self.due(key)] == model.queue()

    def metadata(self, result_id: str) -> bytes | None:
        """The metadata of a record."""
        slot = ring_address(result_id)[0]
        return self._table.metadata.current(slot, self._table.head(slot).generation)

    def compare_attempts(self, past: Any, record: Record) -> None:
        """Each attempt was counted, and the errors are those that are kept."""
        assert (len(past.workers) if past else 0) == record.attempts
        assert (list(past.errors) if past else []) == record.past

    def past(self, result_id: str) -> list[tuple[str, str]]:
        """The errors that a record keeps of earlier attempts."""
        past = past_of(self._table, ring_address(result_id)[0])
        return list(past.errors) if past else []

    def attempts(self, result_id: str) -> int:
        """How many attempts its history has."""
        past = past_of(self._table, ring_address(result_id)[0])
        return len(past.workers) if past else 0

    def history_slots(self, result_id: str) -> int:
        """How many slots its history occupies."""
        return self._table.history.slots_of(ring_address(result_id)[0])

    def recency(self) -> list[str]:
        """Finished records by use."""
        return self._follow(self._words[at.H_OLDEST])

    def queue(self) -> list[str]:
        """Waiting records in the order of being claimed, whosever they are."""
        found = [
            (-queue, self.sequence(key), key)
            for _, queue, head in self._fifos()
            for key in self._follow(head)
        ]
        return [key for _, _, key in sorted(found)]

    def lanes(self) -> dict[str, int]:
        """The lane of each waiting record."""
        return {key: lane for lane, _, head in self._fifos() for key in self._follow(head)}

    def _fifos(self) -> list[tuple[int, int, int]]:
        """Those that are not empty: lane, queue, first slot."""
        found = []
        for lane in range(at.LANES):
            start = at.LANES_AT + lane * at.LANE_WORDS + at.L_HEAD
            heads = self._words[start : start + at.PRIORITIES].tolist()
            found += [(lane, queue, head) for queue, head in enumerate(heads) if head]
        return found

    def _follow(self, slot: int) -> list[str]:
        link = self._table.geometry.column("link")
        path = []
        while slot:
            path.append(self._id_of(slot))
            slot = self._words[link + slot]
        return path

    def _id_of(self, slot: int) -> str:
        head = self._table.head(slot)
        return format_id(head.id_high, head.id_low)
