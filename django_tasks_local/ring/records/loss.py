"""Why a task was lost with its worker: one word in the record, a sentence for the reader.

Where the pool kills a worker in order to end its task, or somebody asks the task to stop, the
reason is noted in the record first, in a word of its own. However the worker then ends, that is
what is told.
"""

import signal
from enum import IntEnum
from typing import Final

from django_tasks_local.exceptions import TaskCancelled, TaskTimeout, WorkerLost
from django_tasks_local.ring.format.head import Head
from django_tasks_local.ring.format.layout import checked, unchecked
from django_tasks_local.store import limit_s

_SHIFT: Final = 32
_NOTE_SHIFT: Final = 28
_NOTE_NUMBER: Final = 2**_NOTE_SHIFT - 1
# A worker that lost its hold on the ring ends with this code, without touching it.
EXIT_DETACHED: Final = 113
# One that finds, at its task's end, that the pool is about to kill it.
EXIT_CONDEMNED: Final = 114
# The numbers beside CANCELLED.
NOT_STARTED: Final = 0
ASKED: Final = 1  # to stop
KILLED: Final = 2


class Loss(IntEnum):
    """What ended the worker; a number beside it explains some of them."""

    UNKNOWN = 0
    SIGNAL = 1  # the signal's number
    EXIT = 2  # the exit code
    DRAINED = 3
    POOL_DIED = 4
    DAMAGED = 5
    TIMED_OUT = 6  # the limit stands in the record
    CANCELLED = 7  # NOT_STARTED, ASKED or KILLED


def loss_word(loss: Loss, number: int = 0) -> int:
    """What a LOST record says of its end."""
    return loss << _SHIFT | number


def note_word(loss: Loss, number: int = 0) -> int:
    """Return the word that notes, while a task runs, why it is to stop.

    Args:
        loss: Why; a worker that dies from now on is told as lost by that.
        number: What explains it, below 2**28.
    """
    return checked(loss << _NOTE_SHIFT | number)


def noted(word: int) -> int:
    """Return the `loss_word` of what a `note_word` notes; 0 for nothing."""
    note = unchecked(word)
    loss = note >> _NOTE_SHIFT
    return loss_word(Loss(loss), note & _NOTE_NUMBER) if 0 < loss < len(Loss) else 0


def is_cancelled(loss: int) -> bool:
    """Whether a `loss_word` says that the task was cancelled."""
    return loss >> _SHIFT == Loss.CANCELLED


STOP_ASKED: Final = note_word(Loss.CANCELLED, ASKED)


def lost_error(head: Head) -> WorkerLost | TaskTimeout | TaskCancelled:
    """Return what a LOST record says of its end, with the facts as attributes."""
    loss, number = head.outcome_bytes >> _SHIFT, head.outcome_bytes & 0xFFFFFFFF
    ran_s = max(0, head.finished_at_ns - head.started_at_ns) / 1e9
    if loss == Loss.TIMED_OUT:
        return TaskTimeout(limit_s(head.time_limit), ran_s, killed=True)
    if loss == Loss.CANCELLED:
        return TaskCancelled(ran_s, killed=True) if number else TaskCancelled()
    return WorkerLost(
        head.worker >> 32,
        _how(loss, number),
        ran_s,
        signal=number if loss == Loss.SIGNAL else None,
        exit_code=number if loss == Loss.EXIT else None,
    )


def loss_error(head: Head) -> tuple[str, str]:
    """Return the error of a LOST record: (exception class path, text)."""
    error = lost_error(head)
    path = f"{type(error).__module__}.{type(error).__qualname__}"
    return path, f"{path}: {error}"


def _how(loss: int, number: int) -> str:
    match loss:
        case Loss.SIGNAL:
            return f"was killed by {_signal_name(number)}"
        case Loss.EXIT if number == EXIT_DETACHED:
            return "lost the ring (the task closed the worker's descriptors, or forked)"
        case Loss.EXIT:
            return f"ended with exit code {number}"
        case Loss.DRAINED:
            return "was killed because no site process was left and DRAIN_TIMEOUT had passed"
        case Loss.POOL_DIED:
            return "died together with its pool"
        case Loss.DAMAGED:
            return "found its record damaged"
    return "died"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
