"""What a ring has no room for: the exceptions, with what would fit and what makes more room."""

from collections.abc import Sequence
from typing import Final

from django_tasks_local.exceptions import PayloadTooLarge, QueueFull
from django_tasks_local.store import task_path
from django_tasks_local.ties import Ties

from .format import layout as at
from .format.blocks import BLOCK_HEAD_BYTES, Block, most_bytes
from .operations import Request
from .records.follow_ups import FollowUps, Tied
from .records.payload import Pickled
from .records.reader import Found
from .records.table import Table
from .shm.errors import MORE_SHM, no_space
from .shm.mutex import Mutex

_AS_JSON: Final = "as JSON"


class Refusals:
    """Say what a ring has too little room for, and how much it has."""

    def __init__(self, table: Table, mutex: Mutex, alias: str, inline: int) -> None:
        self._table = table
        self._words = table.words
        self._mutex = mutex
        self._alias = alias
        self._inline = inline

    def of_request(self, request: Request) -> Exception:
        """Return why an enqueue was refused."""
        arguments, words, slots = Pickled.of(request.arguments), self._words, self._table.slots
        size = len(request.meta) + len(arguments)
        size += sum(block.size for block in (request.metadata, request.ties) if block)
        pending = words[at.H_UNFINISHED] - words[at.H_RUNNING]
        if pending >= words[at.H_MAX_PENDING]:
            return QueueFull(self._alias, pending, words[at.H_MAX_PENDING])
        largest = self._largest(request)
        if size > largest:
            what = "arguments and metadata" if request.metadata else "arguments"
            what, table = f"{what} of task {request.path}", arguments.table_bytes
            return PayloadTooLarge(what, size - table, largest - table)
        if slots.reserved() < slots.total and not self._mutex.run(slots.grow):
            return no_space(self._table.segment.path)
        bytes_in_all = self._table.geometry.segment_bytes
        return QueueFull(self._alias, pending, bytes_in_all, option="SHM_SIZE")

    def of_batch(self, paths: str, needed: Sequence[int], handover: int) -> Exception:
        """Return why tasks that are enqueued together were refused.

        Args:
            paths: The import path of the tasks.
            needed: How many slots each needs beside its head slot.
            handover: How many are to be kept for what follows any of them.
        """
        words, slots = self._words, self._table.slots
        count = len(needed)
        pending = words[at.H_UNFINISHED] - words[at.H_RUNNING]
        if pending + count > words[at.H_MAX_PENDING]:
            return QueueFull(self._alias, pending, words[at.H_MAX_PENDING], wanted=count)
        usable, size = self._usable_slots(handover) - 1, slots.size  # they have a record together
        if max(needed) > usable:
            return PayloadTooLarge(f"arguments of task {paths}", max(needed) * size, usable * size)
        if slots.reserved() < slots.total and not self._mutex.run(slots.grow):
            return no_space(self._table.segment.path)
        bytes_in_all = self._table.geometry.segment_bytes
        return QueueFull(self._alias, pending, bytes_in_all, option="SHM_SIZE", wanted=count)

    def of_outcome(self, path: str, outcome: Pickled, count: int) -> PayloadTooLarge:
        """Return why a return value that needs `count` slots was refused."""
        limit, fix = self._room(count, self._table.kept())
        table = outcome.table_bytes
        what, limit = f"return value of task {path}", max(limit - table, 0)
        return PayloadTooLarge(what, len(outcome) - table, limit, fix=fix)

    def of_metadata(self, block: Block, found: Found) -> PayloadTooLarge:
        """Return why the metadata of a task was refused when it was to be saved."""
        count = block.slots(self._table.geometry.slot_size)
        # Inside: outside, its slot may become another record's, and damage has no clear error.
        keep = self._mutex.run(self._table.kept_beside, found.slot)
        limit, fix = self._room(count, keep)
        what, limit = _metadata_of(found.meta), max(limit - BLOCK_HEAD_BYTES, 0)
        return PayloadTooLarge(what, len(block.data), limit, fix=fix, form=_AS_JSON)

    def block(self, metadata: bytes, meta: bytes) -> Block:
        """Return the metadata of a task as a block.

        Raises:
            PayloadTooLarge: An empty ring would have no room for it.
        """
        block, size = Block(metadata), self._table.geometry.slot_size
        usable = self._usable_slots() * size
        limit = min(most_bytes(size) + BLOCK_HEAD_BYTES, usable)
        if block.size > limit:
            option = "SHM_SIZE" if limit == usable else "SLOT_SIZE"
            what, limit = _metadata_of(meta), max(limit - BLOCK_HEAD_BYTES, 0)
            raise PayloadTooLarge(what, len(block.data), limit, option, form=_AS_JSON)
        return block

    def tied(self, ties: Ties, meta: bytes) -> Tied:
        """Return the ties of a task as a block.

        Raises:
            PayloadTooLarge: An empty ring would have no room for them, and what follows.
        """
        tied, size = FollowUps(self._table).block(ties), self._table.geometry.slot_size
        usable = self._usable_slots(tied.handover) * size
        limit = min(most_bytes(size) + BLOCK_HEAD_BYTES, usable)
        if tied.size > limit:
            option = "SHM_SIZE" if limit == usable else "SLOT_SIZE"
            what, limit = f"follow-ups of task {task_path(meta)}", max(limit - BLOCK_HEAD_BYTES, 0)
            raise PayloadTooLarge(what, len(tied.data), limit, option)
        return tied

    def _room(self, count: int, keep: int) -> tuple[int, str | None]:
        """Return how many bytes fit now that `count` slots were refused, and the fix.

        So many as `keep` are kept. The fix is None where SHM_SIZE is the limit.
        """
        words, slots = self._words, self._table.slots
        spare = words[at.H_FREE] + words[at.H_FINISHED_SLOTS] - keep
        unreserved = slots.total - slots.reserved()
        fix = None
        if count <= spare + unreserved:  # SHM_SIZE allows it, and the kernel gave no memory
            fix = MORE_SHM
        else:
            spare += unreserved
        # Others may have made room since: what was refused did not fit.
        return max(min(spare, count - 1), 0) * slots.size, fix

    def _largest(self, request: Request) -> int:
        """Return up to which size an empty ring would take a request with such metadata and ties.

        Each of these ends in a slot that it does not fill.
        """
        size = self._table.geometry.slot_size
        blocks = [block for block in (request.metadata, request.ties) if block]
        unfilled = sum(block.slots(size) * size - block.size for block in blocks)
        usable = self._usable_slots(request.ties.handover if request.ties else 0)
        return max(self._inline, usable * size - unfilled)

    def _usable_slots(self, handover: int = 0) -> int:
        """Return how many slots one task can have beside its head slot.

        Args:
            handover: What is to be kept for what follows it.
        """
        return self._table.slots.total - self._table.kept(handover) - 2


def _metadata_of(meta: bytes) -> str:
    return f"metadata of task {task_path(meta)}"
