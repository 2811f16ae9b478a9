"""An exception at any point at which Python runs signal handlers.

That is when it enters a function, after it called one of C, and when it jumps back in a loop:
`sys.monitoring` stops at exactly these.
"""

import sys
from types import CodeType

TOOL = sys.monitoring.DEBUGGER_ID


class Interrupt(BaseException):
    """What a handler raises: no `Exception`, as gunicorn's SystemExit is none."""


class Interrupter:
    """Raises at the n-th point at which a signal handler could have run.

    Args:
        where: What is in the names of the files whose points count.
        at: The point, from 1 on.
        times: How many in a row raise.
    """

    def __init__(self, where: str, at: int, times: int) -> None:
        self._where = where
        self._at = at
        self._times = times
        self._count = 0

    def __enter__(self) -> None:
        events = sys.monitoring.events
        sys.monitoring.use_tool_id(TOOL, "interrupts")
        sys.monitoring.register_callback(TOOL, events.PY_START, self._point)
        sys.monitoring.register_callback(TOOL, events.C_RETURN, self._point)
        sys.monitoring.register_callback(TOOL, events.JUMP, self._jump)
        # C_RETURN is only seen where CALL is.
        sys.monitoring.set_events(TOOL, events.PY_START | events.CALL | events.JUMP)

    def __exit__(self, *_: object) -> None:
        sys.monitoring.set_events(TOOL, 0)
        sys.monitoring.free_tool_id(TOOL)

    def _point(self, code: CodeType, *_: object) -> None:
        if self._where not in code.co_filename:
            return
        self._count += 1
        if self._at <= self._count < self._at + self._times:
            raise Interrupt

    def _jump(self, code: CodeType, offset: int, destination: int) -> None:
        if destination < offset:
            self._point(code)
