"""What a task leaves behind in its worker's process, put back before the next task.

The cheap checks run after every task (3 µs in all, beside some 70 µs for a task that does nothing),
the others only after a task that took a millisecond or more.
"""

import locale
import logging
import os
import resource
import signal
import time

# The one in `signal` converts the answer to an enum, for 1 µs.
from _signal import getsignal  # type: ignore[import-not-found]
from collections.abc import Callable
from typing import Any, Final

from django_tasks_local.stopping import STOP_SIGNAL
from django_tasks_local.store import Claim, task_path

type Handler = Callable[..., Any] | int | None

logger = logging.getLogger("django_tasks_local")

LONG_S: Final = 0.001

# Plain numbers: converting an enum's member takes as long as the look.
_HANDLED: Final = [
    int(getattr(signal, f"SIG{name}")) for name in ("ALRM", "TERM", "PROF", "VTALRM")
]
_HANDLED_RARELY: Final = [
    int(getattr(signal, f"SIG{name}")) for name in ("INT", "CHLD", "HUP", "PIPE", "USR1", "USR2")
] + [STOP_SIGNAL]
_TIMER: Final = int(signal.ITIMER_REAL)
# Timers of CPU time. They call a handler, or else end the process.
_CPU_TIMERS: Final = [int(signal.ITIMER_PROF), int(signal.ITIMER_VIRTUAL)]
_OFF: Final = (0.0, 0.0)
_LIMITS: Final = sorted(
    {value for name, value in vars(resource).items() if name.startswith("RLIMIT_")}
)


class Leftovers:
    """The process of a worker as it was at its start.

    Args:
        alias: For the log.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        # O_PATH: it leads back even to a directory that was removed or cannot be listed.
        self._directory = os.open(".", os.O_PATH | os.O_CLOEXEC)
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        # As `os.environ` holds it: decoding and copying it all takes 20 µs.
        self._environ: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]
        self._variables = dict(self._environ)
        self._handlers = [getsignal(number) for number in _HANDLED]
        self._rare_handlers = [getsignal(number) for number in _HANDLED_RARELY]
        # A profiler of the project may run in each worker from its start.
        self._cpu_timers = [which for which in _CPU_TIMERS if signal.getitimer(which) == _OFF]
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._locale = locale.setlocale(locale.LC_ALL)
        self._limits = [resource.getrlimit(which) for which in _LIMITS]
        self._niceness = os.getpriority(os.PRIO_PROCESS, 0)
        self._told: set[tuple[str, str]] = set()

    def put_back(self, claim: Claim, took_s: float) -> bool:
        """Put back what the task of ``claim``, which took ``took_s``, has changed.

        Returns:
            Whether that was possible; if not, another process has to take this one's place.
        """
        try:
            os.fchdir(self._directory)  # asking where we are costs more
            umask, timer = os.umask(self._umask), signal.setitimer(_TIMER, 0)
            if (
                umask == self._umask and timer == _OFF and self._environ == self._variables
                and [getsignal(number) for number in _HANDLED] == self._handlers
                and took_s < LONG_S
            ):  # fmt: skip
                return True
            changed = ["umask"] if umask != self._umask else []
            # Before their handlers: without one, the signal ends this process.
            timers = [timer, *(signal.setitimer(which, 0) for which in self._cpu_timers)]
            if any(each != _OFF for each in timers):
                changed.append("interval timer")
            if self._environ != self._variables:
                changed.append("environment variables")
                self._put_back_variables()
            self._put_back_handlers(_HANDLED, self._handlers, changed)
            if took_s >= LONG_S:
                self._put_back_the_rest(changed)
        except (OSError, ValueError, locale.Error) as error:
            self._say(claim, f"{error}; this worker is replaced")
            return False
        for what in dict.fromkeys(changed):
            self._say(claim, f"{what}: put back")
        return True

    def _put_back_variables(self) -> None:
        before, now = self._variables, self._environ
        for name in now.keys() - before.keys():
            del os.environb[name]
        for name, value in before.items():
            if now.get(name) != value:
                os.environb[name] = value
        time.tzset()

    def _put_back_the_rest(self, changed: list[str]) -> None:
        self._put_back_handlers(_HANDLED_RARELY, self._rare_handlers, changed)
        if signal.pthread_sigmask(signal.SIG_SETMASK, self._mask) != self._mask:
            changed.append("signal mask")
        if locale.setlocale(locale.LC_ALL) != self._locale:
            changed.append("locale")
            locale.setlocale(locale.LC_ALL, self._locale)
        for which, limits in zip(_LIMITS, self._limits, strict=True):
            if resource.getrlimit(which) != limits:
                changed.append("resource limits")
                resource.setrlimit(which, limits)
        if os.getpriority(os.PRIO_PROCESS, 0) != self._niceness:
            changed.append("niceness")
            os.setpriority(os.PRIO_PROCESS, 0, self._niceness)

    def _say(self, claim: Claim, text: str) -> None:
        """Log ``text`` once for each task's path, or a task that runs each second fills the log."""
        path = task_path(claim.meta)
        if (path, text) not in self._told:
            self._told.add((path, text))
            logger.warning(
                "alias=%s Task id=%s path=%s left its worker's process changed: %s",
                self._alias, claim.result_id, path, text,
            )  # fmt: skip

    def _put_back_handlers(
        self, numbers: list[int], handlers: list[Handler], changed: list[str]
    ) -> None:
        for number, handler in zip(numbers, handlers, strict=True):
            # None: C code set the handler, and Python cannot set it again.
            if handler is not None and getsignal(number) != handler:
                changed.append("signal handlers")
                signal.signal(number, handler)
