"""Which record holds the key of a unique task to be enqueued, and whether it still does."""

from collections.abc import Callable, Sequence
from typing import Final

from django_tasks_local.ring.format.ids import format_id
from django_tasks_local.ring.records.holder import Holder, holder_of
from django_tasks_local.store import KeyTaken

from .format import layout as at
from .parts import Parts

# How long a pool has for a dead worker of its own, of whose end it knows more. It takes about 1 ms.
_POOLS_TURN_S: Final = 0.2


class Holders:
    """What an enqueue does about them.

    Args:
        parts: The ring.
        settle_if_dead: Settles what a dead process left, unless that is its pool's to do.
        settle: Does so in any case.
    """

    def __init__(
        self, parts: Parts, settle_if_dead: Callable[[int], bool], settle: Callable[[int], int]
    ) -> None:
        self._table = parts.table
        self._registry = parts.registry
        self._waiters = parts.waiters
        self._settle_if_dead = settle_if_dead
        self._settle = settle

    def of(self, keys: Sequence[bytes]) -> list[Holder | None]:
        """Return the records that have these keys (in the lock)."""
        return [holder_of(self._table, key) for key in keys]

    def refuse(self, holder: Holder) -> None:
        """Raise `KeyTaken`, unless the holder's worker is dead: then see that the key is free.

        Raises:
            KeyTaken: The holder waits or runs.
            StoreUnavailable: Another process is frozen inside the ring.
        """
        if self.still_holds(holder):
            raise KeyTaken(format_id(holder.id_high, holder.id_low))

    def still_holds(self, holder: Holder) -> bool:
        """Whether a holder waits or runs. If its worker is dead, that is settled now.

        Raises:
            StoreUnavailable: Another process is frozen inside the ring.
        """
        owner = holder.word >> at.OWNER_SHIFT & at.OWNER_MASK
        running = holder.word >> at.STATE_SHIFT == at.RUNNING
        if not running or owner >= at.ENTRIES or self._registry.alive(owner):
            return True
        if not self._settle_if_dead(owner):
            self._waiters.wait(holder.slot, holder.word, _POOLS_TURN_S)
            if self._table.is_run_by(holder.slot, owner):
                self._settle(owner)
        return False
