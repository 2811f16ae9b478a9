"""A limit on the time of a test, after which all stacks are dumped and the test fails.

An alarm signal, and no watchdog thread: a test process with a second thread can't fork without a
DeprecationWarning. faulthandler dumps the stacks in C, before Python's handler, so that they show
even where the main thread keeps the GIL for good.

What the handler raises is not always heard: posix_ipc swallows it where it interrupts a wait, and
the package then rightly waits on. So it is tried in three ways, `AGAIN_S` apart: raised in the
handler; raised by a trace function at the interrupted frame's next line; the whole run ended.
"""

import faulthandler
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO, Final

import pytest
from _pytest.outcomes import Failed

from tests import support

# A test that takes longer hangs: the slowest drains a pool twice. Lower: false alarms on a loaded
# machine. Higher: one hanging test eats the whole run's time.
LIMIT_S: Final = 120.0
AGAIN_S: Final = 5.0


class TimeLimit(Failed):
    """Not an Exception: code that catches everything a task raises must not catch this."""

    def __init__(self) -> None:
        super().__init__("this test ran into its time limit; all stacks are on stderr")


class Alarm:
    """The alarm of this process. To be made while pytest does not capture stderr."""

    def __init__(self) -> None:
        self._rung = 0
        self.stderr = os.fdopen(os.dup(2), "w")
        signal.signal(signal.SIGALRM, self._ring)
        self.dump_to(self.stderr)

    def dump_to(self, file: IO[str]) -> None:
        """Has the stacks written to another file than the real stderr."""
        faulthandler.register(signal.SIGALRM, file=file, all_threads=True, chain=True)

    def close(self) -> None:
        """Switches it off for good."""
        faulthandler.unregister(signal.SIGALRM)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        self.stderr.close()

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Give the block this much time."""
        self._rung = 0
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if self._rung > 1:
                sys.settrace(None)

    def _ring(self, signum: int, frame: FrameType | None) -> None:
        self._rung += 1
        if self._rung == 1:
            raise TimeLimit
        if self._rung == 2:
            assert frame is not None
            frame.f_trace = _raise
            sys.settrace(_raise_nothing)  # without any, the frame's own is not called
            return
        test = os.environ.get("PYTEST_CURRENT_TEST")
        self.stderr.write(f"\n{test} hangs and can't be interrupted: the run ends here\n")
        self.stderr.flush()
        for pid in support.marked_pids(os.environ[support.MARK]):
            support.kill(pid)
        os._exit(pytest.ExitCode.INTERNAL_ERROR)


def _raise(frame: FrameType, event: str, argument: object) -> None:
    raise TimeLimit


def _raise_nothing(frame: FrameType, event: str, argument: object) -> None:
    pass
