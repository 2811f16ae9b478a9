"""Open a ring's objects: ours alone, whole, and never on a standard descriptor.

``/dev/shm`` is a directory for all users of the host. Whatever lies there under our names may have
been put there by another user, so nothing is used before its owner, mode and size were looked at.
"""

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import sleep
from typing import Final

import posix_ipc

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format import layout as at

from .directories import must_hold_rings, must_lock
from .disk import keep_pages_single
from .errors import unavailable
from .lock import can_lock
from .places import MEMORY, directory_of, is_in_memory, segment_path, semaphore_path

# sizeof(sem_t) on 64-bit Linux, glibc and musl alike. Using a shorter file is a SIGBUS.
SEMAPHORE_BYTES: Final = 32
_OURS: Final = 0o600  # the mode of each object
# How often to start again where an object is removed or made between two looks at it.
_ATTEMPTS: Final = 100
# The C library makes a semaphore under a name of its own (glibc's, musl's), gives it ours, and
# removes the first: for some microseconds it has two, and for good if it is killed in between.
_MAKERS_NAME: Final = re.compile(r"sem\.[0-9A-Za-z]{6}|tmp-[0-9]+", re.ASCII)
# How often to look again, a millisecond each, before the maker counts as dead.
_LOOKS_AT_LINKS: Final = 20
MUTEX: Final = "m"
_REMOVE: Final = "remove it, or choose another NAMESPACE"


def work_letters(code: int) -> str:
    """Return what the name of the semaphore of a code's workers ends with."""
    return f"w{code}"


# What the names of all of a ring's semaphores end with.
SEMAPHORES: Final = (MUTEX, *map(work_letters, range(at.CODES)))


@contextmanager
def standard_descriptors(*, inheritable: bool = False) -> Iterator[None]:
    """Keep the numbers 0, 1 and 2 occupied, so that nothing opened meanwhile gets one of them.

    A daemon may be born with its standard streams closed. If the ring became its descriptor 1, the
    first line that any library writes there would go over the ring's header.

    Args:
        inheritable: A program started meanwhile finds ``/dev/null`` where we have nothing.
    """
    held: list[int] = []
    try:
        while any(map(_is_closed, (0, 1, 2))):
            held.append(os.open(os.devnull, os.O_RDWR))
            if inheritable:
                os.set_inheritable(held[-1], True)
        yield
    finally:
        for fd in held:
            os.close(fd)


def fill_standard_descriptors() -> None:
    """Open ``/dev/null`` for good where a standard descriptor is closed: in processes of ours."""
    while any(map(_is_closed, (0, 1, 2))):
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def open_segment(name: str, make: bool) -> int:
    """Open the segment, made empty first where there is none and `make` says so.

    Raises:
        StoreUnavailable: There is none, or it is not ours alone.
    """
    path = segment_path(name)
    if sys.platform != "linux":
        raise StoreUnavailable(
            f"ProcessPoolBackend needs Linux; this is {sys.platform}",
            fix="use django_tasks_local.ThreadPoolBackend here",
        )
    if not is_in_memory(name):
        must_hold_rings(directory_of(name))
    try:
        fd = _open(name, make)
    except (OSError, posix_ipc.Error, ValueError) as error:
        raise unavailable(error, path) from error
    try:
        found = os.fstat(fd)
        _check_private(found, path)
        if not found.st_size and found.st_mode & _OURS != _OURS:  # just made, under a umask of 0777
            os.fchmod(fd, _OURS)
        # A file of ours that was given a second name: laying out a ring would destroy it.
        _check_only_name(found, path)
        must_lock(can_lock(fd), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open(name: str, make: bool) -> int:
    if is_in_memory(name):
        flags = posix_ipc.O_CREAT if make else 0
        return int(posix_ipc.SharedMemory(f"{name}s", flags, mode=_OURS).fd)
    flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
    fd = os.open(segment_path(name), flags, _OURS)
    keep_pages_single(fd)
    return fd


def open_semaphore(name: str) -> posix_ipc.Semaphore:
    """Open the named semaphore, made with the value 0 where there is none.

    Raises:
        StoreUnavailable: It is not ours alone, or no semaphore.
    """
    path = semaphore_path(name)
    try:
        with standard_descriptors():
            for _ in range(_ATTEMPTS):
                semaphore = _make(name) or _open_existing(name, path)
                if semaphore is not None:
                    return semaphore
    except (OSError, posix_ipc.Error, ValueError) as error:
        raise unavailable(error, path) from error
    raise _refused("it is removed and made again all the time", path)


def _make(name: str) -> posix_ipc.Semaphore | None:
    """Make a semaphore; None where something lies there already, or it is gone again.

    The second happens where another process removes the ring, by order or because nobody seems to
    be attached yet: who attaches then finds that out, and attaches to a new one.
    """
    # Exclusively: O_CREAT alone would open, unseen, what another user has put there.
    flags = posix_ipc.O_CREAT | posix_ipc.O_EXCL
    try:
        semaphore = posix_ipc.Semaphore(name, flags, mode=_OURS)
    except posix_ipc.ExistentialError:
        return None
    try:
        if os.stat(semaphore_path(name)).st_mode & _OURS != _OURS:
            os.chmod(semaphore_path(name), _OURS)  # in a directory where only we can remove it
    except FileNotFoundError:
        semaphore.close()
        return None
    return semaphore


def _open_existing(name: str, path: str) -> posix_ipc.Semaphore | None:
    """Open a semaphore that was there a moment ago; None where it changed meanwhile."""
    try:
        before = _stat_made(path)
        _check_semaphore(before, path)
        semaphore = posix_ipc.Semaphore(name)
    except (FileNotFoundError, posix_ipc.ExistentialError):
        return None
    # No use was made of it yet. If the name stands for the same file as before, we opened that one.
    after = None
    with suppress(OSError):
        after = os.stat(path, follow_symlinks=False)
    if after is not None and os.path.samestat(before, after):
        _check_semaphore(after, path)
        return semaphore
    semaphore.close()
    return None


def _stat_made(path: str) -> os.stat_result:
    """Return what a semaphore's file is, once the process that makes it has done so or has died."""
    for _ in range(_LOOKS_AT_LINKS):
        found = os.stat(path, follow_symlinks=False)
        if found.st_nlink == 1 or not stat.S_ISREG(found.st_mode):
            return found
        sleep(0.001)
    # A maker that only was slow does not miss the name.
    for entry in os.scandir(MEMORY):
        if _MAKERS_NAME.fullmatch(entry.name) and entry.inode() == found.st_ino:
            with suppress(OSError):
                os.unlink(entry.path)
    return os.stat(path, follow_symlinks=False)


def _check_semaphore(found: os.stat_result, path: str) -> None:
    _check_private(found, path)
    if found.st_size != SEMAPHORE_BYTES:
        raise _refused(f"it has {found.st_size} bytes, a semaphore has {SEMAPHORE_BYTES}", path)
    _check_only_name(found, path)


def _check_only_name(found: os.stat_result, path: str) -> None:
    if found.st_nlink > 1:
        raise _refused("it has more than one name (a hard link)", path)


def _check_private(found: os.stat_result, path: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode):
        raise _refused("it is not a regular file", path)
    if found.st_uid != os.geteuid():
        raise _refused(
            f"it belongs to uid {found.st_uid}, this process runs as uid {os.geteuid()}", path
        )
    if mode & 0o077:
        raise _refused(
            f"its mode is {mode:04o}, not 0600: others have access to what this process unpickles",
            path,
        )


def _refused(reason: str, path: str) -> StoreUnavailable:
    return StoreUnavailable(f"refused to attach: {reason}", path=path, fix=_REMOVE)


def _is_closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False
