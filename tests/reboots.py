"""A host that is restarted, as far as a ring in a directory can tell."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from django_tasks_local.ring import ring_name
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm.objects import SEMAPHORES
from django_tasks_local.ring.shm.places import segment_path, semaphore_name, semaphore_path
from tests.rings import Rings

# The boot in which a file was attached last, for all that its header says.
EARLIER: Final = 0x0123456789ABCDEF


class RingsOnDisk(Rings):
    """As `Rings`, in a directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.name = ring_name("unit", uuid4().hex, str(directory))

    def reboot(self) -> None:
        """Ends all processes by force; what lies in memory is gone, and the boot is another."""
        for peer in self._peers:
            peer.kill()
        restart(self.name)


def restart(name: str) -> None:
    """Has a ring look as after a restart of its host. Nobody may have it open."""
    forget_semaphores(name)
    with open(segment_path(name), "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), EARLIER.to_bytes(8, at.BYTE_ORDER), at.H_BOOT * 8)


def forget_semaphores(name: str) -> None:
    """Removes all of a ring that lies in memory, as the end of a container does."""
    for letters in SEMAPHORES:
        with suppress(FileNotFoundError):
            os.unlink(semaphore_path(semaphore_name(name) + letters))
