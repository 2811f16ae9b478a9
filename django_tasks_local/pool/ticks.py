"""When the processes of a host look whether all is well: once a second, all at the same moment.

They are short of work then, not of time: 20 us of code that the processor has not seen for a
second take 200. Who comes right after another finds the code, the segment and the kernel's own
structures in the caches, which halves that; and a processor wakes from its sleep once.
"""

import time
from typing import Final

# With that, how long a killed pool may stay unnoticed where nobody enqueues.
TICK_S: Final = 1.0


def until_tick_s() -> float:
    """How long it is until the next tick."""
    return TICK_S - time.monotonic() % TICK_S  # one clock for all processes of the host
