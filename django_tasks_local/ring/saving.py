"""Metadata of records that are saved by any process, outside the mutex."""

from collections.abc import Callable
from functools import partial
from typing import Any

from .parts import Parts
from .records.claim import RingClaim
from .records.expiry import Expiry
from .records.reader import Found, does_not_exist
from .records.table import Room
from .refusals import Refusals
from .shm.errors import lost_hold


class Saving:
    """How one process saves metadata.

    Args:
        parts: The ring.
        refusals: What there is no room for.
        expiry: When finished records expire.
        run: The way into the lock for a task that this process runs.
    """

    def __init__(
        self, parts: Parts, refusals: Refusals, expiry: Expiry, run: Callable[..., Any]
    ) -> None:
        self._parts = parts
        self._refusals = refusals
        self._expiry = expiry
        self._run = run

    def save(self, result_id: str, metadata: bytes, claim: RingClaim | None = None) -> None:
        """Replace the metadata of a task: a reader sees the old or the new, never a mixture.

        Args:
            result_id: The task's.
            metadata: JSON, b"" for none.
            claim: The task as this process claimed it, where it is its worker.

        Raises:
            TaskResultDoesNotExist: There is no such record any more, or it has expired.
            PayloadTooLarge: There is no room for it. The old metadata stays.
            StoreUnavailable: Its worker is taken for dead, or the ring cannot be used.
        """
        parts = self._parts
        run: Callable[..., Any] = parts.mutex.run
        found: Found
        if claim is None:
            found = parts.reader.find(result_id)
            self._expiry.refuse_expired(found)
        elif claim.ours():
            parts.registry.hold(claim.pid)  # the task may have dropped our record locks
            found, run = claim, self._run
        else:
            raise lost_hold(parts.segment.path)
        block = self._refusals.block(metadata, found.meta)
        save = partial(parts.operations.save_metadata, found, block, as_owner=claim is not None)
        while (room := run(save)) is Room.MORE:
            pass
        if room is Room.NONE:
            raise self._refusals.of_metadata(block, found.meta)
        if room is None:
            raise lost_hold(parts.segment.path) if claim else does_not_exist(result_id)
