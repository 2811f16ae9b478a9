"""What is in a ring, seen without its lock and without a trace: for people and for monitors."""

import time
from collections.abc import Callable, Collection, Iterator
from time import sleep
from typing import Final, NamedTuple

from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.records.expiry import Lifetimes
from django_tasks_local.ring.records.listing import Listing
from django_tasks_local.ring.records.reader import STATUSES, Found, Reader
from django_tasks_local.ring.records.schedule import Row
from django_tasks_local.ring.records.table import Table
from django_tasks_local.ring.shm.entries import Entry
from django_tasks_local.ring.shm.lock import GUARD, ByteLock
from django_tasks_local.ring.shm.mutex import look_inside
from django_tasks_local.ring.shm.registry import Registry
from django_tasks_local.ring.shm.segment import look_at_segment
from django_tasks_local.store import Snapshot

from .format import layout as at
from .format.tally import Tally

# A process leaves the inside within a millisecond, a rebuild excepted.
LOOKS: Final = 4
BETWEEN_LOOKS_S: Final = 0.005


class Counts(NamedTuple):
    """What is in the ring right now: tasks, then slots, then bytes."""

    waiting: int
    deferred: int
    running: int
    kept: int
    evicted: int
    expired: int
    lost: int
    killed: int
    free_slots: int
    reserved_slots: int
    slots: int
    reserved_bytes: int
    segment_bytes: int

    @classmethod
    def of(cls, table: Table) -> "Counts":
        """Return those of a ring; each number is true for some recent moment."""
        words, geometry = table.words, table.geometry
        reserved = table.slots.reserved()
        return cls(
            table.order.waiting(),
            words[at.H_DEFERRED],
            words[at.H_RUNNING],
            words[at.H_FINISHED],
            words[at.H_EVICTED],
            words[at.H_EXPIRED],
            words[at.H_LOST],
            words[at.H_KILLED],
            words[at.H_FREE],
            reserved,
            geometry.slots,
            at.COLUMNS_AT + reserved * (geometry.slot_size + at.COLUMN_BYTES_PER_SLOT),
            geometry.segment_bytes,
        )


class Look:
    """One ring, seen by who is not attached: it makes nothing and waits for nobody.

    Args:
        table: The ring's records.
        alias: The alias of the backend, for worker ids.
    """

    def __init__(self, table: Table, alias: str) -> None:
        self.name = table.segment.name
        self.registry = Registry(table.segment)
        self._table = table
        self._reader = Reader(table, alias)
        self._lifetimes = Lifetimes(table)
        self._guard = ByteLock(table.segment.fd, GUARD)

    @classmethod
    def into(cls, name: str, alias: str) -> "Look | None":
        """Return a look into the ring of that name, None where there is none.

        Raises:
            StoreUnavailable: It is not ours, or no ring of this layout.
        """
        segment = look_at_segment(name)
        return None if segment is None else cls(Table(segment), alias)

    def counts(self) -> Counts:
        """Return what is in the ring: each number is true for some recent moment."""
        return Counts.of(self._table)

    def tallies(self) -> list[Tally]:
        """Return the counters of the tasks that METRICS counts; first those of all others."""
        return self._table.tallies.read()

    def pulse(self) -> tuple[int, ...]:
        """Return numbers that differ after each enqueue, claim, end and eviction."""
        words = self._table.words
        which = at.H_TICK, at.H_RUNNING, at.H_UNFINISHED, at.H_FINISHED, at.H_EVICTED, at.H_EXPIRED
        return tuple(words[each] for each in which)

    def failures(self) -> int:
        """Return how many of the finished tasks have failed; some of them may have expired."""
        failed = [s for s, status in STATUSES.items() if status is TaskResultStatus.FAILED]
        return Listing(self._table, self._reader).count(failed)

    def schedule(self) -> dict[int, Row]:
        """Return the rows of the schedule by the numbers of their entries' names."""
        return {row.name: row for row in self._table.schedule.rows()}

    def status(self, result_id: str) -> str | None:
        """Return the status of a task, None where there is no such result any more."""
        try:
            return str(self._reader.find(result_id).status.name)
        except (TaskResultDoesNotExist, StoreUnavailable):
            return None

    def attached(self) -> list[Entry]:
        """Return the living processes that are attached."""
        return [entry for entry in self.registry.attachments() if entry.alive]

    def running(self) -> Iterator[tuple[Found, bool]]:
        """Yield the tasks that run now, each with whether its worker lives.

        It reads every slot's commit word: for people, not for polls.
        """
        table = self._table
        column = table.words[table.commit : table.commit + table.slots.reserved()].tolist()
        for slot in [s for s, word in enumerate(column) if word >> at.STATE_SHIFT == at.RUNNING]:
            head = table.head(slot)
            try:
                found = self._reader.find_words(head.id_high, head.id_low)
            except (TaskResultDoesNotExist, StoreUnavailable):
                continue  # finished and evicted meanwhile; or damaged, which `check` tells
            if found.state == at.RUNNING:
                yield found, not self.is_orphan(found)

    def is_orphan(self, found: Snapshot) -> bool:
        """Return whether a task runs whose worker has died, which nobody has settled yet.

        Args:
            found: A record, as this look has given it.
        """
        assert isinstance(found, Found)
        if found.state != at.RUNNING:
            return False
        owner = found.word >> at.OWNER_SHIFT & at.OWNER_MASK
        return owner >= at.ENTRIES or not self.registry.alive(owner)

    def find(self, result_id: str) -> Found:
        """Return a record as it is now; it does not count as a use of a result.

        Raises:
            TaskResultDoesNotExist: Whatever string it is that names no record here; or it expired.
            StoreUnavailable: The record is damaged.
        """
        found = self._reader.find(result_id)
        self._lifetimes.refuse_expired(found)
        return found

    def listed(
        self, statuses: Collection[TaskResultStatus], accepts: Callable[[bytes], bool] | None,
        group: str = "",
    ) -> Iterator[Found]:  # fmt: skip
        """Return the records of these statuses, as `Ring.listed` does."""
        listing = Listing(self._table, self._reader)
        return self._lifetimes.without_expired(listing.of_status(statuses, accepts, group))

    def waiting(self) -> Iterator[tuple[int, Found]]:
        """Yield the tasks that are due, each with since when it may have been, Unix ns.

        The longest wait comes first. What was deferred keeps its moment until a worker has put it
        among those that are due. After that there is only the ``run_after`` of its task, and for
        one that is to be tried again the start of its latest attempt, which is given here.
        """
        due, now_ns = self._table.due, time.time_ns()
        since: list[tuple[int, Found]] = []
        for found in Listing(self._table, self._reader).records({at.READY}):
            due_ns = self._table.words[due + found.slot]
            if due_ns <= now_ns:
                past = found.past
                since_ns = past.last_started_at_ns if past else found.enqueued_at_ns
                since.append((max(due_ns, since_ns), found))
        yield from sorted(since, key=lambda each: each[0])

    def starts_in_vain(self) -> int:
        """Return how many starts of a pool in a row have not led to a task that ran."""
        return max(
            int(self._table.words[at.code_word(code, at.C_START_FAILURES)])
            for code in range(at.CODES)
        )

    def stuck_inside(self) -> int | None:
        """Return the pid of a process that has the lock and does not move; None for none.

        A pid of 0 or less stands for a process in another pid namespace.
        """
        first = look_inside(self._guard, self._table.words)
        for _ in range(LOOKS):
            if first is None:
                return None
            sleep(BETWEEN_LOOKS_S)
            if look_inside(self._guard, self._table.words) != first:
                return None
        return first.pid if first else None
