"""The ties of a record, as the data of a block (see ``format.blocks``).

```text
   0  GROUP           the digest of its group's name, 0: none
   8  after           the id of the task that it follows, as text, or zeros
  44  NAME            which of the names below is its group's, -1: none
  48  THEN            which of the tasks below follows its success, -1: none
  52  ON_FAILURE      likewise each other end
  56  NAMES, TASKS    how many there are
 ...  names           length, and the name in UTF-8
 ...  tasks           time limit; name, then and on failure as above; its tally << 8 | priority +
                      100; lengths of meta and arguments, 0: the id of the task that it follows; and
                      these
 ...  zeros           room that follow-ups need for their chains
```

A follow-up has the same names and tasks: the data of both have the same length.
"""

from struct import Struct, error
from typing import Final

from django_tasks_local.ties import NOTHING, FollowUp, Ties, group_digest

from . import layout as at

_FRONT: Final = Struct("=Q36siiiHH")
_NAME: Final = Struct("=H")
_TASK: Final = Struct("=QiiiIII")
# How far what an ORIGIN has of a tally is moved down, to stand above the priority.
_TALLY: Final = at.TALLY_SHIFT - 8


def encode_ties(ties: Ties) -> bytes:
    """Return ties as bytes; all arguments in them are bytes."""
    names = sorted({ties.group, *(each.group for each in ties.plan)} - {""})
    places = {name: place for place, name in enumerate(names)} | {"": NOTHING}
    front = _FRONT.pack(
        group_digest(ties.group), ties.after.encode(), places[ties.group], ties.then,
        ties.on_failure, len(names), len(ties.plan),
    )  # fmt: skip
    parts = [front]
    for name in names:
        data = name.encode()
        parts += _NAME.pack(len(data)), data
    for each in ties.plan:
        arguments = each.arguments or b""
        front = _TASK.pack(
            each.time_limit, places[each.group], each.then, each.on_failure,
            each.tally >> _TALLY | each.priority - at.LOWEST_PRIORITY, len(each.meta),
            len(arguments),
        )  # fmt: skip
        parts += front, each.meta, arguments
    return b"".join(parts)


def decode_ties(data: bytes) -> Ties | None:
    """Return what `encode_ties` has made bytes of; None where it cannot be."""
    try:
        _, after, name, then, on_failure, count, tasks = _FRONT.unpack_from(data)
        place, names, plan = _FRONT.size, [], []
        for _ in range(count):
            (size,) = _NAME.unpack_from(data, place)
            place += _NAME.size + size
            names.append(data[place - size : place].decode())
        names.append("")  # the last one is -1
        for _ in range(tasks):
            limit, own, following, failing, queue, meta, arguments = _TASK.unpack_from(data, place)
            start = place + _TASK.size
            place = start + meta + arguments
            plan.append(
                FollowUp(
                    data[start : start + meta],
                    data[start + meta : place] or None,
                    (queue & at.QUEUE_MASK) + at.LOWEST_PRIORITY,
                    limit,
                    following,
                    failing,
                    names[own],
                    (queue & ~at.QUEUE_MASK) << _TALLY,
                )
            )
        if place > len(data):
            return None
        after_text = after.rstrip(b"\0").decode("ascii")
        return Ties(names[name], after_text, then, on_failure, tuple(plan))
    except (error, IndexError, UnicodeDecodeError):
        return None
