"""Which boot of the host this is: a ring in a directory may have been left by an earlier one."""

import os
from functools import cache
from typing import Final

from django_tasks_local.ring.format import layout as at

from .places import MEMORY

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


@cache
def this_boot() -> int:
    """Return a number that this boot has and no other, 0 where the kernel does not say."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return int(file.read().replace("-", "")[:16], 16)
    except (OSError, ValueError):
        return 0


def boot_for(path: str) -> int:
    """Return what stands for this boot in the header of a segment; 0 in memory, which ends."""
    return 0 if os.path.dirname(path) == MEMORY else this_boot()


def is_of_another_boot(head: memoryview, path: str) -> bool:
    """Return whether nobody has attached to a segment since the host was started."""
    boot = boot_for(path)
    return boot not in (0, head[at.H_BOOT])


def note_restart(fd: int) -> None:
    """Have the process that is inside next rebuild, and so see which boot it was."""
    os.pwrite(fd, (1).to_bytes(8, at.BYTE_ORDER), at.H_DIRTY * 8)
