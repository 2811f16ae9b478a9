"""What to say when a ring cannot be used: what is wrong, where, and the way out."""

import errno
import os
from typing import Final

import posix_ipc

from django_tasks_local.exceptions import StoreUnavailable

from .directories import file_system_of
from .places import MEMORY

NO_ROOM: Final = (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT)
MORE_SHM: Final = f"give {MEMORY} more room (docker run --shm-size=256m; Compose: shm_size)"


def unavailable(error: Exception, path: str) -> StoreUnavailable:
    """Return what to say where an object cannot be opened or made."""
    number = getattr(error, "errno", None)
    directory = os.path.dirname(path)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return no_space(path)
    if isinstance(error, posix_ipc.PermissionsError) or number in (errno.EACCES, errno.EPERM):
        what, fix = (
            "permission denied: it belongs to another user",
            "remove it, or choose another NAMESPACE",
        )
    elif number == errno.EFBIG:
        what, fix = (
            "it is larger than any file that this process may make (RLIMIT_FSIZE)",
            "raise that limit (ulimit -f; LimitFSIZE of systemd), or lower SHM_SIZE",
        )
    elif number == errno.ELOOP:
        what, fix = "it is a symbolic link", "remove it: nothing of ours makes one"
    elif isinstance(error, posix_ipc.ExistentialError):
        what, fix = "it was removed", "the next site process that uses the backend makes a new one"
    elif number == errno.EROFS:
        what, fix = (
            f"the file system of {directory}, of type {file_system_of(directory) or 'unknown'}, is "
            "mounted read-only",
            "mount it for writing, or set DIRECTORY to a directory on another one",
        )
    elif not os.path.isdir(directory):
        what, fix = f"there is no {directory}", f"mount a tmpfs on {directory}"
    elif directory == MEMORY:
        what, fix = f"it cannot be opened ({error})", f"see that {MEMORY} is a writable tmpfs"
    else:
        kind = file_system_of(directory) or "unknown"
        what = f"it cannot be opened ({error}) on this file system, of type {kind}"
        fix = "set DIRECTORY to a directory on another disk"
    return StoreUnavailable(what, path=path, fix=fix)


def inconsistent(path: str) -> StoreUnavailable:
    """Return what to raise, with the dirty word set, where derived words are wrong."""
    return StoreUnavailable(
        "its lists do not fit its slots", path=path, fix="they are rebuilt at the next use"
    )


def lost_hold(path: str) -> StoreUnavailable:
    """Return what to raise where others took this process for dead."""
    return StoreUnavailable(
        "this process lost its record locks in the ring and was taken for dead",
        path=path,
        fix="do not close descriptors that others opened (os.closerange)",
    )


def no_space(path: str) -> StoreUnavailable:
    """Return what to say when `/dev/shm`, or another file system, is full."""
    directory = os.path.dirname(path)
    return StoreUnavailable(
        no_room_in(directory),
        path=path,
        fix=f"{more_room_in(directory)} or lower SHM_SIZE, MAX_PENDING or MAX_RESULTS",
    )


def not_written(error: OSError, path: str) -> StoreUnavailable:
    """Return what to raise where the kernel cannot bring a ring to its disk."""
    return StoreUnavailable(
        f"it cannot be written to its disk ({error.strerror}); what was stored is in memory, and "
        "may not survive a reboot",
        path=path,
        fix="see what the kernel says of that disk (dmesg)",
    )


def no_room_in(directory: str) -> str:
    """Return that there is no room left where a ring lies."""
    return f"{directory} is full" if directory == MEMORY else f"the disk of {directory} is full"


def more_room_in(directory: str) -> str:
    """Return what makes room there."""
    return MORE_SHM if directory == MEMORY else "make room on it (df shows how much there is)"


def frozen(pid: int, path: str, for_s: float) -> StoreUnavailable:
    """Return what to raise where process `pid` has kept the guard for too long."""
    who = f"process {pid}" if pid > 0 else "a process in another pid namespace"
    return StoreUnavailable(
        f"{who} has been inside the ring for more than {for_s:.0f} s; it is alive but does not "
        "run (stopped, or held by a debugger)",
        path=path,
        fix=f"continue it (kill -CONT {pid if pid > 0 else 'PID'}) or end it; the ring recovers "
        "by itself",
    )
