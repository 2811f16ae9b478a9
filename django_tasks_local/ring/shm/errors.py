"""What to say when a ring cannot be used: what is wrong, where, and the way out."""

import errno
import os
from typing import Final

import posix_ipc

from django_tasks_local.exceptions import StoreUnavailable

DIRECTORY: Final = "/dev/shm"
MORE_SHM: Final = f"give {DIRECTORY} more room (docker run --shm-size=256m; Compose: shm_size)"


def unavailable(error: Exception, path: str) -> StoreUnavailable:
    """Return what to say where an object cannot be opened or made."""
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC:
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
    elif not os.path.isdir(DIRECTORY):
        what, fix = f"there is no {DIRECTORY}", f"mount a tmpfs on {DIRECTORY}"
    else:
        what, fix = f"it cannot be opened ({error})", f"see that {DIRECTORY} is a writable tmpfs"
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
    """Return what to say when `/dev/shm` is full."""
    return StoreUnavailable(
        f"{DIRECTORY} is full",
        path=path,
        fix=f"{MORE_SHM} or lower SHM_SIZE, MAX_PENDING or MAX_RESULTS",
    )


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
