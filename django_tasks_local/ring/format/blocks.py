"""A record's metadata, history and ties: each one block in a chain of its own, which checks itself.

```text
   0  LENGTH          of the data
   8  CRC             lower half: CRC-32 of the commit word of its slots, LENGTH and the upper half,
                      begun with what kind of block it is; upper half: CRC-32 of the data
  16  the data        metadata: JSON, an object, ASCII; the others: ``format.history``, ``.ties``
```

The commit word in the CRC says whose block it is: one that was recycled for another record does not
pass for that of the one before.
"""

from struct import Struct
from typing import Final

from . import layout as at
from .crc import crc32

_HEAD: Final = Struct("=2Q")
_COVERED: Final = Struct("=3Q")
_DATA_CRC_SHIFT: Final = 32
BLOCK_HEAD_BYTES: Final = _HEAD.size
# What a block is: the same data as something else is no block.
METADATA, HISTORY, TIES = range(3)
# All of a block is taken, written and named in one hold of the lock: 1 to 2 µs for each slot, and
# 0.1 ms for 1 MiB.
_MOST_SLOTS: Final = 64
_MOST_BYTES: Final = 2**20


class Block:
    """A block on its way into a ring, with all that can be computed outside the lock.

    Attributes:
        data: Its data; none where there is to be no block.
        size: Bytes of the block.
    """

    __slots__ = ("_data_crc", "_kind", "data", "size")

    def __init__(self, data: bytes, kind: int = METADATA) -> None:
        self.data = data
        self._kind = kind
        self.size = BLOCK_HEAD_BYTES + len(data)
        self._data_crc = crc32(data)

    def slots(self, slot_size: int) -> int:
        """Return how many slots it needs; none where there is no data."""
        return at.slots_for(self.size, slot_size) if self.data else 0

    def sealed(self, owner_word: int) -> bytes:
        """Return the bytes of the block for a chain whose slots bear `owner_word`."""
        length, data_crc = len(self.data), self._data_crc
        crc = crc32(_COVERED.pack(owner_word, length, data_crc), self._kind)
        return _HEAD.pack(length, data_crc << _DATA_CRC_SHIFT | crc) + self.data


def most_bytes(slot_size: int) -> int:
    """Return how long the data of a block may be."""
    return min(_MOST_SLOTS * slot_size, _MOST_BYTES) - BLOCK_HEAD_BYTES


def length_and_crc(head: bytes) -> tuple[int, int]:
    """Return the first two words of a block; (0, 0) where there is not so much of it."""
    if len(head) < _HEAD.size:
        return 0, 0
    length, crc = _HEAD.unpack(head)
    return length, crc


def is_whole(owner_word: int, crc: int, data: bytes, kind: int) -> bool:
    """Return whether `data` is what a block of this kind with this CRC word was made of."""
    data_crc = crc >> _DATA_CRC_SHIFT
    covered = _COVERED.pack(owner_word, len(data), data_crc)
    return crc32(data) == data_crc and crc32(covered, kind) == crc & at.CRC_MASK
