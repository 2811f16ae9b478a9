"""An entry of the registry as one reads it: which process it is, and what that does."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Role(IntEnum):
    """What a process is to the ring. Only a SITE keeps a pool alive and starts one."""

    VISITOR = 1  # reads results, or looks at the ring
    SITE = 2  # serves requests, or enqueued
    POOL = 3
    WORKER = 4


class PoolState(IntEnum):
    """What a pool is doing."""

    IMPORTING = 0  # imports the project; what a new entry says
    STARTING = 1  # waits for its predecessor to let go
    SERVING = 2
    LEAVING = 3  # claims nothing more, lets its tasks end


# The bits of a worker's state.
WAITS: Final = 1  # its task waits for another task of this ring
RETIRING: Final = 2  # it is to be replaced

ROLES: Final = {int(role): role for role in Role}
_POOL_STATES: Final = {int(state): state.name.lower() for state in PoolState}


@dataclass(slots=True)  # not frozen: that makes it four times as dear
class Entry:
    """One process's entry, as read at one moment.

    Attributes:
        index: The entry's number.
        role: What the process is.
        pid: As that process sees itself; another pid namespace may number it otherwise.
        serial: Counts attachments; a later one has a greater serial.
        since_ns: When it attached, Unix ns.
        alive: Whether it lives.
        slot: A worker's latest slot.
        pool: A worker's pool (its entry's index), -1 for none or one that has gone.
        state: A pool's state, a `PoolState`; SERVING for a web process, too; the bits of a worker;
            or 0.
        code: The number of its code, -1 for a visitor.
        schedule: A site's: the digest of its SCHEDULE, 0 for none.
    """

    index: int
    role: Role
    pid: int
    serial: int
    since_ns: int
    alive: bool
    slot: int
    pool: int
    state: int
    code: int
    schedule: int

    @property
    def waits(self) -> bool:
        """Whether this worker's task waits for another task of this ring."""
        return bool(self.state & WAITS)

    @property
    def pool_state(self) -> str | None:
        """What a pool is doing, in a word; None for others, and where the entry is damaged."""
        return _POOL_STATES.get(self.state) if self.role is Role.POOL else None

    @property
    def retires(self) -> bool:
        """Whether this worker is to be replaced."""
        return bool(self.state & RETIRING)
