"""Tasks that are enqueued together, outside the mutex: all of them or none.

Each step inside takes well under 1 ms, see ``batch``; between two of them others get in, and the
records are written.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import repeat
from typing import Final, NamedTuple

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format.blocks import Block
from django_tasks_local.ring.format.head import (
    KEY_BYTES,
    PROGRESS_BYTES,
    S_ARGUMENTS_BYTES,
    S_META_BYTES,
    inline_bytes,
    seal_in_batch,
    words_in_batch,
)
from django_tasks_local.ring.format.ids import format_id, many_id_words, with_slot
from django_tasks_local.ring.records.follow_ups import Tied
from django_tasks_local.ring.records.payload import Pickled
from django_tasks_local.ring.records.slots import Wanted
from django_tasks_local.ring.records.table import Room
from django_tasks_local.ring.shm.errors import lost_hold
from django_tasks_local.store import task_path
from django_tasks_local.ties import Ties

from .attachment import Attachment
from .batch import Batch, BatchOperations, members
from .chaining import in_steps
from .format import layout as at
from .holders import Holders
from .operations import SOON_NS, Written
from .parts import Parts
from .refusals import Refusals
from .upkeep import Upkeep

# The two words of a result id.
type Id = tuple[int, int]

LOOKED_UP_AT_ONCE: Final = 64  # keys, in 0.2 ms


class Terms(NamedTuple):
    """What tasks that are enqueued together have in common."""

    meta: bytes
    priority: int
    time_limit: int
    block: Block | None
    tally: int
    ties: Tied | None


class Bulk:
    """Enqueues of many tasks by one process.

    Args:
        parts: The ring.
        refusals: What there is no room for.
        holders: What is done about those that have keys.
        attachment: This process's place in the ring.
        upkeep: Wakes workers.
    """

    def __init__(
        self, parts: Parts, refusals: Refusals, holders: Holders, attachment: Attachment,
        upkeep: Upkeep,
    ) -> None:  # fmt: skip
        self._semaphores = parts.semaphores
        self._attachment = attachment
        self._upkeep = upkeep
        self._table = parts.table
        self._words = parts.words
        self._bytes = parts.segment.bytes
        self._registry = parts.registry
        self._operations = parts.operations
        self._batches = BatchOperations(parts.table, parts.registry)
        self._run = parts.mutex.run
        self._refusals = refusals
        self._holders = holders
        self._size = parts.table.geometry.slot_size
        self._slots_at = parts.table.geometry.slots_at
        self._inline = inline_bytes(self._size)
        self._unsettled: list[Batch] = []  # that their threads could not settle themselves

    def held(self, keys: Sequence[bytes]) -> dict[int, str]:
        """Return which of the keys other tasks have: by place, the id of that task."""
        found: dict[int, str] = {}
        for start in range(0, len(keys), LOOKED_UP_AT_ONCE):
            some = keys[start : start + LOOKED_UP_AT_ONCE]
            for place, holder in enumerate(self._run(self._holders.of, some), start):
                if holder is not None and self._holders.still_holds(holder):
                    found[place] = format_id(holder.id_high, holder.id_low)
        if found:
            self._attachment.wait_for_disk()  # they may be on their way there
        return found

    def put(
        self, meta: bytes, arguments: Sequence[bytes | Pickled], *, priority: int, due_ns: int,
        time_limit: int = 0, metadata: bytes = b"", keys: Sequence[bytes] = (),
        ties: Ties | None = None, tally: int = 0,
    ) -> tuple[list[Id], dict[int, str], int]:  # fmt: skip
        """Store tasks that differ in their arguments and keys: all of them or none.

        Args:
            meta: As for `Ring.put`, and likewise the others.
            arguments: Those of each task.
            keys: That of each, b"" for none; or nothing.

        Returns:
            Their ids, two words each; by place the ids of other tasks, which got the keys of some
            since `held` was asked; and when they were enqueued (Unix ns).

        Raises:
            QueueFull: With them more than MAX_PENDING tasks would wait, or they fill SHM_SIZE.
            PayloadTooLarge: The arguments of one, or the metadata, could never fit.
            StoreUnavailable: Others took this process for dead, or the ring cannot be used.
        """
        if self._semaphores.work is None:
            self._attachment.take_code()
        self.settle_rest()
        now_ns = time.time_ns()
        block = self._refusals.block(metadata, meta) if metadata else None
        tied = self._refusals.tied(ties, meta) if ties else None
        terms = Terms(meta, priority, time_limit, block, tally, tied)
        arguments = self._fitted(meta, arguments, bool(keys))
        needed = self._needed(terms, arguments, bool(keys))
        tasks = zip(arguments, keys or repeat(b""), needed, strict=False)
        slots = len(needed) + sum(needed)
        due_ns = due_ns if due_ns > now_ns else 0
        handover = tied.handover if tied else 0
        batch = Batch(len(needed), slots, due_ns, any(keys), handover)
        try:
            ids = self._write(batch, terms, tasks, now_ns)
            if ids and not self._run(self._batches.commit, batch):
                raise lost_hold(self._table.segment.path)
            self._settle(batch)
        except BaseException:
            self._unsettled.append(batch)
            self.settle_rest()
            raise
        if not ids:
            raise self._refusals.of_batch(task_path(meta), needed, handover)
        if due_ns <= now_ns + SOON_NS:
            self._upkeep.wake(min(len(ids), self._upkeep.max_workers()))
        self._attachment.wait_for_disk()
        held = {place: format_id(each.id_high, each.id_low) for place, each in batch.held}
        return ids, held, now_ns

    def _fitted(
        self, meta: bytes, arguments: Sequence[bytes | Pickled], keyed: bool
    ) -> list[bytes | Pickled]:
        """Return arguments as `Pickled` where they do not fit a head slot behind the meta."""
        room = self._inline - len(meta) - keyed * KEY_BYTES
        return [
            data if type(data) is bytes and len(data) <= room else Pickled.of(data)
            for data in arguments
        ]

    def _needed(self, terms: Terms, arguments: Sequence[bytes | Pickled], keyed: bool) -> list[int]:
        """Return how many slots each task needs beside its head slot."""
        noted = sum(block.slots(self._size) for block in (terms.block, terms.ties) if block)
        meta = len(terms.meta) + keyed * KEY_BYTES
        return [
            noted if type(data) is bytes else noted + at.slots_for(meta + len(data), self._size)
            for data in arguments
        ]

    def _write(
        self, batch: Batch, terms: Terms, tasks: Iterable[tuple[bytes | Pickled, bytes, int]],
        now_ns: int,
    ) -> list[Id]:  # fmt: skip
        """Take slots for all tasks and write them; return no ids where there is no room for all."""
        run, batches = self._run, self._batches
        if in_steps(run, batches.begin, batch) is Room.NONE:
            return []
        if in_steps(run, batches.take, batch) is Room.NONE:
            return []
        queue = terms.tally | terms.priority - at.LOWEST_PRIORITY
        origin = self._registry.origin << 8 | queue
        rest = words_in_batch(batch.name, batch.due_ns)
        ids: list[Id] = []
        # Once for each of thousands of tasks: local names, and no further calls.
        view, words, base, size = self._bytes, self._words, self._slots_at, self._size
        table = self._table
        common, time_limit = terms.meta, terms.time_limit
        each = zip(self._places(batch), tasks, many_id_words(batch.count), strict=False)
        for (slot, generation), (data, key, beside), (high, low) in each:
            chain, meta = 0, key + common if key else common
            if beside:
                written = Written(slot, generation)
                if not self._attach(written, meta, data, terms):
                    return []
                chain = written.wanted.chain
                named = words[table.metadata.word(slot)], words[table.ties.word(slot)]
                rest = words_in_batch(batch.name, batch.due_ns, *named)
            id_low = with_slot(low, slot)
            sealed = seal_in_batch(
                high, id_low, generation, now_ns, origin | at.KEYED if key else origin, meta, data,
                chain, time_limit, rest,
            )  # fmt: skip
            offset = base + slot * size
            view[offset : offset + len(sealed)] = sealed
            # Bytes of an earlier record must not pass for this one's progress.
            words[(offset + size - PROGRESS_BYTES) // 8] = 0
            ids.append((high, id_low))
        return ids

    def _places(self, batch: Batch) -> Iterator[tuple[int, int]]:
        """Yield the head slots of a batch with their generations, as long as they are ours."""
        for run in batch.runs:
            if not self._batches.is_mine(run):
                raise lost_hold(self._table.segment.path)
            yield from members(run)

    def _attach(
        self, written: Written, meta: bytes, arguments: bytes | Pickled, terms: Terms
    ) -> bool:
        """Give a task its chains; False where there is no room for them."""
        owner_word = at.chain_word(written.slot, written.generation)
        written.wanted = Wanted(0, owner_word)
        if isinstance(arguments, Pickled):
            size = len(meta) + len(arguments)
            # A chain counts where a request of such a length cannot lie in the head slot.
            word = self._table.offset(written.slot) // 8
            self._words[word + S_META_BYTES] = len(meta)
            self._words[word + S_ARGUMENTS_BYTES] = len(arguments)
            written.wanted.count = at.slots_for(size, self._size)
            if in_steps(self._run, self._operations.chain_request, written) is Room.NONE:
                return False
            self._table.slots.write(written.wanted.chain, owner_word, [meta, *arguments.parts])
        return all(
            in_steps(self._run, self._operations.attach, written, block) is Room.ENOUGH
            for block in (terms.block, terms.ties)
            if block is not None
        )

    def _settle(self, batch: Batch) -> None:
        while not self._run(self._batches.settle, batch):
            pass

    def settle_rest(self) -> None:
        """Settle what was interrupted: free what was not accepted, make READY what was.

        Where another process is frozen inside the ring, that is left for the next call.
        """
        with suppress(StoreUnavailable):
            for batch in list(self._unsettled):
                self._settle(batch)
                with suppress(ValueError):  # another thread did it as well
                    self._unsettled.remove(batch)
