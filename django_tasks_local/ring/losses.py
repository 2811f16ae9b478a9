"""Lost tasks whose ends are to be announced: each is given to one process, which then does that.

A task that ends in its worker is announced there. Where the worker has died, the process that
settles it must run no code of the user's: it is the pool, or anybody who has asked for the result.
So a lost record stays to be told until another worker takes it (TOLD), which is one store inside
the mutex: at most one process announces an end, and it does so after that.
"""

from collections.abc import Iterator
from typing import Final

from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format.head import S_ORIGIN, S_OUTCOME_BYTES, S_STOP
from django_tasks_local.ring.records.loss import TOLD, is_to_be_announced
from django_tasks_local.ring.records.reader import Found, Reader
from django_tasks_local.ring.records.table import Table
from django_tasks_local.ring.shm.mutex import Mutex

from .format import layout as at

# How many commit words are copied at once, as in `recovery`.
_SCANNED_AT_ONCE: Final = 2**16


class Losses:
    """The lost tasks of a ring that are still to be announced.

    Args:
        table: The records.
        reader: Reads them.
        mutex: The ring's.
    """

    def __init__(self, table: Table, reader: Reader, mutex: Mutex) -> None:
        self._table = table
        self._words = table.words
        self._reader = reader
        self._mutex = mutex

    def may_be_there(self, share: at.Share) -> bool:
        """Return whether a share may have losses to announce (no lock)."""
        words = self._words
        if words[at.H_UNTOLD + share[0]]:
            return True
        return share[2] != 0 and any(words[at.H_UNTOLD + code] for code in _codes(share))

    def take(self, share: at.Share) -> Iterator[Found]:
        """Yield lost tasks to be announced, each to this process alone.

        It reads every slot's commit word, outside the lock.
        """
        codes = _codes(share)
        # In the lock: what UNTOLD names there is LOST by now, and is among what is read below.
        seen = self._mutex.insist(self._latest, codes)
        for slot in self._untold_slots():
            found = self._found(slot) if self._code(slot) in codes else None
            if found and self._mutex.insist(self._take, found):
                yield found
        self._mutex.insist(self._note_none_is_left, seen)

    def _latest(self, codes: set[int]) -> dict[int, int]:
        return {code: self._words[at.H_UNTOLD + code] for code in codes}

    def _untold_slots(self) -> list[int]:
        table, reserved = self._table, self._table.slots.reserved()
        found: list[int] = []
        for start in range(1, reserved, _SCANNED_AT_ONCE):
            end = min(start + _SCANNED_AT_ONCE, reserved)
            column = self._words[table.commit + start : table.commit + end].tolist()
            lost = (s for s, word in enumerate(column, start) if word >> at.STATE_SHIFT == at.LOST)
            found += filter(self._is_untold, lost)
        return sorted(found, key=lambda slot: self._words[table.sequence + slot])

    def _is_untold(self, slot: int) -> bool:
        head = self._table.offset(slot) // 8
        return self._words[head + S_STOP] != TOLD and is_to_be_announced(
            self._words[head + S_OUTCOME_BYTES]
        )

    def _code(self, slot: int) -> int:
        return at.code_of(self._words[self._table.offset(slot) // 8 + S_ORIGIN])

    def _found(self, slot: int) -> Found | None:
        """Return a lost record; None where it was evicted meanwhile, or is damaged."""
        head = self._table.head(slot)
        try:
            found = self._reader.find_words(head.id_high, head.id_low)
        except (TaskResultDoesNotExist, StoreUnavailable):
            return None
        return found if found.slot == slot and found.state == at.LOST else None

    def _take(self, found: Found) -> bool:
        """Take one to announce it, and return whether no other process had."""
        slot = found.slot
        if self._words[self._table.commit + slot] != found.word or not self._is_untold(slot):
            return False
        # One store, and nothing is derived from it: no death leaves it half done.
        self._words[self._table.offset(slot) // 8 + S_STOP] = TOLD
        return True

    def _note_none_is_left(self, seen: dict[int, int]) -> None:
        """Clear UNTOLD of these codes, unless another loss has come since it was read."""
        for code, place in seen.items():
            if self._words[at.H_UNTOLD + code] == place:
                self._words[at.H_UNTOLD + code] = 0


def _codes(share: at.Share) -> set[int]:
    code, _, adopted = share
    return {code, *(other for other in range(at.CODES) if adopted >> other & 1)}
