"""The signs by which a worker sees between two tasks whether anything is asked of it."""

from django_tasks_local.ring.format import layout as at

from .segment import Segment

# What the pool is and allows; the workers that are there, wanted and allowed; losses that are still
# to be announced; the newest site. In the order in which they are read.
type Seen = tuple[bytes, bytes, bytes, bytes]


class Signs:
    """Words that hardly ever change: copied between two tasks, and looked at where they differ.

    Args:
        segment: The ring.
        pool: The worker's pool (its entry).
        code: The number of its code.
    """

    def __init__(self, segment: Segment, pool: int, code: int) -> None:
        def view(first: int, end: int) -> memoryview:
            return segment.bytes[first * 8 : end * 8]

        entry = at.REGISTRY_AT + pool * at.ENTRY_WORDS
        newest = at.code_word(code, at.C_NEWEST)
        self._pool = view(entry, entry + at.E_STATE + 1)
        self._workers = view(at.H_POOL_WORKERS, at.H_MAX_WORKERS + 1)
        self._untold = view(at.H_UNTOLD, at.H_UNTOLD + at.CODES)
        self._newest = view(newest, newest + 1)

    def read(self) -> Seen:
        """Return the words as they are now.

        Any task that the pool allows in them is from a site that is no newer than the one there.
        """
        return (
            self._pool.tobytes(), self._workers.tobytes(), self._untold.tobytes(),
            self._newest.tobytes(),
        )  # fmt: skip


def ask_nothing(seen: Seen) -> bool:
    """Return whether no pool waits for workers of others, and no loss is to be announced."""
    _, workers, untold, _ = seen
    wanted = (at.H_WANTED - at.H_POOL_WORKERS) * 8
    return not (any(workers[wanted : wanted + 8]) or any(untold))
