"""Which records are in a group. Their names are compared only where their digests are the same."""

import sys
from collections.abc import Callable
from itertools import compress
from typing import Final

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.blocks import BLOCK_HEAD_BYTES
from django_tasks_local.ring.format.head import S_ID_HIGH, S_ID_LOW
from django_tasks_local.ties import group_digest

from .reader import Found, Reader
from .table import Table

_WAITS_OR_RUNS: Final = frozenset({at.READY, at.RUNNING})
# The byte of a commit word that has its state, and by how much to shift it.
TOP_BYTE: Final = 7 if sys.byteorder == "little" else 0
TOP_SHIFT: Final = at.STATE_SHIFT - 56


class Groups:
    """The groups of a ring.

    Args:
        table: The records.
        reader: Reads them.
    """

    def __init__(self, table: Table, reader: Reader) -> None:
        self._table = table
        self._words = table.words
        self._reader = reader

    def may_have(self, slot: int, digest: int) -> bool:
        """Return whether a record may be in a group with this digest (no lock; 0.3 µs)."""
        table, words = self._table, self._words
        start = words[table.ties.word(slot)] & at.EXTENT_SLOT_MASK
        if not 0 < start < table.slots.reserved():
            return False
        return bool(words[(table.offset(start) + BLOCK_HEAD_BYTES) // 8] == digest)

    def column(self) -> bytes:
        """Return the commit words of one moment (in the lock; 20 µs for 100,000)."""
        table = self._table
        start = table.commit * 8
        return bytes(table.bytes[start : start + table.slots.reserved() * 8])

    def unfinished(self, group: str, run: Callable[[Callable[[], bytes]], bytes]) -> list[str]:
        """Return the ids of a group's records that were READY or RUNNING at one moment.

        Args:
            group: Its name.
            run: Calls a function in the lock.
        """
        while (found := self._unfinished(group, run(self.column))) is None:
            pass
        return found

    def _unfinished(self, group: str, column: bytes) -> list[str] | None:
        """Return those of when `column` was copied; None where one may be recycled since."""
        digest, table = group_digest(group), self._table
        words = memoryview(column).cast("Q")
        wanted = bytes(top >> TOP_SHIFT in _WAITS_OR_RUNS for top in range(256))
        slots = compress(range(len(words)), column[TOP_BYTE::8].translate(wanted))
        found: list[str] = []
        for slot in slots:
            record = self._record(slot) if self.may_have(slot, digest) else None
            if (self._words[table.commit + slot] ^ words[slot]) & at.GENERATION_MASK:
                return None
            if record is not None and record.ties.group == group:
                found.append(record.result_id)
        return found

    def _record(self, slot: int) -> Found | None:
        word = self._table.offset(slot) // 8
        try:
            return self._reader.find_words(
                self._words[word + S_ID_HIGH], self._words[word + S_ID_LOW]
            )
        except (TaskResultDoesNotExist, StoreUnavailable):
            return None  # evicted meanwhile; or damaged
