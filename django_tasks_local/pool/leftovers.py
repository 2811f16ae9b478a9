"""What a task leaves behind in its worker's process, put back before the next task.

The cheap checks run after every task (2 µs in all, beside some 40 µs for a task that does nothing),
the others only after a task that took a millisecond or more.
"""

import locale
import logging
import os
import resource
import signal
import time

# The `getsignal` of `signal` converts the answer to an enum, for 1 µs.
from _signal import getitimer, getsignal  # type: ignore[import-not-found]
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

from django_tasks_local.store import Snapshot, task_path

type Handler = Callable[..., Any] | int | None

logger = logging.getLogger("django_tasks_local")

LONG_S: Final = 0.001

# Plain numbers: converting an enum's member takes as long as the look.
_HANDLED: Final = [
    int(getattr(signal, f"SIG{name}")) for name in ("ALRM", "TERM", "PROF", "VTALRM")
]
_HANDLED_RARELY: Final = sorted(
    {int(number) for number in signal.valid_signals()}
    - {*_HANDLED, int(signal.SIGKILL), int(signal.SIGSTOP)}
)
_TIMER: Final = int(signal.ITIMER_REAL)
# Timers of CPU time. They call a handler, or else end the process.
_CPU_TIMERS: Final = [int(signal.ITIMER_PROF), int(signal.ITIMER_VIRTUAL)]
_OFF: Final = (0.0, 0.0)
_LIMITS: Final = sorted(
    {value for name, value in vars(resource).items() if name.startswith("RLIMIT_")}
)
type Look = tuple[str, Callable[[], Any], Callable[[Any], object]]


def _ids() -> tuple[Any, ...]:
    return os.getresuid(), os.getresgid(), os.getgroups()


def _put_ids(before: tuple[Any, ...]) -> None:
    users, groups, others = before
    os.setresuid(*users)  # first: the rest needs root's rights back
    os.setresgid(*groups)
    if os.getgroups() != others:
        os.setgroups(others)


def _put_scheduling(before: tuple[int, int]) -> None:
    os.sched_setscheduler(0, before[0], os.sched_param(before[1]))


def _oom() -> int:
    # For 1 µs, where opening it each time takes ten.
    return int(os.pread(_oom_file(os.getpid()), 16, 0))


@cache
def _oom_file(pid: int) -> int:
    return os.open(f"/proc/{pid}/oom_score_adj", os.O_RDONLY | os.O_CLOEXEC)


def _put_oom(before: int) -> None:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(before))


# What has one function to look and one to put back (3 µs for all looks).
_LOOKS: Final[list[Look]] = [
    ("user or groups", _ids, _put_ids),
    ("niceness", partial(os.getpriority, os.PRIO_PROCESS, 0),
     partial(os.setpriority, os.PRIO_PROCESS, 0)),
    ("scheduling policy", lambda: (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority),
     _put_scheduling),
    ("CPU affinity", partial(os.sched_getaffinity, 0), partial(os.sched_setaffinity, 0)),
    ("oom_score_adj", _oom, _put_oom),
]  # fmt: skip


def _found(look: Look) -> Any:
    """Return what ``look`` finds, None where this system has no such thing (musl, no /proc)."""
    try:
        return look[1]()
    except OSError:
        return None


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
        self._found = {look: found for look in _LOOKS if (found := _found(look)) is not None}
        self._told: set[tuple[str, str]] = set()

    def put_back(self, task: Snapshot, took_s: float) -> bool:
        """Put back what ``task``, which took ``took_s``, has changed.

        Returns:
            Whether that was possible; if not, another process has to take this one's place.
        """
        try:
            os.fchdir(self._directory)  # asking where we are costs more
            umask = os.umask(self._umask)
            if (
                umask == self._umask and getitimer(_TIMER) == _OFF
                and self._environ == self._variables
                and [getsignal(number) for number in _HANDLED] == self._handlers
                and took_s < LONG_S
            ):  # fmt: skip
                return True
            changed = ["umask"] if umask != self._umask else []
            # Before their handlers: without one, the signal ends this process.
            timers = [signal.setitimer(which, 0) for which in (_TIMER, *self._cpu_timers)]
            if any(each != _OFF for each in timers):
                changed.append("interval timer")
            if self._environ != self._variables:
                changed.append("environment variables")
                self._put_back_variables()
            self._put_back_handlers(_HANDLED, self._handlers, changed)
            if took_s >= LONG_S:
                self._put_back_the_rest(changed)
        except (OSError, ValueError, locale.Error) as error:
            self._say(task, f"{error}; this worker is replaced")
            return False
        for what in dict.fromkeys(changed):
            self._say(task, f"{what}: put back")
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
        if (mask := signal.pthread_sigmask(signal.SIG_BLOCK, ())) != self._mask:
            changed.append("signal mask")
            # What came meanwhile was for the task: its alarm, say, which would end this process.
            while signal.sigtimedwait(mask - self._mask, 0):
                pass
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        if locale.setlocale(locale.LC_ALL) != self._locale:
            changed.append("locale")
            locale.setlocale(locale.LC_ALL, self._locale)
        for which, limits in zip(_LIMITS, self._limits, strict=True):
            if resource.getrlimit(which) != limits:
                changed.append("resource limits")
                resource.setrlimit(which, limits)
        for look, before in self._found.items():
            what, now, put = look
            if now() != before:
                put(before)
                if (after := now()) == before:
                    changed.append(what)
                else:  # not the task's doing: a cpuset, say, that has fewer processors now
                    self._found[look] = after

    def _say(self, task: Snapshot, text: str) -> None:
        """Log ``text`` once for each task's path, or a task that runs each second fills the log."""
        path = task_path(task.meta)
        if (path, text) not in self._told:
            self._told.add((path, text))
            logger.warning(
                "alias=%s Task id=%s path=%s left its worker's process changed: %s",
                self._alias, task.result_id, path, text,
            )  # fmt: skip

    def _put_back_handlers(
        self, numbers: list[int], handlers: list[Handler], changed: list[str]
    ) -> None:
        for number, handler in zip(numbers, handlers, strict=True):
            # None: C code set the handler, and Python cannot set it again.
            if handler is not None and getsignal(number) != handler:
                changed.append("signal handlers")
                signal.signal(number, handler)
