"""What a record keeps outside its head slot: taken in the lock, copied outside it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format.head import inline_bytes
from django_tasks_local.ring.records.holder import Holder
from django_tasks_local.ring.records.payload import Pickled
from django_tasks_local.ring.records.reader import Found
from django_tasks_local.ring.records.slots import Wanted
from django_tasks_local.ring.records.table import Room
from django_tasks_local.ring.shm.errors import lost_hold
from django_tasks_local.store import task_path

from .format import layout as at
from .holders import Holders
from .operations import Request, Written
from .parts import Parts
from .refusals import Refusals
from .settling import AGAIN

type Small = Callable[[Request], int | Holder]
type Publish = Callable[[Request, Written], bool | Holder]


class Chaining:
    """Stores what does not fit a head slot. Each chain is taken in several short holds of the lock.

    Args:
        parts: The ring.
        refusals: What there is no room for.
        run: The way into the lock for a task that this process runs.
        holders: What is done about those that have keys.
    """

    def __init__(
        self, parts: Parts, refusals: Refusals, run: Callable[..., Any], holders: Holders
    ) -> None:
        self._table = parts.table
        self._size = parts.table.geometry.slot_size
        self._inline = inline_bytes(self._size)
        self._mutex = parts.mutex
        self._operations = parts.operations
        self._refusals = refusals
        self._run = run
        self._holders = holders
        self._abandoned: list[Written] = []  # by enqueues that could not free it themselves

    def enqueue(
        self, request: Request, small: Small | None = None, publish: Publish | None = None
    ) -> int:
        """Store a request that has metadata, ties or a key, or does not fit; return its slot.

        Args:
            request: The request.
            small: The operation for one that fits its head slot; None: the usual one.
            publish: The last operation for one that does not.

        Returns:
            0 for no room.

        Raises:
            KeyTaken: A task with its key waits or runs.
        """
        small = small or self._operations.enqueue_with_more
        publish = publish or self._operations.publish_chained
        chained = len(request.meta) + len(request.arguments) > self._inline
        if chained:
            request = request._replace(arguments=Pickled.of(request.arguments))
        while True:
            slot: int | Holder
            if chained:
                slot = self._enqueue_chained(request, publish)
            else:
                slot = self._mutex.run(small, request)
            if isinstance(slot, Holder):
                self._holders.refuse(slot)
            elif slot != AGAIN:
                return slot

    def write_outcome(self, found: Found, outcome: Pickled, count: int) -> int:
        """Store an outcome in `count` slots, and return its chain. Nothing commits it yet.

        Raises:
            PayloadTooLarge: There is no room for it.
        """
        owner_word = at.chain_word(found.slot, found.head.generation)
        wanted = Wanted(count, owner_word)
        # A small result or an error may use what is kept for the ends of tasks, and not what is
        # kept for follow-ups: where MAX_WORKERS was raised in a full ring, the former is not enough
        # for all workers.
        keep = self._table.kept() if count > 1 else self._table.words[at.H_HANDOVER]
        room = in_steps(self._run, self._operations.chain_outcome, found, wanted, keep)
        if room is Room.NONE:
            self._run(self._operations.drop_outcome_chain, found)
            raise self._refusals.of_outcome(task_path(found.meta), outcome, count)
        self._table.slots.write(wanted.chain, owner_word, outcome.parts)
        return wanted.chain

    def _enqueue_chained(self, request: Request, publish: Publish) -> int | Holder:
        operations = self._operations
        if request.key and (holder := self._mutex.run(operations.holder, request.key)):
            return holder
        size = len(request.meta) + len(request.arguments)
        count = at.slots_for(size, self._size)
        written = Written()
        run = self._mutex.run
        self._free_abandoned()
        try:
            room = in_steps(run, operations.begin_chained, request, written, count)
            for block in filter(None, (request.metadata, request.ties)):
                if room is Room.ENOUGH:
                    room = in_steps(run, operations.attach, written, block)
            if room is Room.ENOUGH:
                room = in_steps(run, operations.chain_request, written)
            if room is Room.NONE:
                run(operations.abandon, written)
                return 0
            self._table.slots.write(
                written.wanted.chain,
                at.chain_word(written.slot, written.generation),
                [request.meta, *request.arguments.parts],
            )
            published = run(publish, request, written)
            if isinstance(published, Holder):  # since it was looked for
                run(operations.abandon, written)
                return published
        except BaseException:
            self._abandoned.append(written)
            with suppress(StoreUnavailable):  # a process is frozen inside: another time
                self._free_abandoned()
            raise
        if not published:
            raise lost_hold(self._table.segment.path)
        return written.slot

    def _free_abandoned(self) -> None:
        """Give back what enqueues that were interrupted have left WRITING by us."""
        for written in list(self._abandoned):
            self._mutex.run(self._operations.abandon, written)
            with suppress(ValueError):  # another thread did it as well
                self._abandoned.remove(written)


def in_steps(run: Callable[..., Room], operation: Callable[..., Room], *args: Any) -> Room:
    """Return what an operation comes to that needs several short holds of the lock."""
    while (room := run(operation, *args)) is Room.MORE:
        pass
    return room
