"""Bytes of a chain, read once and in order."""

from collections.abc import Iterator


class Source:
    """What is left to read of a chain."""

    def __init__(self, view: memoryview, places: Iterator[tuple[int, int]]) -> None:
        self._view = view
        self._places = places
        self._place = self._end = 0

    def take(self, size: int) -> list[memoryview]:
        """Return views of the next `size` bytes, or fewer; others may write to them."""
        views = []
        while size > 0:
            if self._place == self._end:
                self._place, self._end = next(self._places, (0, 0))
                if not self._end:
                    break
            part = min(size, self._end - self._place)
            views.append(self._view[self._place : self._place + part])
            self._place += part
            size -= part
        return views

    def copy(self, size: int) -> bytes:
        """Return a private copy of the next `size` bytes; fewer where the chain ends."""
        return b"".join(self.take(size))  # the one copy, also where there is but one view
