"""Why a task was lost with its worker: one word in the record, a sentence for the reader."""

import signal
from enum import IntEnum
from typing import Final

from django_tasks_local.exceptions import MemoryExceeded, WorkerLost
from django_tasks_local.ring.format.head import Head

_SHIFT: Final = 32
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
    MEMORY = 6  # KiB of private memory, and as the limit the bytes that were allowed
    OUT_OF_MEMORY = 7  # as SIGNAL; and the kernel has killed somebody for want of memory


# Why a pool kills a worker in the middle of a task.
KILLED: Final = frozenset({Loss.MEMORY})
# What makes a note of a `loss_word`; the times in the same column do not come so far.
_NOTE: Final = 1 << 63
_LIMIT_SHIFT: Final = 40
_MANTISSA_BITS: Final = 18
_EXPONENT_BITS: Final = 5


def loss_word(loss: Loss, number: int = 0, limit: int = 0) -> int:
    """Return what a LOST record says of its end.

    Args:
        loss: What ended the worker.
        number: See `Loss`; what is beyond 32 bits counts as the largest number.
        limit: Likewise; kept with 18 bits of precision, so that whole MiB are exact.
    """
    exponent = max(0, limit.bit_length() - _MANTISSA_BITS)
    packed = limit >> exponent << _EXPONENT_BITS | exponent
    return packed << _LIMIT_SHIFT | loss << _SHIFT | min(number, 0xFFFFFFFF)


def kill_note(word: int) -> int:
    """Return what the `due` of a RUNNING record says when its worker is to be killed."""
    return _NOTE | word


def noted_loss(due: int) -> int:
    """Return the `loss_word` in the `due` of a RUNNING record; 0 where there is none.

    A flipped bit makes no note: it takes the top bit and a reason.
    """
    word = due & ~_NOTE
    return word if due & _NOTE and word >> _SHIFT & 0xFF in KILLED else 0


def worker_lost(head: Head) -> WorkerLost:
    """Return what a LOST record says of its end, with the facts as attributes."""
    word = head.outcome_bytes
    loss, number = word >> _SHIFT & 0xFF, word & 0xFFFFFFFF
    pid, ran_s = head.worker >> 32, max(0, head.finished_at_ns - head.started_at_ns) / 1e9
    if loss == Loss.MEMORY:
        packed = word >> _LIMIT_SHIFT
        limit = packed >> _EXPONENT_BITS << (packed & (1 << _EXPONENT_BITS) - 1)
        return MemoryExceeded(pid, ran_s, measured=number * 1024, limit=limit)
    return WorkerLost(
        pid,
        _how(loss, number),
        ran_s,
        signal=number if loss in (Loss.SIGNAL, Loss.OUT_OF_MEMORY) else None,
        exit_code=number if loss == Loss.EXIT else None,
    )


def loss_error(head: Head) -> tuple[str, str]:
    """Return the error of a LOST record: (exception class path, text)."""
    loss = worker_lost(head)
    path = f"{type(loss).__module__}.{type(loss).__qualname__}"
    return path, f"{path}: {loss}"


def _how(loss: int, number: int) -> str:
    match loss:
        case Loss.SIGNAL:
            return f"was killed by {_signal_name(number)}"
        case Loss.OUT_OF_MEMORY:
            return f"was killed by {_signal_name(number)}, perhaps for want of memory"
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
