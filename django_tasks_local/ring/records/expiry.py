"""RESULT_TTL and FAILURE_TTL: which finished records have expired, and the search for them.

An expired record is refused when it is read; the search only gives its memory back. It goes over
the slots with a cursor, some thousand at each look, since no list has the records in the order of
their ends: reading a result moves it in the recency list, each of the two options has an order of
its own, and the clock may be set back. A list of their own would be one more write for each task
that ends. A look takes no lock, so nobody waits where nothing has expired: 0.1 ms for 4,096 slots,
and 0.2 µs more for each finished record.
"""

import time
from collections.abc import Iterator
from time import sleep
from typing import Final

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import S_FINISHED_AT
from django_tasks_local.ring.shm.limits import shared_optional
from django_tasks_local.ring.shm.mutex import Mutex

from .reader import Found
from .table import EVICTED_AT_ONCE, Table

# Which option says when a record in that state expires.
TTL_OF: Final = {
    at.SUCCESSFUL: at.H_RESULT_TTL, at.FAILED: at.H_FAILURE_TTL, at.LOST: at.H_FAILURE_TTL,
}  # fmt: skip
# Slots at each look. Fewer: memory of a large ring comes back later than its eviction by
# MAX_RESULTS; more: a pool with nothing to do costs more than 0.1 % of a processor.
LOOKED_AT_ONCE: Final = 4096
# Finished commit words lie between these two.
_LEAST: Final = at.SUCCESSFUL << at.STATE_SHIFT
_BEYOND: Final = at.CHAIN << at.STATE_SHIFT
# A process that waits for the lock needs a moment to wake up and take it.
_LET_OTHERS_IN_S: Final = 0.0001
_NS_PER_MS: Final = 1_000_000


class Lifetimes:
    """Says of finished records whether they have expired. It takes no lock."""

    def __init__(self, table: Table) -> None:
        self._words = table.words

    def is_over(self, found: Found) -> bool:
        """Return whether a record has expired; one that has not ended never has."""
        which = TTL_OF.get(found.word >> at.STATE_SHIFT)
        ttl_ms = shared_optional(self._words, which) if which else 0
        ended_ns = found.head.finished_at_ns
        return bool(ttl_ms) and ended_ns + ttl_ms * _NS_PER_MS <= time.time_ns()

    def without_expired(self, records: Iterator[Found]) -> Iterator[Found]:
        """Yield those of some records that have not expired."""
        if not any(self._words[which] for which in TTL_OF.values()):
            return records
        return (each for each in records if not self.is_over(each))

    def refuse_expired(self, found: Found) -> None:
        """Refuse to show a finished record that has expired.

        Raises:
            TaskResultDoesNotExist: It has.
        """
        if self.is_over(found):
            state = found.word >> at.STATE_SHIFT
            ttl_ms = shared_optional(self._words, TTL_OF[state])
            option = "RESULT_TTL" if state == at.SUCCESSFUL else "FAILURE_TTL"
            raise TaskResultDoesNotExist(
                f"No result {found.result_id!r}: it has expired, {ttl_ms / 1000:,g} s after the "
                f"end of its task ({option})."
            )


class Expiry(Lifetimes):
    """The lifetimes of a ring's finished records, and the search for those that are over."""

    def __init__(self, table: Table, mutex: Mutex) -> None:
        super().__init__(table)
        self._table = table
        self._mutex = mutex
        self._cursor = 1  # of this process: a new one begins again

    def sweep(self) -> None:
        """Recycle expired records among the next slots, some in each hold of the lock.

        Where another process is inside for long, the rest is left for the next round.
        """
        words = self._words
        if not (words[at.H_RESULT_TTL] or words[at.H_FAILURE_TTL]) or not words[at.H_FINISHED]:
            return
        expired = self._look(time.time_ns())
        left: bool | None = bool(expired)
        while left:
            left = self._mutex.try_run(self._evict, expired)
            sleep(_LET_OTHERS_IN_S)

    def _look(self, now_ns: int) -> list[tuple[int, int]]:
        """Return the expired records among the next slots, each with its commit word (no lock).

        A record may change under the eyes of this: `_evict` compares its commit word.
        """
        table, words = self._table, self._words
        reserved = table.slots.reserved()
        start = self._cursor if self._cursor < reserved else 1
        end = min(start + LOOKED_AT_ONCE, reserved)
        self._cursor = end
        latest = {
            state: now_ns - ttl_ms * _NS_PER_MS if (ttl_ms := shared_optional(words, which)) else -1
            for state, which in TTL_OF.items()
        }
        column = words[table.commit + start : table.commit + end].tolist()
        finished_at = table.offset(0) // 8 + S_FINISHED_AT
        size = table.geometry.slot_size // 8
        return [
            (slot, word)
            for slot, word in enumerate(column, start)
            if _LEAST <= word < _BEYOND
            and words[finished_at + slot * size] <= latest[word >> at.STATE_SHIFT]
        ]

    def _evict(self, expired: list[tuple[int, int]]) -> bool:
        """Recycle some of these records, and return whether any are left (in the lock)."""
        table = self._table
        for _ in range(EVICTED_AT_ONCE):
            if not expired:
                break
            slot, word = expired.pop()
            # It may have been evicted, and its slot may hold another record by now. A damaged word
            # is left to the audit: the record may be in another list.
            if self._words[table.commit + slot] != word or not at.is_whole(word):
                continue
            self._words[at.H_EXPIRED] += 1
            if table.evict(slot) > EVICTED_AT_ONCE:
                break
        return bool(expired)
