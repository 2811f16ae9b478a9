"""The signals of ``django.tasks``, sent at less cost where only Django listens.

Django connects a receiver to each, which writes to the log. What ``send_robust`` does around a
single receiver (weak references, a list of what each returned) takes as long as the receiver.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from django.tasks import signals

from django_tasks_local.exceptions import from_a_signal_handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.dispatch import Signal

    from django_tasks_local.result import LocalTaskResult

logger = logging.getLogger("django_tasks_local")

# Django's own receiver of each signal, and the key under which Django connects it, to any sender.
# The dict holds the functions, so their ids stay theirs.
_OWN: Final[dict[Signal, tuple[tuple[int, int], Callable[..., Any]]]] = {
    signal: ((id(function), id(None)), function)
    for signal, name in (
        (signals.task_enqueued, "log_task_enqueued"),
        (signals.task_started, "log_task_started"),
        (signals.task_finished, "log_task_finished"),
    )
    if (function := getattr(signals, name, None)) is not None
}


def is_heard(signal: Signal) -> bool:
    """Return whether anything comes of sending ``signal``: a receiver, or a line in a log."""
    receivers = signal.receivers
    own = len(receivers) == 1 and signal in _OWN and receivers[0][0] == _OWN[signal][0]
    return not own or signals.logger.isEnabledFor(logging.DEBUG)


def announce(signal: Signal, sender: type, result: LocalTaskResult) -> None:
    """Send ``signal`` with ``result``, whatever exceptions its receivers raise.

    Only what a signal handler of the process has raised in the middle of one, as at the time limit
    of the task that enqueues, goes on to the caller.
    """
    receivers = signal.receivers
    if len(receivers) == 1 and signal in _OWN:
        key, function = _OWN[signal]
        if receivers[0][0] == key:
            try:
                function(sender, result)
            except Exception as error:
                if from_a_signal_handler(error):
                    raise
                logger.exception("Task id=%s: a signal receiver raised", result.id)
            return
    for _receiver, answer in signal.send_robust(sender, task_result=result):
        if isinstance(answer, Exception) and from_a_signal_handler(answer):
            raise answer
