"""Why a task was lost with its worker: one word in the record, a sentence for the reader."""

import signal
from enum import IntEnum
from typing import Final

from django_tasks_local.exceptions import WorkerLost
from django_tasks_local.ring.format.head import Head

_SHIFT: Final = 32
_WORKER_LOST: Final = "django_tasks_local.exceptions.WorkerLost"
# A worker that lost its hold on the ring ends with this code, without touching it.
EXIT_DETACHED: Final = 113


class Loss(IntEnum):
    """What ended the worker; a number beside it explains some of them."""

    UNKNOWN = 0
    SIGNAL = 1  # the signal's number
    EXIT = 2  # the exit code
    DRAINED = 3
    POOL_DIED = 4
    DAMAGED = 5


def loss_word(loss: Loss, number: int = 0) -> int:
    """What a LOST record says of its end."""
    return loss << _SHIFT | number


def worker_lost(head: Head) -> WorkerLost:
    """Return what a LOST record says of its end, with the facts as attributes."""
    loss, number = head.outcome_bytes >> _SHIFT, head.outcome_bytes & 0xFFFFFFFF
    return WorkerLost(
        head.worker >> 32,
        _how(loss, number),
        max(0, head.finished_at_ns - head.started_at_ns) / 1e9,
        signal=number if loss == Loss.SIGNAL else None,
        exit_code=number if loss == Loss.EXIT else None,
    )


def loss_error(head: Head) -> tuple[str, str]:
    """Return the error of a LOST record: (exception class path, text)."""
    return _WORKER_LOST, f"{_WORKER_LOST}: {worker_lost(head)}"


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
