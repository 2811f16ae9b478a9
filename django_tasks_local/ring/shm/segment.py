"""A ring's file as this process has it open: found or made, mapped, and kept as long as needed.

What is Linux's own (``posix_fallocate``, record locks on shared memory, ``/dev/shm``) stays in this
module, in ``directories``, ``disk``, ``header``, ``objects``, ``places`` and ``lock``.
"""

import ctypes
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import sleep
from typing import Final

import posix_ipc

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format import layout as at

from . import patience
from .directories import must_hold_rings
from .disk import keep_pages_single, read_ahead, sync_entry, write_zeros
from .errors import frozen, not_written, unavailable
from .header import (
    DESTROY,
    geometry_of,
    is_half_made,
    prepare,
    read_head,
    sound_geometry,
    unusable,
)
from .identity import inode_check, is_inode
from .lock import GUARD, LIVENESS, ByteLock, any_held
from .mutex import Mutex
from .objects import open_segment, standard_descriptors
from .patience import Patience, Sighting
from .places import directory_of, is_in_memory, ring_exists, segment_path, semaphore_name


class Segment:
    """One attached segment: its descriptor, its memory and its geometry.

    There is one per ring and process, and it stays open as long as other processes may look at our
    record locks: closing *any* descriptor of the file would drop them, and the mapping has one of
    its own. A forked child goes on using it.

    Attributes:
        words: All of it as 8-byte words; one item access is one aligned load or store.
        bytes: All of it as bytes. Every write to the ring is an item or slice assignment to one
            of these two views, and nothing else (rule 10).
        still_open: Says whether our descriptor is still our segment: a task can close all it finds.
        mutexes: The mutex of each process, by pid; a forked child adds its own. One for all
            attachments of a process: record locks do not exclude its threads from each other.
        entries: Registry entries that attachments of a process hold, with its pid.
        semaphores: The opened semaphores, by their letter.
        address: Where it begins in the memory of this process and of what is forked from it.
        in_memory: Whether it ends with the host.
        semaphore_name: The common part of the names of its semaphores.
        limit: At least so many slots have memory, as far as this process has seen; it only grows.
    """

    def __init__(self, name: str, fd: int, geometry: at.Geometry) -> None:
        self.name = name
        self.path = segment_path(name)
        self.in_memory = is_in_memory(name)
        self.semaphore_name = semaphore_name(name)
        self.fd = fd
        self.geometry = geometry
        self.inode = os.fstat(fd).st_ino
        self.still_open = inode_check(fd, self.inode)
        self.mutexes: dict[int, Mutex] = {}
        self.entries: dict[int, int] = {}
        self.semaphores: dict[str, posix_ipc.Semaphore] = {}
        self.limit = 0
        self._memory = mmap.mmap(fd, geometry.segment_bytes)
        if not self.in_memory:
            self._memory.madvise(mmap.MADV_RANDOM)  # see `disk`
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        weakref.finalize(self, _close, fd, self.inode).atexit = False
        self.bytes = memoryview(self._memory)
        self.words = self.bytes.cast("Q")

    def find(self, data: bytes, start: int, end: int) -> int:
        """Return the first place of `data` between two offsets, -1 for none: up to 2 ms a MiB."""
        return self._memory.find(data, start, end)

    def unlinked(self) -> bool:
        """Return whether the name was removed (systemd's RemoveIPC does that at logout)."""
        return os.fstat(self.fd).st_nlink == 0

    def left(self) -> bool:
        """Return whether its name is gone and no other process is or ever will be attached.

        Then nobody looks at our record locks any more.
        """
        return self.still_open() and self.unlinked() and not any_held(self.fd, GUARD)

    def intact(self) -> bool:
        """Return whether it is still open and not unlinked, by one call."""
        try:
            found = os.fstat(self.fd)
        except OSError:
            return False
        return found.st_ino == self.inode and found.st_nlink > 0

    def must_be_whole(self) -> None:
        """Raise where the file is shorter than it was: touching what is gone is a SIGBUS."""
        found_bytes = os.fstat(self.fd).st_size
        if found_bytes < self.geometry.segment_bytes:
            raise StoreUnavailable(
                f"it was cut to {found_bytes} of {self.geometry.segment_bytes} bytes",
                path=self.path,
                fix=DESTROY,
            )

    def reserved(self) -> int:
        """Return how many slots have memory; no slot at or above it may be touched (rule 5)."""
        word = self.words[at.H_RESERVED]
        number: int = word & at.CRC_MASK
        if word >> 32 != number ^ at.CRC_MASK:  # as `layout.unchecked`, in half the time
            return 0
        slots = self.geometry.slots
        return number if number < slots else slots

    def must_hold(self, slot: int) -> None:
        """Check a slot that is not below `limit`, before it is touched: it may come from damage.

        Raises:
            IndexError: The slot has no memory. Inside the mutex that becomes a rebuild.
        """
        self.limit = max(self.limit, self.reserved())
        if slot >= self.limit:
            raise IndexError(f"slot {slot} of {self.limit}")

    def reserve(self, first: int, end: int) -> None:
        """Reserve memory for the slots `first` to `end` - 1, so that no write can be a SIGBUS.

        Raises:
            OSError: ENOSPC, the file system is full; nothing is lost by asking again.
        """
        for offset, length in self.geometry.ranges(first, end):
            os.posix_fallocate(self.fd, offset, length)

    def clear(self, first: int, end: int) -> None:
        """Write zeros where slots lie that were never used, if that is on a disk.

        Raises:
            OSError: ENOSPC, the disk is full.
        """
        if not self.in_memory:
            for offset, length in self.geometry.ranges(first, end):
                write_zeros(self.fd, offset, length)

    def read_ahead(self, end: int) -> None:
        """Have the kernel read all up to a slot, before that is looked at page by page."""
        for offset, length in ((0, at.COLUMNS_AT), *self.geometry.ranges(0, end)):
            read_ahead(self.fd, offset, length)

    def sync(self) -> None:
        """Wait until all that was stored so far is on the disk (0.1 to 10 ms).

        Raises:
            StoreUnavailable: The disk cannot be written.
        """
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            raise not_written(error, self.path) from error

    def sync_name(self) -> None:
        """Wait until the file can be found on the disk, and is as large as it is.

        Raises:
            StoreUnavailable: The disk cannot be written.
        """
        try:
            sync_entry(self.fd, self.path)
        except OSError as error:
            raise not_written(error, self.path) from error


def _close(fd: int, inode: int) -> None:
    """Close a segment's descriptor, if it still is that."""
    if is_inode(fd, inode):
        os.close(fd)


_segments: Final[dict[str, Segment]] = {}
# All that must not be freed, whether anything here still uses it or not. Freeing a segment closes
# two descriptors: that would drop the liveness locks by which the pool of a removed ring knows that
# it has still sites; and where a task closed the descriptors, the numbers may be of other files.
_kept: Final[list[Segment]] = []
# Record locks do not exclude the threads of one process from each other.
_attaching = threading.Lock()


def _after_fork() -> None:
    global _attaching
    _attaching = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def attach_segment(
    name: str, wanted: at.Geometry, *, temporary: bool = False, make: bool = True
) -> Segment:
    """Return the segment `name`, and make it where there is none.

    Args:
        name: As from `ring_name`.
        wanted: What the options ask for. A segment of another geometry is replaced where nobody
            is attached and nothing unfinished lies in it; else it stays as it is.
        temporary: Marks a new segment as that of a test run.
        make: False for a pool and its workers, which belong to one segment for good: they keep
            what this process has attached, though its name was removed, and never make one.

    Raises:
        StoreUnavailable: It is not ours, not private, damaged, of another layout with work in it,
            held by a frozen process, or there is no room for it; or, without `make`, it is gone.
    """
    waiting = Patience()
    while True:
        with _attaching:
            segment = _segments.get(name)
            if segment is not None and segment.still_open() and not (make and segment.unlinked()):
                segment.must_be_whole()
                return segment
            _kept[:] = [kept for kept in _kept if not kept.left()]
            try:
                with standard_descriptors():
                    found = _attach(name, open_segment(name, make), wanted, temporary)
            except OSError as error:
                raise unavailable(error, segment_path(name)) from error
            if isinstance(found, Segment):
                _kept.append(found)
                _segments[name] = found
                return found
        if found is not None:
            if waiting.ends(found):
                raise frozen(found.pid, segment_path(name), patience.FROZEN_S)
            sleep(0.001)


def _attach(name: str, fd: int, wanted: at.Geometry, temporary: bool) -> Segment | Sighting | None:
    """Check and map what is behind `fd`.

    Returns:
        None where its name was removed meanwhile, and who is inside where that must be waited for.
    """
    guard = ByteLock(fd, GUARD)
    segment = attached = None
    try:
        # What is sound stays so, and who is inside need not be waited for.
        geometry = sound_geometry(name, fd, wanted)
        if geometry is None:
            if not guard.acquire():
                pid = guard.holder()
                return None if pid is None else Sighting(pid, b"")
            # From here on nobody else makes, checks or removes this segment.
            geometry = prepare(name, fd, wanted, temporary)
        if geometry is not None:
            segment = Segment(name, fd, geometry)
            guard.release()
            attached = segment
    finally:
        # An open descriptor would keep the guard, and everybody else out, for as long as we live.
        if attached is None:
            os.close(fd)
    return attached


def look_at_segment(name: str) -> Segment | None:
    """Return the segment `name` as it is, None for none. Make nothing and wait for nobody.

    Raises:
        StoreUnavailable: It is not ours, not private, damaged, or of another layout; or there is
            none, and its directory can have none.
    """
    with _attaching:
        segment = _segments.get(name)
        if segment is not None and segment.intact():
            segment.must_be_whole()
            return segment
        if not ring_exists(name):
            if not is_in_memory(name):
                must_hold_rings(directory_of(name))
            return None
        path = segment_path(name)
        try:
            with standard_descriptors():
                fd = open_segment(name, make=False)
                head, size = read_head(fd)
                geometry = geometry_of(head, size)
                if geometry is None:
                    being_made = is_half_made(head, size) and not any_held(fd, LIVENESS)
                    os.close(fd)
                    if being_made:
                        return None
                    raise unusable(head, size, path)
                segment = Segment(name, fd, geometry)
        except OSError as error:
            raise unavailable(error, path) from error
        _kept.append(segment)
        _segments[name] = segment
        return segment


def attached(name: str) -> Segment | None:
    """Return what this process has open under that name, None for nothing."""
    return _segments.get(name)


def forget(name: str) -> None:
    """Have the next attachment open that name again."""
    _segments.pop(name, None)


@contextmanager
def opened_unattached(name: str) -> Iterator[int | None]:
    """Yield a descriptor of a ring that this process is not attached to, None for another.

    To close it drops all record locks of this process on that file, so no thread attaches before.

    Raises:
        OSError: It is not ours, or no file.
    """
    fd = None
    with _attaching:
        if name not in _segments:
            with suppress(FileNotFoundError):
                fd = os.open(segment_path(name), os.O_RDWR | os.O_NOFOLLOW)
                keep_pages_single(fd)
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)
