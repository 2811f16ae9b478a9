"""Forked children for tests of what a whole process has."""

import os
import signal
import traceback
from collections.abc import Callable

from tests.support import SHORT_TIMEOUT


def in_a_child(body: Callable[[], object]) -> None:
    """Call `body` in a forked child, which has to come to its end."""
    pid = os.fork()
    if not pid:
        signal.alarm(int(SHORT_TIMEOUT))
        try:
            body()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
