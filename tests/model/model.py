"""What a ring promises, as plain dictionaries: no slots, no links, no lock."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from django_tasks_local.ring import Limits
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import inline_bytes

READY, RUNNING, SUCCESSFUL, FAILED = "READY", "RUNNING", "SUCCESSFUL", "FAILED"
LOST: Final = "LOST"  # reads as FAILED


@dataclass
class Record:
    """One accepted task."""

    arguments: Any
    request_bytes: int
    priority: int
    due_ns: int
    place: int
    status: str = READY
    outcome: Any = None
    code: int = 0
    serial: int = 0  # of the site that enqueued it
    lane: int = -1  # where it waits, once it is due
    slots: int = 1
    owner: int = -1
    dropped: bool = False  # its arguments
    asked: bool = False  # to stop
    finished_at_ns: int = 0
    noted: bool = False  # its pool was about to kill its worker
    metadata: bytes = b""
    key: bytes = b""
    past: list[tuple[str, str]] = field(default_factory=list)  # errors that are kept of attempts
    attempts: int = 0  # how many there were before this one
    lost_attempts: int = 0  # up to so many, it is tried again where its worker dies
    over: bool = False  # its attempt has failed, and it is not READY yet
    told: bool = False  # its loss was announced, or is no concern of a worker's


@dataclass
class Model:
    """All records of a ring that never grows (its slots fit into one step)."""

    limits: Limits
    records: dict[str, Record] = field(default_factory=dict)
    kept: OrderedDict[str, None] = field(default_factory=OrderedDict)  # least recently used first
    places: int = 0
    runnable_up_to: list[int] = field(default_factory=lambda: [0] * at.CODES)
    half_written: dict[int, int] = field(default_factory=dict)  # slots, by the entry of a dead site

    # --- room -------------------------------------------------------------------------------

    def inline(self) -> int:
        """Payload bytes that fit a head slot."""
        return inline_bytes(self.limits.geometry.slot_size)

    def chained(self, size: int) -> int:
        """Slots of a chain, which has a table for its one piece."""
        return at.slots_for(size + 24, self.limits.slot_size)

    def free(self) -> int:
        """Slots that nobody occupies."""
        used = sum(record.slots for record in self.records.values())
        used += sum(self.half_written.values())
        return self.limits.geometry.slots - 1 - used

    def make_room(self, count: int, keep: int) -> bool:
        """Drops arguments of what has finished, then evicts; as few as possible, none in vain.

        The least recently used come first.
        """
        spare = self.free() + sum(self.records[each].slots for each in self.kept)
        if spare < count + keep:
            return False
        while self.free() < count:
            if not self.drop_arguments():
                self.evict()
        return True

    def drop_arguments(self) -> bool:
        """Drops those of the least recently used result that has any to drop."""
        droppable = [each for each in self.kept if self.may_drop(self.records[each])]
        if droppable:
            self.dropped(droppable[0])
        return bool(droppable)

    def may_drop(self, record: Record) -> bool:
        """Whether it has chained arguments still, in more than the slot that names the task."""
        return not record.dropped and self.request_slots(record) > 2

    def undroppable(self, record: Record) -> int:
        """Slots that stay its own when its arguments are dropped."""
        return record.slots - (self.request_slots(record) - 2 if self.may_drop(record) else 0)

    def dropped(self, result_id: str) -> None:
        """Of its request one chained slot is left, with what names the task."""
        record = self.records[result_id]
        record.slots = self.undroppable(record)
        record.dropped = True

    def adopt_drops(self, dropped: Iterable[str]) -> None:
        """An interruption may have come after some: they are the first that could be."""
        for key in dropped:
            if not self.records[key].dropped:
                assert self.drop_arguments()
                assert self.records[key].dropped

    def evict(self) -> None:
        """Forgets the least recently used result."""
        result_id, _ = self.kept.popitem(last=False)
        del self.records[result_id]

    # --- tasks ------------------------------------------------------------------------------

    def waiting(self) -> int:
        """READY tasks, due or not."""
        return sum(record.status == READY for record in self.records.values())

    def running(self) -> list[str]:
        """RUNNING tasks."""
        return [key for key, record in self.records.items() if record.status == RUNNING]

    def accepts(self, request_bytes: int, metadata: bytes = b"") -> bool:
        """Whether an enqueue succeeds; makes room for it if so."""
        if self.waiting() >= self.limits.max_pending:
            return False
        workers, noted = self.limits.max_workers, self.metadata_slots(metadata)
        if request_bytes > self.inline():
            return self.make_room(1 + self.chained(request_bytes) + noted, workers)
        if noted:
            return self.make_room(1 + noted, workers)
        return self.free() > workers or self.make_room(1, workers)

    def accepts_many(self, records: list[Record]) -> bool:
        """Whether these are accepted, all of them or none; makes room for them if so.

        While they are enqueued, they need one slot more.
        """
        if self.waiting() + len(records) > self.limits.max_pending:
            return False
        slots = sum(map(self.request_slots, records))
        slots += sum(self.metadata_slots(each.metadata) for each in records)
        return self.make_room(1 + slots, self.limits.max_workers)

    def enqueue(self, result_id: str, record: Record) -> None:
        """Adds what was accepted."""
        record.slots = self.slots_before_end(record)
        record.place = self.next_place()
        if not record.due_ns:
            record.lane = self.lane_of(record)
        self.records[result_id] = record

    def lane_of(self, record: Record) -> int:
        """Two lanes for each code: tasks of sites up to the one that may run, and of newer ones."""
        return 2 * record.code + (record.serial > self.runnable_up_to[record.code])

    def request_slots(self, record: Record) -> int:
        """Slots that a task occupies before its end."""
        large = record.request_bytes > self.inline()
        return 1 + (self.chained(record.request_bytes) if large else 0)

    def metadata_slots(self, metadata: bytes) -> int:
        """Slots of a block, which has two words in front."""
        return at.slots_for(16 + len(metadata), self.limits.slot_size) if metadata else 0

    def saves(self, result_id: str, metadata: bytes) -> bool:
        """Whether metadata is saved, the record being used by that; makes room for it if so.

        A result is never evicted for its own.
        """
        self.read(result_id)
        count = self.metadata_slots(metadata)
        own = self.undroppable(self.records[result_id]) if result_id in self.kept else 0
        if count and not self.make_room(count, max(self.limits.max_workers, own)):
            return False
        self.saved(result_id, metadata)
        return True

    def saved(self, result_id: str, metadata: bytes) -> None:
        """Replaces a record's metadata."""
        record = self.records[result_id]
        record.slots += self.metadata_slots(metadata) - self.metadata_slots(record.metadata)
        record.metadata = metadata

    def drop_outcome(self, result_id: str) -> None:
        """Whoever tries again to finish gives back what the first attempt had taken."""
        record = self.records[result_id]
        record.slots = self.slots_before_end(record)

    def slots_before_end(self, record: Record) -> int:
        """Slots that a task occupies before it has an outcome."""
        slots = self.request_slots(record) + self.metadata_slots(record.metadata)
        return slots + self.history_slots(record.past, record.attempts)

    def history_slots(self, errors: list[tuple[str, str]], attempts: int) -> int:
        """Slots of a history: two words in front, three numbers, workers, and errors."""
        texts = sum(8 + len(path) + len(text) for path, text in errors)
        return self.metadata_slots(bytes(24 + 8 * attempts + texts)) if errors else 0

    def has_room_for_history(self, record: Record, errors: list[tuple[str, str]]) -> bool:
        """Whether all errors of a record and a further attempt fit; makes room for them if so."""
        kept = errors[:1] + errors[1:][-9:]
        return self.has_room_for_slots(record, self.history_slots(kept, record.attempts + 1))

    def has_room_for_slots(self, record: Record, count: int) -> bool:
        """Whether a record's history may have so many slots; makes room for it if so."""
        given_back = self.history_slots(record.past, record.attempts)
        return self.make_room(count, max(0, self.limits.max_workers - given_back))

    def next_place(self) -> int:
        """The next place in any order."""
        self.places += 1
        return self.places

    def promote(self, now_ns: int) -> None:
        """What has fallen due takes its place, in the order of falling due."""
        due = [each for each in self.records.values() if each.status == READY and each.due_ns]
        for record in sorted(due, key=lambda each: (each.due_ns, each.place)):
            if record.due_ns <= now_ns:
                record.due_ns = 0
                record.place = self.next_place()
                record.lane = self.lane_of(record)

    def queue(self) -> list[str]:
        """What is READY and due, in the order in which it is claimed."""
        due = [
            key for key, each in self.records.items() if each.status == READY and not each.due_ns
        ]
        return sorted(due, key=lambda key: (-self.records[key].priority, self.records[key].place))

    def adopt_lanes(self, lanes: dict[str, int]) -> None:
        """A rebuild may have put what was allowed after it was enqueued into the other lane."""
        for key, lane in lanes.items():
            if key in self.records:
                record = self.records[key]
                assert lane in (record.lane, self.lane_of(record)) or record.lane < 0
                record.lane = lane

    def first(self, share: at.Share | None) -> str | None:
        """The next task that a share allows: the best of those that are first in their lanes."""
        heads: dict[int, str] = {}
        for key in self.queue():
            heads.setdefault(self.records[key].lane, key)
        allowed = [key for key in heads.values() if share is None or self.allows(share, key)]
        return next((key for key in self.queue() if key in allowed), None)

    def allows(self, share: at.Share, key: str) -> bool:
        """Whether a task may be claimed with a share, once it is the first of its lane."""
        record = self.records[key]
        if record.code != share.code:
            adopted = share.adopted >> record.code & 1
            return bool(adopted) and record.serial <= share.adopted >> at.CODES
        bound = self.runnable_up_to[record.code] if record.lane % 2 == 0 else record.serial
        return bound <= share.runnable_up_to

    def claim(self, owner: int, now_ns: int, share: at.Share | None = None) -> str | None:
        """The next task, RUNNING by `owner`."""
        self.promote(now_ns)
        key = self.first(share)
        if key is not None:
            self.records[key].status = RUNNING
            self.records[key].owner = owner
        return key

    def outcome_slots(self, result_id: str, outcome_bytes: int) -> int:
        """Slots that an outcome needs beyond the head slot."""
        request_bytes = self.records[result_id].request_bytes
        used = request_bytes if request_bytes <= self.inline() else 0
        fits = used + outcome_bytes <= self.inline()
        return 0 if fits else self.chained(outcome_bytes)

    def has_room(self, result_id: str, outcome_bytes: int) -> bool:
        """Whether an outcome fits; makes room for it if so."""
        count = self.outcome_slots(result_id, outcome_bytes)
        keep = self.limits.max_workers if count > 1 else 0
        return count == 0 or self.make_room(count, keep)

    def finish(
        self, result_id: str, status: str, outcome: Any, outcome_bytes: int, now_ns: int
    ) -> None:
        """Ends a task; beyond MAX_RESULTS the least recently used result goes."""
        record = self.records[result_id]
        self.drop_outcome(result_id)
        if status != LOST:
            record.slots += self.outcome_slots(result_id, outcome_bytes)
        record.status, record.outcome, record.owner = status, outcome, -1
        record.finished_at_ns = now_ns
        self.kept[result_id] = None
        while len(self.kept) > self.limits.max_results:
            self.evict()

    def expired(self, result_id: str, now_ns: int) -> bool:
        """Whether a result may not be read any more."""
        record = self.records[result_id]
        succeeded = record.status == SUCCESSFUL
        ttl_s = self.limits.result_ttl_s if succeeded else self.limits.failure_ttl_s
        assert ttl_s is not None
        return result_id in self.kept and record.finished_at_ns + ttl_s * 1e9 <= now_ns

    def sweep(self, now_ns: int, but: Iterable[str] = ()) -> None:
        """Forgets what has expired, but for what an interrupted sweep has left."""
        for key in [key for key in self.kept if self.expired(key, now_ns) and key not in but]:
            del self.kept[key], self.records[key]

    def read(self, result_id: str) -> None:
        """Reading makes a result the most recently used."""
        if result_id in self.kept:
            self.kept.move_to_end(result_id)
