"""Whether a descriptor still is the file that it was opened for, asked with every outcome."""

import ctypes
import os
from collections.abc import Callable
from functools import partial
from typing import Final

_INODE: Final = 1  # the second word of `struct stat`, see `inode_check`


def inode_check(fd: int, inode: int) -> Callable[[], bool]:
    """Return a function that says whether `fd` is open and that inode.

    `os.fstat` makes an object of all that the kernel answers, for 1 to 2 µs, and gives up the GIL.
    The C function takes 0.6; where a C library has it under another name, or the inode stands
    elsewhere, `os.fstat` it is.
    """
    fallback = partial(is_inode, fd, inode)
    function = getattr(ctypes.PyDLL(None), "fstat", None)
    if function is None or not fallback():
        return fallback
    answer = (ctypes.c_uint64 * 64)()
    ask = partial(function, fd, ctypes.byref(answer))
    words = memoryview(answer).cast("B").cast("Q")

    def check() -> bool:
        return not ask() and words[_INODE] == inode

    return check if check() else fallback


def is_inode(fd: int, inode: int) -> bool:
    """Return whether a descriptor is open and that inode."""
    try:
        return os.fstat(fd).st_ino == inode
    except OSError:
        return False
