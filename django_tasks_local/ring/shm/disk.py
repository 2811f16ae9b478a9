"""What a ring's file on a disk needs: pages of their own, blocks that are there, and its name.

A kernel that reads or writes several pages at once may keep them as one from then on (a "large
folio"), and writes all of that to the disk where one byte of it has changed. The pages that an
operation changes lie apart: as single ones they are 10, as large folios they were 180 (measured on
ext4 of Linux 6.18), and each wait for the disk was one for all of these.
"""

import ctypes
import errno
import mmap
import os
from contextlib import suppress
from typing import Final

_ZEROS: Final = bytes(mmap.PAGESIZE)
# The kernel reads no more than this for one wish, where its settings are the default.
_READ_AHEAD_BYTES: Final = 128 * 1024
# PyDLL keeps the GIL: a ring grows with its lock held, and to get the GIL back takes up to 5 ms
# under busy threads, for each of 256 pages.
_pwrite: Final = ctypes.PyDLL(None, use_errno=True).pwrite
_pwrite.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_longlong]
_pwrite.restype = ctypes.c_ssize_t


def keep_pages_single(fd: int) -> None:
    """Have the kernel read each page of a file by itself; for its mapping, `MADV_RANDOM` does."""
    with suppress(OSError):  # whatever cannot be advised is refused elsewhere, or only slower
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)


def write_zeros(fd: int, offset: int, length: int) -> None:
    """Write zeros where memory was reserved and never used, page by page (3 µs each).

    Else the first write to each block would change what the file system has noted of it, and each
    wait for the disk would be one for its journal, too: 1.9 ms in place of 0.13.

    Raises:
        OSError: The disk is full, or broken.
    """
    end = offset + length
    while offset < end:
        size = min(mmap.PAGESIZE - offset % mmap.PAGESIZE, end - offset)
        if _pwrite(fd, _ZEROS, size, offset) != size:
            number = ctypes.get_errno() or errno.ENOSPC
            raise OSError(number, os.strerror(number))
        offset += size


def read_ahead(fd: int, offset: int, length: int) -> None:
    """Have the kernel read a part of the file that is about to be looked at, and do not wait."""
    for start in range(offset, offset + length, _READ_AHEAD_BYTES):
        size = min(_READ_AHEAD_BYTES, offset + length - start)
        os.posix_fadvise(fd, start, size, os.POSIX_FADV_WILLNEED)


def sync_entry(fd: int, path: str) -> None:
    """Wait until a file, its size and its name are on the disk."""
    os.fsync(fd)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
