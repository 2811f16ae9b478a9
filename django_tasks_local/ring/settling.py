"""What happens inside the mutex to the records and the entry of a dead process, one at a time."""

from typing import Final

from django_tasks_local.ring.records.follow_ups import FollowUps
from django_tasks_local.ring.records.loss import Loss, loss_word
from django_tasks_local.ring.records.reader import Found
from django_tasks_local.ring.records.table import Room, Table
from django_tasks_local.ring.shm.registry import Registry

from . import recovery
from .format import layout as at

# What an operation says that has to go on in another hold of the lock.
AGAIN: Final = -2


class Settling:
    """The operations that settle."""

    def __init__(self, table: Table, registry: Registry) -> None:
        self._table = table
        self._words = table.words
        self._registry = registry
        self.follow_ups = FollowUps(table)

    def mark_lost(self, found: Found) -> int:
        """Make LOST a record that we claimed and that turned out to be damaged; 0, or AGAIN."""
        if self._words[self._table.commit + found.slot] == found.word:
            if self.wants_room(found.slot):
                return AGAIN
            recovery.mark_lost(
                self._table, found.slot, loss_word(Loss.DAMAGED), self._words[at.H_MAX_RESULTS]
            )
        return 0

    def leave(self) -> None:
        """Free our entry, unless a thread of ours is still at work: then it is settled later."""
        index = self._registry.index
        if not self._registry.owned():  # others took us for dead, and settled what we had
            return
        slot = self._registry.field(index, at.E_CURRENT)
        others = self._registry.field(index, at.E_OTHERS)
        if not (self._table.is_run_by(slot, index) or others):
            self._registry.release(index)

    def settle_record(self, slot: int, index: int, loss: int) -> int:
        """Settle one of a dead entry's records; return whether the entry still is dead, or AGAIN.

        It is AGAIN where there has to be room for what follows a task.
        """
        dead = self._is_dead(index)
        if dead:
            if self._table.is_run_by(slot, index) and self.wants_room(slot):
                return AGAIN
            recovery.settle_record(self._table, slot, index, loss, self._words[at.H_MAX_RESULTS])
        return dead

    def seen(self, index: int) -> tuple[int, int]:
        """Return whose entry it is, and how many records that process has beside its CURRENT."""
        registry = self._registry
        return registry.field(index, at.E_COMMIT), registry.field(index, at.E_OTHERS)

    def settle_entry(self, index: int, loss: int, seen: tuple[int, int]) -> int:
        """Settle a dead entry's CURRENT record, free the entry, return the lost task's slot or 0.

        It is AGAIN where there has to be room for what follows that task.

        Args:
            index: The entry.
            loss: A `loss_word` for the task that it ran.
            seen: What `seen` has returned before its other records were settled. If that has
                changed, there are some that were not, since others have settled the entry
                meanwhile and the next one that had it died, too: nothing is done.
        """
        registry = self._registry
        if not self._is_dead(index) or self.seen(index) != seen:
            return 0
        current = registry.field(index, at.E_CURRENT)
        if self._table.is_run_by(current, index) and self.wants_room(current):
            return AGAIN
        keep = self._words[at.H_MAX_RESULTS]
        lost = recovery.settle_record(self._table, current, index, loss, keep)
        registry.release(index)  # last: rule 7
        return lost

    def wants_room(self, slot: int, *, successful: bool = False) -> bool:
        """Do a step towards room for what follows the end of a record, if there is none yet."""
        return self.follow_ups.make_room(slot, successful=successful) is Room.MORE

    def _is_dead(self, index: int) -> bool:
        registry = self._registry
        return registry.field(index, at.E_COMMIT) != 0 and not registry.alive(index)
