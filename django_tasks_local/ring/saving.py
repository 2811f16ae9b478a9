"""Metadata that is saved while its task waits or runs, or afterwards."""

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
    """How a process saves metadata.

    Args:
        parts: The ring.
        refusals: What there is no room for.
        expiry: When finished records expire.
        insist: The way into the lock for a task that this process runs.
    """

    def __init__(
        self, parts: Parts, refusals: Refusals, expiry: Expiry, insist: Callable[..., Any]
    ) -> None:
        self._reader = parts.reader
        self._registry = parts.registry
        self._operations = parts.operations
        self._run = parts.mutex.run
        self._path = parts.segment.path
        self._refusals = refusals
        self._expiry = expiry
        self._insist = insist

    def save(self, result_id: str, metadata: bytes, claim: RingClaim | None) -> None:
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
        run: Callable[..., Any] = self._run
        found: Found
        if claim is None:
            found = self._reader.find(result_id)
            self._expiry.refuse_expired(found)
        elif claim.ours():
            self._registry.hold(claim.pid)  # the task may have dropped our record locks
            found, run = claim, self._insist
        else:
            raise lost_hold(self._path)
        block = self._refusals.block(metadata, found.meta)
        save = partial(self._operations.save_metadata, found, block, as_owner=claim is not None)
        while (room := run(save)) is Room.MORE:
            pass
        if room is Room.NONE:
            raise self._refusals.of_metadata(block, found)
        if room is None:
            raise lost_hold(self._path) if claim else does_not_exist(result_id)
