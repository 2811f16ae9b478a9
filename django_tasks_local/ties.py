"""The ties of a task to others: its group, the task that it follows, and what follows it.

All that a follow-up needs is known when the first task is enqueued, and goes with its record: who
ends a task imports nothing, and may be a process that has no code of the project.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final, NamedTuple

# Instead of a place in a plan: nothing follows.
NOTHING: Final = -1
MOST_GROUP_BYTES: Final = 200


class FollowUp(NamedTuple):
    """A task that may follow.

    Attributes:
        meta: What names it, see ``naming.encode_task``.
        arguments: As the store has encoded them; ``None``: the id of the task that it follows.
        priority: Its own.
        time_limit: Its `store.time_limit_word`.
        then: The place in the plan of what follows its success, or `NOTHING`.
        on_failure: Likewise for each other end.
        group: The group that it brings along, ``""`` for none.
        tally: What counts it in a ring, as `Ring.put` wants it.
    """

    meta: bytes
    arguments: Any
    priority: int
    time_limit: int
    then: int = NOTHING
    on_failure: int = NOTHING
    group: str = ""
    tally: int = 0


class Ties(NamedTuple):
    """The ties of one task.

    Attributes:
        group: The name of its group, ``""`` for none.
        after: The result id of the task that it follows, ``""`` for none.
        then: The place in the plan of what follows its success, or `NOTHING`.
        on_failure: Likewise for each other end.
        plan: All tasks that may follow it, or each other; they may go round in a circle.
    """

    group: str = ""
    after: str = ""
    then: int = NOTHING
    on_failure: int = NOTHING
    plan: tuple[FollowUp, ...] = ()

    def next(self, *, successful: bool) -> FollowUp | None:
        """Return what follows such an end; ``None`` for nothing."""
        place = self.then if successful else self.on_failure
        return self.plan[place] if 0 <= place < len(self.plan) else None

    def passed_on(self, follow_up: FollowUp, result_id: str) -> Ties:
        """Return the ties of what follows the task with this id: the group stays the same."""
        group = self.group or follow_up.group
        return Ties(group, result_id, follow_up.then, follow_up.on_failure, self.plan)


NO_TIES: Final = Ties()


def group_digest(group: str) -> int:
    """Return a number that stands for a group's name; 0 for none. Two names may have the same."""
    if not group:
        return 0
    return int.from_bytes(blake2b(group.encode(), digest_size=8).digest()) or 1


def checked_group(value: object) -> str:
    """Return a group's name.

    Raises:
        ValueError: It is none; the text says what is wanted.
    """
    wanted = f"it must be a string that is not empty, of at most {MOST_GROUP_BYTES} bytes as UTF-8"
    if not isinstance(value, str):
        raise ValueError(f"{wanted}, not of type {type(value).__name__}")
    try:
        if 0 < len(value.encode()) <= MOST_GROUP_BYTES:
            return str.__str__(value)
    except UnicodeEncodeError:
        pass
    raise ValueError(wanted)
