"""Metadata of tasks, replaced by their workers and by others; see ``metadata`` for the writes."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django_tasks_local.ring.records.claim import RingClaim
from django_tasks_local.ring.records.expiry import Expiry
from django_tasks_local.ring.records.reader import Found, does_not_exist
from django_tasks_local.ring.records.table import Room
from django_tasks_local.ring.shm.errors import lost_hold

from .parts import Parts
from .refusals import Refusals


class Saving:
    """How a process replaces metadata.

    Args:
        parts: The ring.
        refusals: What there is no room for.
        expiry: When finished results expire.
        run: The way into the lock for a task that this process runs.
    """

    def __init__(
        self, parts: Parts, refusals: Refusals, expiry: Expiry, run: Callable[..., Any]
    ) -> None:
        self._parts = parts
        self._refusals = refusals
        self._expiry = expiry
        self._run = run

    def save(self, result_id: str, metadata: bytes, claim: RingClaim | None) -> None:
        """Replace the metadata of a task; see `Ring.save_metadata`."""
        parts, path = self._parts, self._parts.segment.path
        run: Callable[..., Any] = parts.mutex.run
        found: Found
        if claim is None:
            found = parts.reader.find(result_id)
            self._expiry.refuse_expired(found)
        elif claim.ours():
            parts.registry.hold(claim.pid)  # the task may have dropped our record locks
            found, run = claim, self._run
        else:
            raise lost_hold(path)
        block = self._refusals.block(metadata, found.meta)
        save = partial(parts.operations.save_metadata, found, block, as_owner=claim is not None)
        while (room := run(save)) is Room.MORE:
            pass
        if room is Room.NONE:
            raise self._refusals.of_metadata(block, found.meta)
        if room is None:
            raise lost_hold(path) if claim else does_not_exist(result_id)
