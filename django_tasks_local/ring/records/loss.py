"""Why a task was lost with its worker: one word in the record, a sentence for the reader.

Where the pool kills a worker in order to end its task, or the task is asked to stop, the
reason is noted in the record first, in a word of its own. However the worker then ends, that is
what is told.
"""

import signal
from enum import IntEnum
from typing import Final

from django_tasks_local.exceptions import MemoryExceeded, TaskCancelled, TaskTimeout, WorkerLost
from django_tasks_local.ring.format.head import Head
from django_tasks_local.store import limit_s

_SHIFT: Final = 32
# A worker that lost its hold on the ring ends with this code, without touching it.
EXIT_DETACHED: Final = 113
# The numbers beside CANCELLED: it had not started, was asked to stop, or its worker was killed.
NOT_STARTED, ASKED, BY_KILL = range(3)


class Loss(IntEnum):
    """What ended the worker; a number beside it explains some of them."""

    UNKNOWN = 0
    SIGNAL = 1  # the signal's number
    EXIT = 2  # the exit code
    DRAINED = 3
    POOL_DIED = 4
    DAMAGED = 5
    MEMORY = 6  # KiB of private memory, and as the limit the bytes that were allowed
    OUT_OF_MEMORY = 7  # as SIGNAL; and the kernel has killed a process because memory ran out
    TIMED_OUT = 8  # the limit stands in the record
    CANCELLED = 9  # NOT_STARTED, ASKED or BY_KILL
    RESTARTED = 10


# Why a task is to stop, or its worker to be killed.
KILLED: Final = frozenset({Loss.MEMORY, Loss.TIMED_OUT, Loss.CANCELLED})
# What makes a note of a `loss_word`.
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
    """Return what the STOP of a RUNNING record says of the end that its task is to have."""
    return _NOTE | word


def noted_loss(stop: int) -> int:
    """Return the `loss_word` in the STOP of a record; 0 where there is none.

    A flipped bit makes no note: it takes the top bit and a reason.
    """
    word = stop & ~_NOTE
    return word if stop & _NOTE and word >> _SHIFT & 0xFF in KILLED else 0


def reason(word: int) -> int:
    """Return which `Loss` a `loss_word` tells; a damaged one may tell none that exists."""
    return word >> _SHIFT & 0xFF


def is_cancelled(word: int) -> bool:
    """Return whether a `loss_word` says that the task was cancelled."""
    return word >> _SHIFT & 0xFF == Loss.CANCELLED


def may_be_retried(word: int) -> bool:
    """Whether a task that was lost so may be tried again, if its record says so, too."""
    return word >> _SHIFT & 0xFF not in (Loss.CANCELLED, Loss.DAMAGED)


def is_by_kill(word: int) -> bool:
    """Return whether a `loss_word` says that the task itself was ended, by a kill of its worker."""
    return word >> _SHIFT & 0xFF in KILLED


def is_to_be_announced(word: int) -> bool:
    """Return whether a worker is to announce the end that a `loss_word` tells.

    What was cancelled before it started is announced by the process that cancels it; of a damaged
    record nobody knows the task.
    """
    loss, number = word >> _SHIFT & 0xFF, word & 0xFFFFFFFF
    return loss != Loss.DAMAGED and (loss, number) != (Loss.CANCELLED, NOT_STARTED)


# The STOP of a LOST record whose end a process has taken to announce. It makes no note.
TOLD: Final = 1
# What asks a task to stop, without a kill of its worker.
STOP_ASKED: Final = kill_note(loss_word(Loss.CANCELLED, ASKED))


def lost_error(head: Head, *, retried: bool = False) -> WorkerLost | TaskTimeout | TaskCancelled:
    """Return what a LOST record says of its end, with the facts as attributes.

    Args:
        head: The record's words.
        retried: Whether the task is to be tried again.
    """
    word = head.outcome_bytes
    loss, number = word >> _SHIFT & 0xFF, word & 0xFFFFFFFF
    pid, ran_s = head.worker >> 32, max(0, head.finished_at_ns - head.started_at_ns) / 1e9
    if loss == Loss.TIMED_OUT:
        return TaskTimeout(limit_s(head.time_limit), ran_s, killed=True)
    if loss == Loss.CANCELLED:
        if number == NOT_STARTED:
            return TaskCancelled(retried=head.history_chain != 0)
        return TaskCancelled(ran_s, killed=True)
    if loss == Loss.MEMORY:
        packed = word >> _LIMIT_SHIFT
        limit = packed >> _EXPONENT_BITS << (packed & (1 << _EXPONENT_BITS) - 1)
        return MemoryExceeded(pid, ran_s, measured=number * 1024, limit=limit, retried=retried)
    return WorkerLost(
        pid,
        _how(loss, number),
        ran_s,
        signal=number if loss in (Loss.SIGNAL, Loss.OUT_OF_MEMORY) else None,
        exit_code=number if loss == Loss.EXIT else None,
        retried=retried,
    )


def loss_error(head: Head, *, retried: bool = False) -> tuple[str, str]:
    """Return the error of a LOST record: (exception class path, text)."""
    error = lost_error(head, retried=retried)
    path = f"{type(error).__module__}.{type(error).__qualname__}"
    return path, f"{path}: {error}"


def _how(loss: int, number: int) -> str:
    match loss:
        case Loss.SIGNAL:
            return f"was killed by {_signal_name(number)}"
        case Loss.OUT_OF_MEMORY:
            return f"was killed by {_signal_name(number)}, perhaps because memory ran out"
        case Loss.EXIT if number == EXIT_DETACHED:
            return "lost the ring (the task closed the worker's descriptors, or forked)"
        case Loss.EXIT:
            return f"ended with exit code {number}"
        case Loss.DRAINED:
            return "was killed because no site process was left and DRAIN_TIMEOUT had passed"
        case Loss.POOL_DIED:
            return "was found to have died together with its pool"
        case Loss.DAMAGED:
            return "found its record damaged"
        case Loss.RESTARTED:
            return "was found to be gone after the host was restarted"
    return "died"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
