"""Pickled values in pieces: large bytes go into a chain, and out of it, by one copy each.

`pickle.dump` hands a large bytes object to its file as it is, between the opcodes around it. So a
payload is kept as what pickling wrote, a list, and only a chain puts it together. On the way back
`pickle.load` lets its file fill the memory of the new object, so it is copied straight to there.

What is unpickled lies in memory that others write to, and may be recycled under the reader. So no
opcode is looked at before it was copied to private memory and its CRC held there. Large bytes are
not looked at in any case: their CRC is taken in the new object, which nobody gets if it is wrong.
Therefore each large piece has a CRC of its own, in a table in front of the pieces.
"""

import pickle
from array import array
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, NoReturn

from django_tasks_local.ring.format.crc import crc32

from .source import Source

# Smaller pieces share a CRC with their neighbours, and are copied once more, in 20 µs at most. Each
# CRC lets go of the GIL, which takes 5 ms to come back where another thread computes.
LARGE: Final = 2**18  # 256 KiB
_COUNT: Final = Struct("=Q")

_dump = pickle.dump
# What most plain tasks are given, and what they return.
NO_ARGUMENTS: Final = pickle.dumps(((), {}), 5)
NONE: Final = pickle.dumps(None, 5)


class _Sink(list[Any]):
    """A file for `pickle.dump`: one piece where nothing in the value is large."""

    __slots__ = ()
    write = list.append


class Pickled:
    """A pickled value as it will lie in a chain: a table, then the pieces.

    Attributes:
        parts: The table and the pieces.
        table_bytes: What the table adds to the pickle.
        crc: The table's CRC-32; through it all of the rest is checked.
    """

    __slots__ = ("_size", "crc", "parts", "table_bytes")

    def __init__(self, pieces: list[bytes]) -> None:
        table = array("Q", [0])
        previous = LARGE
        for piece in pieces:
            if previous >= LARGE or len(piece) >= LARGE:
                table.extend((0, 0))
                table[0] += 1
            table[-2] += len(piece)
            table[-1] = crc32(piece, table[-1])
            previous = len(piece)
        head = table.tobytes()
        self.parts = [head, *pieces]
        self.table_bytes = len(head)
        self.crc = crc32(head)
        self._size = sum(map(len, self.parts))

    @classmethod
    def of(cls, payload: "bytes | Pickled") -> "Pickled":
        """Return a payload in the form in which it can be chained."""
        return payload if isinstance(payload, Pickled) else cls([payload])

    def __len__(self) -> int:
        return self._size


def encode(value: object, inline: int) -> bytes | Pickled:
    """Pickle a value: `bytes` where it has no large parts, or at most `inline` bytes.

    It may raise whatever pickling raises. (0.3 µs more than `pickle.dumps` for a small value.)
    """
    if value is None:
        return NONE
    sink = _Sink()
    _dump(value, sink, 5)
    last: bytes = sink.pop()
    if not sink:
        return last
    pieces = [piece if type(piece) is bytes else _frozen(piece) for piece in sink]
    pieces.append(last)
    if sum(map(len, pieces)) <= inline:
        return b"".join(pieces)
    return Pickled(pieces)


def _frozen(piece: Any) -> bytes:
    """Return a copy of what may change before it is stored: a bytearray, an array's buffer."""
    return bytes(pickle.PickleBuffer(piece).raw())


def decode(source: Source, size: int, crc: int, refuse: Callable[[], NoReturn]) -> Any:
    """Return what `Pickled` has put into a chain, unpickled.

    Args:
        source: The chain, at the start of the table.
        size: Of table and pieces.
        crc: The table's.
        refuse: Raises what there is to say when a CRC does not match.
    """
    table = _table(source, size, crc)
    if table is None:
        refuse()
    file = _Pieces(source, table, refuse)
    return pickle.loads(file.next_piece()) if len(table) == 1 else pickle.load(file)


def is_whole(source: Source, size: int, crc: int) -> bool:
    """Return whether every CRC holds; `decode` would not refuse it."""
    table = _table(source, size, crc)
    return table is not None and all(
        crc32(source.copy(length)) == wanted for length, wanted in table
    )


def _table(source: Source, size: int, crc: int) -> list[tuple[int, int]] | None:
    """Return lengths and CRCs of the pieces, None where they are not what was stored."""
    head = source.copy(_COUNT.size)
    if len(head) < _COUNT.size:
        return None
    (count,) = _COUNT.unpack(head)
    head += source.copy(min(count * 16, size))
    if len(head) != _COUNT.size + count * 16 or crc32(head) != crc:
        return None
    words = memoryview(head).cast("Q")[1:].tolist()
    return list(zip(words[::2], words[1::2], strict=True))


class _Pieces:
    """A file for `pickle.load`."""

    def __init__(
        self, source: Source, table: list[tuple[int, int]], refuse: Callable[[], NoReturn]
    ) -> None:
        self._source = source
        self._table = table[::-1]
        self._refuse = refuse
        self._held = memoryview(b"")  # what is left of the piece in hand: private, and checked

    def next_piece(self) -> bytes:
        """Return a copy of the next piece, checked; b"" behind the last."""
        length, crc = self._table.pop() if self._table else (0, 0)
        data = self._source.copy(length)
        if len(data) != length or crc32(data) != crc:
            self._refuse()
        return data

    def read(self, size: int) -> bytes:
        """Return `size` bytes; fewer at the end."""
        if not self._held:
            piece = self.next_piece()
            if len(piece) == size:  # large text: not once more
                return piece
            self._held = memoryview(piece)
        data = bytes(self._held[:size])
        self._held = self._held[size:]
        return data if len(data) == size or not self._table else data + self.read(size - len(data))

    def readinto(self, target: memoryview) -> int:
        """Fill `target` as far as there are bytes for it, and return how many."""
        place = 0
        while place < len(target):
            left = len(target) - place
            if self._held:
                part = self._held[:left]
                target[place : place + len(part)] = part
                self._held = self._held[len(part) :]
                place += len(part)
            elif not self._table:
                break
            elif self._table[-1][0] <= left:
                place = self._fill(target, place)
            else:
                self._held = memoryview(self.next_piece())
        return place

    def readline(self) -> bytes:
        """Return a line; the opcodes of our protocol have none, but `pickle.load` insists."""
        line = b""
        while not line.endswith(b"\n") and (byte := self.read(1)):
            line += byte
        return line

    def _fill(self, target: memoryview, start: int) -> int:
        """Copy the next piece to a place in `target`, and return where it ends there."""
        length, crc = self._table.pop()
        place = start
        for view in self._source.take(length):
            target[place : place + len(view)] = view
            place += len(view)
        if place - start != length or crc32(target[start:place]) != crc:
            self._refuse()
        return place
