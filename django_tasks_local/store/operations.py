"""What happens inside the mutex: each operation of the ring as its numbered writes.

The table of writes and commit points is in the package's docstring. Rule 3 holds for all: set
the dirty word first, commit with one store of W, then link.
"""

import time
import zlib
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from . import layout as at
from . import recovery
from .reader import Found, new_id_words
from .registry import Registry
from .table import Table

_REST_OF_HEAD = bytes(at.HEAD_BYTES - 72)
_CRC_WORD = Struct("<Q")
# What `claim` says where the next task was enqueued by a site with newer code than the worker's.
BLOCKED = -1


@dataclass(frozen=True, slots=True)
class Limits:
    """The options that a ring needs; see the table of options for their meaning."""

    max_workers: int
    max_results: int
    max_pending: int
    slot_size: int
    shm_size: int

    @property
    def geometry(self) -> at.Geometry:
        return at.Geometry.fitting(self.slot_size, self.shm_size)


class Request(NamedTuple):
    """One task to enqueue, with all that can be computed outside the lock."""

    meta: bytes
    arguments: bytes
    arguments_crc: int
    queue: int  # priority + 100
    due_ns: int  # 0: now
    now_ns: int


class Written(NamedTuple):
    """A slot that is WRITING by us."""

    slot: int
    generation: int
    chain: int


class Operations:
    """The operations, each to be run inside the mutex.

    An operation that must refuse says so by its return value before it has written anything: an
    exception would leave the ring dirty for the next one to rebuild.
    """

    def __init__(self, table: Table, registry: Registry, limits: Limits) -> None:
        self._table = table
        self._words = table.words
        self._bytes = table.bytes
        self._registry = registry
        self._limits = limits
        self._slots_at = table.geometry.slots_at
        self._size = table.geometry.slot_size
        # Enough for a small result or an error of every task that may run.
        self._reserve = limits.max_workers

    def enqueue(self, request: Request) -> tuple[int, int]:
        """Stores a request that fits its head slot; the id's halves, zeros where refused."""
        words = self._words
        if self._full() or (
            words[at.H_FREE] <= self._reserve and not self._table.make_room(1, self._reserve)
        ):
            return 0, 0
        words[at.H_DIRTY] = 1
        slot = self._table.slots.take_one()
        generation = words[at.H_TICK]
        words[at.H_TICK] = generation + 1
        words[at.H_UNFINISHED] += 1
        payload = request.meta + request.arguments
        return self._publish(request, Written(slot, generation, 0), payload)

    def begin_chained(self, request: Request, count: int) -> Written | None:
        """Takes a head slot and `count` chained ones, WRITING by us; None where refused."""
        words, table = self._words, self._table
        if self._full() or not table.make_room(1 + count, self._reserve):
            return None
        words[at.H_DIRTY] = 1
        slot = table.slots.take_one()
        generation = words[at.H_TICK]
        words[at.H_TICK] = generation + 1
        self._registry.set_field(at.E_WRITING, self._writing() + 1)
        word = (self._slots_at + slot * self._size) // 8
        words[word + at.S_META_BYTES] = len(request.meta)
        words[word + at.S_ARGUMENTS_BYTES] = len(request.arguments)
        words[word + at.S_ARGUMENTS_CHAIN] = 0
        words[table.commit + slot] = at.head_word(at.WRITING, generation, self._registry.index)
        chain = table.slots.take_chain(count, at.chain_word(slot, generation))
        words[word + at.S_ARGUMENTS_CHAIN] = chain
        words[at.H_UNFINISHED] += 1
        return Written(slot, generation, chain)

    def publish_chained(self, request: Request, written: Written) -> tuple[int, int]:
        """Makes READY what we have been WRITING; zeros where somebody took it from us."""
        word = self._words[self._table.commit + written.slot]
        if word != at.head_word(at.WRITING, written.generation, self._registry.index):
            return 0, 0
        self._words[at.H_DIRTY] = 1
        halves = self._publish(request, written, b"")
        self._registry.set_field(at.E_WRITING, self._writing() - 1)
        return halves

    def abandon(self, written: Written) -> None:
        """Frees what we have been WRITING."""
        word = self._words[self._table.commit + written.slot]
        if word == at.head_word(at.WRITING, written.generation, self._registry.index):
            self._words[at.H_DIRTY] = 1
            self._table.free(written.slot)
            self._words[at.H_UNFINISHED] -= 1
            self._registry.set_field(at.E_WRITING, self._writing() - 1)

    def claim(self, cleared: int | None) -> int:
        """Makes the next due record RUNNING by us; its slot, 0 for none, or BLOCKED."""
        words, table = self._words, self._table
        now_ns = time.time_ns()
        if words[at.H_DEFERRED]:
            table.order.promote(now_ns)
        slot, queue = table.order.first()
        if not slot:
            return 0
        offset = self._slots_at + slot * self._size
        if cleared is not None and words[offset // 8 + at.S_ORIGIN] >> 8 > cleared:
            return BLOCKED
        words[at.H_DIRTY] = 1
        generation = words[table.commit + slot] & at.GENERATION_MASK
        registry = self._registry
        worker = registry.pid << 32 | registry.serial
        crc = zlib.crc32(at.CLAIM.pack(generation, now_ns, worker))
        start = offset + at.S_STARTED_AT * 8
        self._bytes[start : start + 24] = at.CLAIM.pack(now_ns, worker, crc)
        registry.set_field(at.E_CURRENT, slot)
        words[table.commit + slot] = at.head_word(at.RUNNING, generation, registry.index)
        table.order.pop(queue)
        words[at.H_RUNNING] += 1
        return slot

    def take_outcome_chain(self, found: Found, count: int) -> int:
        """Chains `count` slots to a record that we run, for its result; 0 where refused."""
        words, table = self._words, self._table
        # A small result or an error may use the reserve: that is what it is kept for.
        keep = self._reserve if count > 1 else 0
        if words[table.commit + found.slot] != found.word or not table.make_room(count, keep):
            return 0
        words[at.H_DIRTY] = 1
        chain = table.slots.take_chain(count, table.owner_word(found.slot))
        words[table.offset(found.slot) // 8 + at.S_OUTCOME_CHAIN] = chain
        return chain

    def finish(self, found: Found, state: int, slots: int) -> bool:
        """Makes a record that we run SUCCESSFUL or FAILED; False where it is not ours any more."""
        words, table, slot = self._words, self._table, found.slot
        if words[table.commit + slot] != found.word:
            return False
        words[at.H_DIRTY] = 1
        table.recency.stamp(slot)
        words[table.commit + slot] = at.head_word(state, found.head.generation)
        table.link_finished(slot, slots, self._limits.max_results)
        return True

    def touch(self, slot: int, word: int) -> None:
        """Makes a finished record the most recently used, if it is still there."""
        words, recency = self._words, self._table.recency
        if words[self._table.commit + slot] == word and words[at.H_NEWEST] != slot:
            words[at.H_DIRTY] = 1
            recency.stamp(slot)
            recency.remove(slot)
            recency.append(slot)

    def reap(self, index: int, loss: int) -> int:
        """Settles what a dead entry left, if it still is dead; the slot of its lost task or 0."""
        registry = self._registry
        if registry.field(index, at.E_COMMIT) == 0 or registry.alive(index):
            return 0
        return recovery.reap(self._table, registry, index, loss, self._limits.max_results)

    def _publish(self, request: Request, written: Written, payload: bytes) -> tuple[int, int]:
        """Fills the head slot, commits it as READY and links it."""
        slot, generation, chain = written
        words, table = self._words, self._table
        high, low = new_id_words(slot)
        fields = at.REQUEST.pack(
            high, low, generation, request.now_ns, self._registry.serial << 8 | request.queue,
            len(request.meta), len(request.arguments), chain,
        )  # fmt: skip
        crc = request.arguments_crc << 32 | zlib.crc32(request.meta, zlib.crc32(fields))
        head = b"".join((fields, _CRC_WORD.pack(crc), _REST_OF_HEAD, payload))
        offset = self._slots_at + slot * self._size
        self._bytes[offset : offset + len(head)] = head
        due_ns = request.due_ns if request.due_ns > request.now_ns else 0
        words[table.sequence + slot] = generation
        words[table.due + slot] = due_ns
        words[table.commit + slot] = at.head_word(at.READY, generation)
        if due_ns:
            table.order.defer(slot)
        else:
            table.order.append(slot, request.queue)
        return high, low

    def _full(self) -> bool:
        words = self._words
        pending: int = words[at.H_UNFINISHED] - words[at.H_RUNNING]
        return pending >= self._limits.max_pending

    def _writing(self) -> int:
        return self._registry.field(self._registry.index, at.E_WRITING)
