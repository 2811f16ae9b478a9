"""Reading what a running task has reported: the last bytes of its head slot."""

import math

from django_tasks_local.progress import Progress
from django_tasks_local.ring.format.head import PROGRESS, PROGRESS_BYTES


def read_progress(
    words: memoryview, view: memoryview, place: int, generation: int
) -> Progress | None:
    """Return the progress that stands at a place, in bytes, for a record of this generation.

    No lock: its sequence word is odd while it is written.
    """
    for _ in range(100):
        sequence = words[place // 8]
        raw = bytes(view[place + 8 : place + PROGRESS_BYTES])
        if sequence >> 16 != generation:
            return None
        if not sequence & 1 and words[place // 8] == sequence:
            done, total, text = PROGRESS.unpack(raw)
            return Progress(
                _plain(done),
                None if math.isnan(total) else _plain(total),
                text.rstrip(b"\0").decode(errors="replace"),
            )
    return None  # its writer died in the middle, or never stops


def _plain(number: float) -> float:
    return int(number) if number.is_integer() else number
