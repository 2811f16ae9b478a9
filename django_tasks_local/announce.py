"""The signals of ``django.tasks``, sent at less cost where only Django listens.

Django connects a receiver to each, which writes to the log. What ``send_robust`` does around a
single receiver (weak references, a list of what each returned) takes as long as the receiver.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from django.tasks import TaskResultStatus, signals

from django_tasks_local.exceptions import from_a_signal_handler
from django_tasks_local.log_lines import is_written

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.dispatch import Signal

    from django_tasks_local.result import LocalTaskResult

logger = logging.getLogger("django_tasks_local")

_FAILED: Final = TaskResultStatus.FAILED

# Django's receivers in 6.0 and 6.1, by the names that their code uses, and the level at which each
# logs what has not failed. They do nothing else: one whose line nobody would write is not called.
# Of a later Django they may do more.
_LEVELS: Final = {
    ("logger", "debug", "id", "task", "module_path", "backend"): logging.DEBUG,
    ("logger", "info", "id", "task", "module_path", "status"): logging.INFO,
    ("sys", "exc_info", "logger", "log", "status", "TaskResultStatus", "FAILED", "logging", "ERROR",
     "INFO", "id", "task", "module_path"): logging.INFO,
}  # fmt: skip


def _level_of(function: Any) -> int | None:
    """Return the level at which a receiver of Django's logs, None where that is not all it does."""
    return _LEVELS.get(function.__code__.co_names)


# Django's own receiver of each signal, the key under which Django connects it, to any sender, and
# its level. The dict holds the functions, so their ids stay theirs.
_OWN: Final[dict[Signal, tuple[tuple[int, int], Callable[..., Any], int | None]]] = {
    signal: ((id(function), id(None)), function, _level_of(function))
    for signal, name in (
        (signals.task_enqueued, "log_task_enqueued"),
        (signals.task_started, "log_task_started"),
        (signals.task_finished, "log_task_finished"),
    )
    if (function := getattr(signals, name, None)) is not None
}


def is_heard(signal: Signal) -> bool:
    """Return whether anything comes of sending ``signal``: a receiver, or a line in a log."""
    receivers, own = signal.receivers, _OWN.get(signal)
    if own is None or len(receivers) != 1 or receivers[0][0] != own[0]:
        return True
    level = own[2]
    return level is None or is_written(signals.logger, level)


def announce(signal: Signal, sender: type, result: LocalTaskResult) -> None:
    """Send ``signal`` with ``result``, whatever exceptions its receivers raise.

    Only what a signal handler of the process has raised in the middle of one, as at the time limit
    of the task that enqueues, goes on to the caller.
    """
    receivers, own = signal.receivers, _OWN.get(signal)
    if own is None or len(receivers) != 1 or receivers[0][0] != own[0]:
        for _receiver, answer in signal.send_robust(sender, task_result=result):
            if isinstance(answer, Exception) and from_a_signal_handler(answer):
                raise answer
        return
    _, function, level = own
    # The end of a task that has failed is an error.
    if level and not is_written(signals.logger, level) and result.status != _FAILED:
        return
    try:
        function(sender, result)
    except Exception as error:
        if from_a_signal_handler(error):
            raise
        logger.exception("Task id=%s: a signal receiver raised", result.id)
