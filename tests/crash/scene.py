"""A ring for the crash tests, what is known of its tasks, and what must hold whatever died."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import uuid4

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import ArgumentsDropped
from django_tasks_local.ring import Limits, Ring, Role, ring_name, unlink_objects
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm.objects import MUTEX, open_semaphore
from django_tasks_local.store import time_limit_word
from tests.crash.derived import derived
from tests.crash.keyed import key_of
from tests.crash.noted import metadata_of
from tests.crash.retried import compare_attempts
from tests.crash.steps import die_in_child
from tests.rings import ring_address, tally_of

META: Final = b"tests.tasks:noop"
SLOT: Final = 512
# 46 slots: one snapshot is 640 KiB, so a state is put back in microseconds.
SMALL: Final = Limits(2, 8, 12, SLOT, at.COLUMNS_AT + 63_096)
# A step of slots and 64 more, for what grows.
GROWING: Final = Limits(2, 8, 12, SLOT, at.COLUMNS_AT + 657_656)
# The settings of another release.
GREEN: Final = "/green/settings.py"
MODULE: Final = "green.settings"
EVERY_CODE: Final = at.Share(0, 0, 2**at.CODES - 1)
FAR_NS: Final = 3_600_000_000_000  # never due while a test runs
# How soon somebody must be inside after the holder of the lock was killed: typically after 6 ms.
AT_ONCE_S: Final = 2.0

ENDS_OF_LOST: Final = (".WorkerLost", ".MemoryExceeded")
READY, RUNNING, SUCCESSFUL, FAILED, LOST, GONE = (
    "READY", "RUNNING", "SUCCESSFUL", "FAILED", "LOST", "GONE",
)  # fmt: skip


def small_value(number: int) -> Any:
    """Arguments that fit into a head slot."""
    return (number, "small"), {}


def large_value(number: int, slots: int = 3) -> Any:
    """Arguments that need a chain of so many slots."""
    return (number, bytes([number % 251]) * (SLOT * slots - 100)), {}


@dataclass
class Record:
    """What the test knows of one accepted task."""

    arguments: Any
    status: str
    priority: int = 0
    outcome: Any = None
    deferred: bool = False
    metadata: bytes = b""
    past: list[tuple[str, str]] = field(default_factory=list)  # errors of earlier attempts
    lost_again: bool = False  # it runs by a dead process, and is to be tried again


@dataclass
class Scene:
    """A ring of the test's own, this process's attachment to it, and its accepted tasks.

    Attributes:
        records: By id, in the order in which they were enqueued.
        finished: Ids of finished tasks, the least recently used first.
        claims: What this process has claimed.
        saved: Metadata that the dead operation may have given to any task.
        failed: How the dead operation may have failed an attempt of a task, to be tried again.
        later: Whether that task waits then until some time.
        moved: Those of which `verify` found that it has.
        extras: How many tasks of which nobody was told were there at the last verification.
    """

    limits: Limits = SMALL
    name: str = field(default_factory=lambda: ring_name("crash", uuid4().hex))
    records: dict[str, Record] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)
    saved: bytes | None = None
    failed: tuple[str, str] | None = None
    later: bool = False
    moved: list[str] = field(default_factory=list)
    extras: int = 0

    def __post_init__(self) -> None:
        self.ring = self.attach()
        self.snapshot = b""

    def attach(self, role: Role = Role.SITE, pool: int = -1, path: str = "") -> Ring:
        """One more attachment; for forked children, since a process has only one."""
        return Ring(self.name, "crash", self.limits, role, pool=pool, path=path)

    def close(self) -> None:
        """Removes the ring."""
        unlink_objects(self.name)

    def save(self, state: bytes = b"") -> bytes:
        """Remembers this state, or an earlier one; returns what was remembered before."""
        before, self.snapshot = self.snapshot, state or bytes(self.ring.segment.bytes)
        return before

    def dirty(self) -> bool:
        """Whether somebody died between two writes."""
        return bool(self.ring.words[at.H_DIRTY])

    def restore(self) -> None:
        """Puts every byte back; there is no wake-up for who waits for the mutex."""
        self.ring.segment.bytes[:] = self.snapshot
        registry = self.ring.registry
        registry.commit = registry.field(registry.index, at.E_COMMIT)  # it was ours then, too
        self.ring.upkeep.renew_semaphores()
        self.set_wake_ups(MUTEX, 0)
        self.ring.words[at.H_QUEUED] = 0

    def put_in_place(self, content: bytes | bytearray, semaphores: Mapping[str, int]) -> None:
        """Puts bytes there to which the saved ones have led, and the wake-ups of semaphores."""
        self.restore()
        self.ring.segment.bytes[:] = content
        for letters, number in semaphores.items():
            self.set_wake_ups(letters, number)

    def wake_ups(self, letters: str) -> int:
        """How many wake-ups a semaphore has."""
        return int(self._semaphore(letters).value)

    def set_wake_ups(self, letters: str, number: int) -> None:
        """Gives a semaphore so many, while nobody waits for one."""
        semaphore = self._semaphore(letters)
        while semaphore.value > number:
            semaphore.acquire(0)
        while semaphore.value < number:
            semaphore.release()

    def _semaphore(self, letters: str) -> Any:
        held = self.ring.segment.semaphores
        if letters not in held:
            held[letters] = open_semaphore(self.ring.segment.semaphore_name + letters)
        return held[letters]

    # --- making a state -------------------------------------------------------------------

    def enqueue(
        self, arguments: Any, priority: int = 0, due_ns: int = 0, site: Ring | None = None,
        lost_attempts: int = 0,
    ) -> str:  # fmt: skip
        """Accepts a task."""
        ring, metadata = site or self.ring, metadata_of(arguments)
        result_id, _ = ring.enqueue(
            META, ring.encode(arguments), priority=priority, due_ns=due_ns, metadata=metadata,
            time_limit=time_limit_word(None, 0, lost_attempts), key=key_of(arguments),
            tally=tally_of(ring),
        )  # fmt: skip
        record = Record(arguments, READY, priority, deferred=due_ns > 0, metadata=metadata)
        self.records[result_id] = record
        return result_id

    def claim(self) -> str:
        """Claims the next task for this process."""
        claim = self.ring.claim()
        assert claim is not None
        self.claims[claim.result_id] = claim
        self.records[claim.result_id].status = RUNNING
        return claim.result_id

    def finish(self, result_id: str, outcome: Any, successful: bool = True) -> None:
        """Finishes what this process claimed."""
        ring = self.ring
        ring.finish(self.claims.pop(result_id), successful=successful, outcome=ring.encode(outcome))
        record = self.records[result_id]
        record.status, record.outcome = SUCCESSFUL if successful else FAILED, outcome
        self.finished.append(result_id)

    def done(self, arguments: Any, outcome: Any, successful: bool = True) -> str:
        """A task that is finished already."""
        result_id = self.enqueue(arguments, priority=100)
        assert self.claim() == result_id
        self.finish(result_id, outcome, successful)
        return result_id

    def lose_a_worker(self, body: Callable[[Ring, Any], object] = lambda ring, claim: None) -> str:
        """A task that is RUNNING by a process that is dead; `body` is what it had done so far."""
        result_id = self.next_up()[0]

        def work() -> None:
            ring = self.attach(Role.WORKER)
            claim = ring.claim()
            assert claim is not None
            assert claim.result_id == result_id
            body(ring, claim)

        die_in_child(work)
        self.records[result_id].status = LOST
        return result_id

    def next_up(self) -> list[str]:
        """Ids of the READY tasks that are due, in the order in which they must be claimed."""
        ready = [key for key, each in self.records.items() if each.status == READY]
        due = [key for key in ready if not self.records[key].deferred]
        return sorted(due, key=lambda key: -self.records[key].priority)

    # --- what must hold -------------------------------------------------------------------

    def verify(self, allowed: dict[str, set[str]], extra: Any = None, order: bool = True) -> None:
        """Checks the ring after a death, acts on it, and checks it again.

        Args:
            allowed: For ids whose status the dead operation may have changed: what is right now.
            extra: Arguments of a task that may be there though nobody was told its id; or a list
                of those of several, of which all are there or none.
            order: Results go in the order of their use.
        """
        started = time.monotonic()
        self.ring.attachment.become(Role.SITE)  # takes the lock, whatever the dead left of it
        self.ring.upkeep.settle_dead()
        assert time.monotonic() - started < AT_ONCE_S
        assert all(each.alive for each in self.ring.registry.attachments())
        self.assert_sound()
        self.moved = []
        statuses = {key: self.status_of(key) for key in self.records}
        before = dict(self.records)
        for key in self.moved:  # it waits behind the others
            self.records[key] = replace(self.records.pop(key), deferred=self.later)
        for key, record in self.records.items():
            right = allowed.get(key, {record.status})
            if record.status in (SUCCESSFUL, FAILED):
                right = right | {GONE}
            assert statuses[key] in right, f"{key} is {statuses[key]}, not one of {right}"
        kept = [key for key in self.finished if statuses[key] != GONE]
        assert not order or kept == self.finished[-len(kept) or 99 :], "eviction out of order"
        self.verify_keys(statuses)
        self.drain(statuses, extra)
        self.assert_sound()
        self.records = before

    def assert_sound(self) -> None:
        """The ring's own audit finds nothing, and rebuilding what is derived changes nothing."""
        assert self.ring.upkeep.check() == []
        start = at.H_MODULE * 8 + 8
        noted = self.ring.segment.bytes[start : start + self.ring.words[at.H_MODULE]]
        assert noted in (b"", MODULE.encode())
        losses = self.ring.upkeep.losses
        assert losses.may_be_there(EVERY_CODE) or not losses._untold_slots()
        while self.ring.words[at.H_DISCARDED]:  # a rebuild would free the rest as well
            self.ring._mutex.run(self.ring._table.slots.free_discarded)
        before = derived(self.ring)
        self.ring.upkeep.rebuild()
        assert derived(self.ring) == before

    def assert_newest_or_ready(self, result_id: str) -> None:
        """A task that was cancelled in the queue is the most recent result, or waits still."""
        self.ring.attachment.become(Role.SITE)  # as `verify` does
        table, slot = self.ring._table, ring_address(result_id)[0]
        assert table.state(slot) == at.READY or table.words[at.H_NEWEST] == slot

    def status_of(self, result_id: str) -> str:
        """A task's status, after its arguments and outcome were compared."""
        record = self.records[result_id]
        try:
            found = self.ring.get(result_id)
        except TaskResultDoesNotExist:
            return GONE
        assert found.meta == META
        assert found.metadata in (record.metadata, self.saved)
        if compare_attempts(found, record, self.failed) and not record.lost_again:
            self.moved.append(result_id)
        try:
            assert found.arguments() == record.arguments
        except ArgumentsDropped:
            assert found.finished_at_ns
        if not found.finished_at_ns:
            return str(found.status.name)
        outcome = found.outcome()
        if found.status.name == "FAILED" and outcome[0].endswith(ENDS_OF_LOST):
            return LOST
        if record.outcome is not None:
            assert outcome == record.outcome
        return str(found.status.name)

    def verify_keys(self, statuses: dict[str, str]) -> None:
        """A task that waits or runs holds its key, and none that has ended."""
        keys = self.ring._table.keys
        for result_id, record in self.records.items():
            if key := key_of(record.arguments):
                holds = keys.find(key) == ring_address(result_id)[0]
                assert holds == (statuses[result_id] in (READY, RUNNING))

    def drain(self, statuses: dict[str, str], extra: Any) -> None:
        """Runs all that waits: in the right order, each once, and it leaves nothing unfinished."""
        waiting = [key for key in self.next_up() if statuses[key] == READY]
        order = []
        extras = extra if isinstance(extra, list) else [extra] * (extra is not None)
        left = list(extras)
        while (claim := self.ring.claim()) is not None:
            if claim.result_id not in self.records:
                assert left, "a task that nobody enqueued"
                assert claim.arguments() == left[0]
                assert claim.metadata == metadata_of(left.pop(0))
            else:
                order.append(claim.result_id)
                assert claim.arguments() == self.records[claim.result_id].arguments
            self.ring.finish(claim, successful=True, outcome=self.ring.encode("drained"))
            found = self.ring.get(claim.result_id)
            assert (found.outcome(), found.past, bool(found.worker_id)) == (
                "drained", claim.past, True,
            )  # fmt: skip
        assert order == waiting
        counts = self.ring.counts()
        running = [key for key, status in statuses.items() if status == RUNNING]
        ready = [each for key, each in self.records.items() if statuses[key] == READY]
        deferred = [each for each in ready if each.deferred]
        assert counts.waiting == 0
        assert counts.running == len(running)
        self.extras = len(extras) - len(left) + counts.deferred - len(deferred)
        assert self.extras in (0, len(extras)), "some of them, and not all"
        new_id, _ = self.ring.enqueue(META, self.ring.encode(((), {})), priority=0, due_ns=0)
        assert self.ring.get(new_id).arguments() == ((), {})
