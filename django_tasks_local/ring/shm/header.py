"""The header of a segment: read before anything else is believed, and where a ring is laid out."""

import logging
import os
import time
from array import array
from typing import Final

from django_tasks_local.exceptions import StoreUnavailable, counted
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.crc import crc32

from .boots import boot_for, is_of_another_boot, note_restart
from .disk import sync_entry, write_zeros
from .errors import unavailable
from .lock import LIVENESS, any_held
from .places import MEMORY, segment_path

logger = logging.getLogger("django_tasks_local")

DESTROY: Final = "`manage.py local_tasks destroy` removes it, with all that is in it"


def read_head(fd: int) -> tuple[memoryview, int]:
    """Return the header's words, zeros where there are none yet, and the size of the file."""
    # pread, no mapping: closing a mapping closes a descriptor of the file, and drops the guard.
    head = os.pread(fd, at.PAGE, 0).ljust(at.PAGE, b"\0")
    return memoryview(head).cast("Q"), os.fstat(fd).st_size


def geometry_of(head: memoryview, size: int) -> at.Geometry | None:
    """Return what a complete header of our layout says, None for any other."""
    if head[at.H_MAGIC] != at.MAGIC or head[at.H_VERSION] != at.VERSION:
        return None
    if geometry_crc(head) != head[at.H_GEOMETRY_CRC]:
        return None
    geometry = at.Geometry(head[at.H_SLOT_SIZE], head[at.H_SLOTS])
    return geometry if geometry.segment_bytes == size else None


def is_half_made(head: memoryview, size: int) -> bool:
    """Return whether a header is what a process that dies in `_lay_out` leaves: nobody is attached.

    That is nothing, zeros, or all but the magic, in a file of the size that it says. Anything else
    was a ring once, or is another program's file, which a new ring would destroy. (A ring that was
    cut to no bytes at all looks like one that nobody has begun with.)
    """
    return not any(head) or bool(head[at.H_MAGIC] == 0 and head[at.H_SEGMENT_BYTES] == size)


def unusable(head: memoryview, size: int, path: str) -> StoreUnavailable:
    """Return why a header is not one of our layout."""
    if head[at.H_MAGIC] == at.MAGIC and size < at.PAGE:
        what = f"its header is damaged: it was cut to {counted(size, 'byte')}"
        return StoreUnavailable(what, path=path, fix=DESTROY)
    if head[at.H_MAGIC] != at.MAGIC:
        return StoreUnavailable("this is not a ring of django-tasks-local", path=path, fix=DESTROY)
    if head[at.H_VERSION] != at.VERSION:
        return StoreUnavailable(
            f"its layout is version {head[at.H_VERSION]}, this release writes {at.VERSION}, and "
            f"it holds {counted(head[at.H_UNFINISHED], 'unfinished task')}",
            path=path,
            fix=f"let the release that wrote it finish them; {DESTROY}",
        )
    return StoreUnavailable("its header is damaged", path=path, fix=DESTROY)


def geometry_crc(head: "memoryview | array[int]") -> int:
    """Return the CRC of the words that say how large everything is."""
    return crc32(bytes(head[at.H_VERSION : at.H_GEOMETRY_CRC]))


def write_geometry(head: "memoryview | array[int]", geometry: at.Geometry) -> None:
    """Write the words that say how large everything is, and their CRC."""
    head[at.H_VERSION] = at.VERSION
    head[at.H_SEGMENT_BYTES] = geometry.segment_bytes
    head[at.H_SLOT_SIZE] = geometry.slot_size
    head[at.H_SLOTS] = geometry.slots
    head[at.H_ENTRIES] = at.ENTRIES
    head[at.H_GEOMETRY_CRC] = geometry_crc(head)


def sound_geometry(name: str, fd: int, wanted: at.Geometry) -> at.Geometry | None:
    """Return the geometry of a segment that is complete and stays as it is, None for any other."""
    if os.fstat(fd).st_nlink == 0:
        return None
    head, size = read_head(fd)
    geometry = geometry_of(head, size)
    if is_of_another_boot(head, segment_path(name)) and not any_held(fd, LIVENESS):
        return None
    if geometry is not None and geometry != wanted:
        if not any_held(fd, LIVENESS):
            return None
        _warn_of_old_sizes(name, geometry)
    return geometry


def _warn_of_old_sizes(name: str, geometry: at.Geometry) -> None:
    logger.warning(
        "ring=%s SLOT_SIZE or SHM_SIZE changed; the old sizes (%d, %d) hold until nobody is "
        "attached and nothing is unfinished", name, geometry.slot_size, geometry.segment_bytes,
    )  # fmt: skip


def prepare(name: str, fd: int, wanted: at.Geometry, temporary: bool) -> at.Geometry | None:
    """Return the geometry of the segment behind `fd`, None to open it again (guard held)."""
    if os.fstat(fd).st_nlink == 0:
        return None
    path = segment_path(name)
    head, size = read_head(fd)
    attached_to = any_held(fd, LIVENESS)
    if is_half_made(head, size) and not attached_to:
        return _lay_out(fd, wanted, temporary, path)
    idle = size >= at.PAGE and not (attached_to or head[at.H_UNFINISHED] or head[at.H_DIRTY])
    if head[at.H_MAGIC] == at.MAGIC and head[at.H_VERSION] != at.VERSION and idle:
        logger.warning(
            "ring=%s has layout %d, this release writes %d; nothing unfinished was in it: "
            "replaced, kept results are dropped", name, head[at.H_VERSION], at.VERSION,
        )  # fmt: skip
        os.unlink(path)
        return None
    geometry = geometry_of(head, size)
    if geometry is None:
        raise unusable(head, size, path)
    if is_of_another_boot(head, path) and not attached_to:
        note_restart(fd)
        idle = False  # its counts may be older than its records
    if geometry != wanted:
        if idle:
            logger.warning(
                "ring=%s SLOT_SIZE or SHM_SIZE changed: replaced, kept results are dropped", name
            )
            os.unlink(path)
            return None
        _warn_of_old_sizes(name, geometry)
    return geometry


def _lay_out(fd: int, geometry: at.Geometry, temporary: bool, path: str) -> at.Geometry:
    """Make an empty ring. The magic comes last: without it the next process starts again."""
    on_disk = os.path.dirname(path) != MEMORY
    try:
        os.ftruncate(fd, 0)
        os.ftruncate(fd, geometry.segment_bytes)
        first_step = geometry.first_step
        for offset, length in ((0, at.COLUMNS_AT), *geometry.ranges(0, first_step)):
            os.posix_fallocate(fd, offset, length)
            if on_disk:
                write_zeros(fd, offset, length)
    except OSError as error:
        os.ftruncate(fd, 0)
        raise unavailable(error, path) from error
    head = array("Q", bytes(at.PAGE))
    write_geometry(head, geometry)
    head[at.H_RESERVED] = at.checked(first_step)
    head[at.H_FREE] = first_step - 1
    head[at.H_TICK] = 1
    head[at.H_TEMPORARY] = temporary
    head[at.H_BOOT] = boot_for(path)
    head[at.H_MADE_AT] = time.time_ns()
    os.pwrite(fd, head, 0)
    if on_disk:
        os.fsync(fd)
    head[at.H_MAGIC] = at.MAGIC
    os.pwrite(fd, memoryview(head)[:1], 0)
    if on_disk:
        sync_entry(fd, path)
    return geometry
