"""Start states of a ring for the crash tests, and what must hold whatever died in them."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import uuid4

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import ArgumentsDropped
from django_tasks_local.ring import Limits, Ring, Role, ring_name, unlink_objects
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records.slots import Wanted
from tests.crash.derived import derived
from tests.crash.noted import metadata_of, noted
from tests.crash.steps import die_in_child
from tests.rings import ring_address
from tests.support import wait_for

META: Final = b"tests.tasks:noop"
SLOT: Final = 512
# 46 slots: one snapshot is 640 KiB, so a state is put back in microseconds.
SMALL: Final = Limits(2, 8, 12, SLOT, at.COLUMNS_AT + 58_632)
# A step of slots and 64 more, for what grows.
GROWING: Final = Limits(2, 8, 12, SLOT, at.COLUMNS_AT + 644_832)
# The settings of another release.
GREEN: Final = "/green/settings.py"
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


@dataclass
class Scene:
    """A ring of the test's own, this process's attachment to it, and its accepted tasks.

    Attributes:
        records: By id, in the order in which they were enqueued.
        finished: Ids of finished tasks, the least recently used first.
        claims: What this process has claimed.
        saved: Metadata that the dead operation may have given to any task.
    """

    limits: Limits = SMALL
    name: str = field(default_factory=lambda: ring_name("crash", uuid4().hex))
    records: dict[str, Record] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)
    saved: bytes | None = None

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
        """Puts every byte back, and the token if a dead process has it."""
        self.ring.segment.bytes[:] = self.snapshot
        registry = self.ring.registry
        registry.commit = registry.field(registry.index, at.E_COMMIT)  # it was ours then, too
        self.ring.upkeep.renew_semaphores()

    # --- making a state -------------------------------------------------------------------

    def enqueue(
        self, arguments: Any, priority: int = 0, due_ns: int = 0, site: Ring | None = None
    ) -> str:
        """Accepts a task."""
        ring, metadata = site or self.ring, metadata_of(arguments)
        result_id, _ = ring.enqueue(
            META, ring.encode(arguments), priority=priority, due_ns=due_ns, metadata=metadata
        )
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
            extra: Arguments of a task that may be there though nobody was told its id.
            order: Results go in the order of their use.
        """
        started = time.monotonic()
        self.ring.attachment.become(Role.SITE)  # takes the lock, whatever the dead left of it
        self.ring.upkeep.settle_dead()
        assert time.monotonic() - started < AT_ONCE_S
        assert all(each.alive for each in self.ring.registry.attachments())
        self.assert_sound()
        statuses = {key: self.status_of(key) for key in self.records}
        for key, record in self.records.items():
            right = allowed.get(key, {record.status})
            if record.status in (SUCCESSFUL, FAILED):
                right = right | {GONE}
            assert statuses[key] in right, f"{key} is {statuses[key]}, not one of {right}"
        kept = [key for key in self.finished if statuses[key] != GONE]
        assert not order or kept == self.finished[-len(kept) or 99 :], "eviction out of order"
        self.drain(statuses, extra)
        self.assert_sound()

    def assert_sound(self) -> None:
        """The ring's own audit finds nothing, and rebuilding what is derived changes nothing."""
        assert self.ring.upkeep.check() == []
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

    def drain(self, statuses: dict[str, str], extra: Any) -> None:
        """Runs all that waits: in the right order, each once, and it leaves nothing unfinished."""
        waiting = [key for key in self.next_up() if statuses[key] == READY]
        order = []
        while (claim := self.ring.claim()) is not None:
            if claim.result_id not in self.records:
                assert extra is not None, "a task that nobody enqueued"
                assert claim.arguments() == extra
                assert claim.metadata == metadata_of(extra)
                extra = None
            else:
                order.append(claim.result_id)
                assert claim.arguments() == self.records[claim.result_id].arguments
            self.ring.finish(claim, successful=True, outcome=self.ring.encode("drained"))
            assert self.ring.get(claim.result_id).outcome() == "drained"
        assert order == waiting
        counts = self.ring.counts()
        running = [key for key, status in statuses.items() if status == RUNNING]
        ready = [each for key, each in self.records.items() if statuses[key] == READY]
        deferred = [each for each in ready if each.deferred]
        assert counts.waiting == 0
        assert counts.running == len(running)
        assert len(deferred) <= counts.deferred <= len(deferred) + (extra is not None)
        new_id, _ = self.ring.enqueue(META, self.ring.encode(((), {})), priority=0, due_ns=0)
        assert self.ring.get(new_id).arguments() == ((), {})


# --- the states ----------------------------------------------------------------------------


def empty(scene: Scene) -> None:
    """Nothing was ever in it."""


def waiting(scene: Scene) -> None:
    """Tasks of several priorities, and a few results."""
    scene.done(small_value(1), "one")
    scene.done(small_value(2), ("app.Error", "text"), successful=False)
    for number, priority in ((3, 0), (4, 7), (5, 0), (6, -100)):
        scene.enqueue(small_value(number), priority)


def running(scene: Scene) -> None:
    """Two tasks that run, one of them by a dead process."""
    scene.done(small_value(1), "one")
    scene.enqueue(small_value(2))
    scene.claim()
    scene.enqueue(small_value(3))
    scene.lose_a_worker(lambda ring, claim: claim.report(1, 2, "half"))
    scene.enqueue(small_value(4))
    scene.enqueue(small_value(5), 3)


def full(scene: Scene) -> None:
    """Results fill every slot, so whoever needs one must evict."""
    scene.enqueue(small_value(0))
    number = 1
    while scene.ring.counts().free_slots > scene.limits.max_workers:
        spare = scene.ring.counts().free_slots - scene.limits.max_workers
        slots = max(0, min(8, spare - 1))
        scene.done(small_value(number), bytes(SLOT * slots - 60) if slots else None)
        number += 1


def crowded(scene: Scene) -> None:
    """Arguments of results fill every slot: some of them go before any result does."""
    scene.enqueue(small_value(0))
    scene.done(small_value(1), "small")
    number = 2
    while scene.ring.counts().free_slots > scene.limits.max_workers:
        spare = scene.ring.counts().free_slots - scene.limits.max_workers
        slots = max(0, min(8, spare - 1))
        scene.done(large_value(number, slots) if slots else small_value(number), "small")
        number += 1


def deferred(scene: Scene) -> None:
    """Tasks that wait for their time, and two whose time has just come."""
    scene.done(small_value(1), "one")
    now_ns = time.time_ns()
    for number, delay_ns in ((2, FAR_NS), (3, 20_000_000), (4, 2 * FAR_NS), (5, 20_000_001)):
        scene.enqueue(small_value(number), due_ns=now_ns + delay_ns)
    due = list(scene.records)[2], list(scene.records)[4]
    wait_for(lambda: time.time_ns() > now_ns + 21_000_000)
    for key in due:
        scene.records[key].deferred = False


def chained(scene: Scene) -> None:
    """Large payloads, whole ones and those of the dead."""
    scene.done(large_value(1), "a" * 1000)
    scene.done(large_value(2), "small")
    scene.enqueue(large_value(3))

    def half_a_result(ring: Ring, claim: Any) -> None:
        ring._operations.chain_outcome(claim, Wanted(3, ring._table.owner_word(claim.slot)), 0)

    scene.lose_a_worker(half_a_result)
    scene.enqueue(large_value(4, 2))

    def half_a_request() -> None:
        ring = scene.attach()
        ring._table.slots.write = lambda *_: os.kill(os.getpid(), 9)  # type: ignore[method-assign]
        ring.enqueue(META, ring.encode(large_value(5)), priority=0, due_ns=0)

    die_in_child(half_a_request)


def holes(scene: Scene) -> None:
    """No two free slots are neighbours, and large payloads lie in single ones."""
    number = 1
    scene.ring.attachment.set_limits(replace(scene.limits, max_results=100))
    while scene.ring.counts().free_slots > scene.limits.max_workers:
        scene.done(small_value(number), None)
        number += 1
    for key in scene.finished[::2]:
        scene.ring.get(key)
        scene.finished.remove(key)
        scene.finished.append(key)
    scene.ring.attachment.set_limits(replace(scene.limits, max_results=number // 2))
    scene.ring.upkeep.trim()
    scene.ring.attachment.set_limits(replace(scene.limits, max_results=100))
    scene.done(large_value(number), "a" * 1000)
    scene.enqueue(large_value(number + 1))


def codes(scene: Scene) -> None:
    """Tasks of two releases, in both lanes of the one, and one whose time comes later."""
    scene.done(small_value(1), "one")
    green = scene.attach(path=GREEN)
    scene.enqueue(small_value(2))
    scene.enqueue(small_value(3), 5, site=green)
    scene.ring.upkeep.set_runnable_up_to(scene.ring.registry.serial)
    scene.enqueue(small_value(4))
    scene.enqueue(small_value(5), site=green)
    scene.enqueue(small_value(6), due_ns=time.time_ns() + FAR_NS, site=green)


STATES: Final = {
    state.__name__: state
    for state in (empty, waiting, running, full, holes, crowded, deferred, chained, noted, codes)
}
