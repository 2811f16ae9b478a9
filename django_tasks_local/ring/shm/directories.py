"""Whether a ring can lie in a directory: refused where its locks or its memory would not hold.

What a ring needs of a file system is that all processes of the host see each other's record locks,
and each other's stores to a shared mapping at once. What lies on another host, or behind a process
that serves it, cannot be relied on for that, whatever it does on a good day.
"""

import os
import re
import stat
from typing import Final

from django_tasks_local.exceptions import StoreUnavailable

# By their names in /proc/self/mountinfo: network file systems, those of clusters, and those that a
# hypervisor or a process serves.
_SERVED: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fakeowner", "fuse", "fuseblk", "gfs2",
    "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs",
    "vboxsf", "virtiofs", "vmhgfs",
})  # fmt: skip
_WAY_OUT: Final = (
    "set DIRECTORY to a directory on a disk of this host (ext4, xfs, btrfs; in Docker a volume)"
)
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def must_hold_rings(directory: str) -> None:
    """Check a directory before a ring in it is opened or made (50 µs).

    Raises:
        StoreUnavailable: It is no directory, others may write to it, or its file system does not
            keep what a ring relies on.
    """
    try:
        found = os.stat(directory)
    except FileNotFoundError:
        raise StoreUnavailable(
            "there is no such directory",
            path=directory,
            fix=f"make it, for this user alone (install -d -m 700 -o {_user()} {directory}), or "
            "set DIRECTORY to another one",
        ) from None
    except OSError as error:
        raise StoreUnavailable(
            f"this directory cannot be looked at ({error.strerror})",
            path=directory,
            fix=f"give user {_user()} access to it, or set DIRECTORY to another one",
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise StoreUnavailable(
            "this is no directory", path=directory, fix="set DIRECTORY to a directory"
        )
    _must_be_ours(found, directory)
    kind = file_system_of(directory)
    if kind in _SERVED or kind.startswith("fuse."):
        raise StoreUnavailable(
            f"it is on a file system of type {kind}, which does not keep record locks and shared "
            "mappings as a ring needs them",
            path=directory,
            fix=_WAY_OUT,
        )


def must_lock(works: bool, path: str) -> None:
    """Refuse a file on which the kernel takes no record locks.

    Raises:
        StoreUnavailable: It is one.
    """
    if not works:
        kind = file_system_of(os.path.dirname(path))
        raise StoreUnavailable(
            f"its file system, of type {kind or 'unknown'}, has no record locks",
            path=path,
            fix=_WAY_OUT,
        )


def file_system_of(directory: str) -> str:
    """Return the type of the file system that a path is on, "" where the kernel does not say."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return type_among(file.read().splitlines(), directory)
    except OSError:
        return ""


def type_among(mounts: list[str], directory: str) -> str:
    """Return the type of the file system that a path is on.

    Args:
        mounts: The lines of ``/proc/self/mountinfo``.
        directory: The path, without symbolic links.
    """
    longest, kind = -1, ""
    for line in mounts:
        before, _, after = line.partition(" - ")
        point = _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
        inside = point == "/" or directory == point or directory.startswith(f"{point}/")
        # What was mounted last on the same place hides what was there.
        if inside and len(point) >= longest:
            longest, kind = len(point), after.split(" ")[0]
    return kind


def _must_be_ours(found: os.stat_result, directory: str) -> None:
    who = ""
    if found.st_uid not in (0, os.geteuid()):
        who = f"it belongs to uid {found.st_uid}, this process runs as uid {os.geteuid()}"
    elif found.st_mode & 0o022:
        who = f"its mode is {stat.S_IMODE(found.st_mode):04o}"
    if who:
        raise StoreUnavailable(
            f"refused to use it: others may write to this directory ({who}), and could put back an "
            "old ring, or take this one away",
            path=directory,
            fix=f"give it to this user alone (chown {_user()}, chmod 700), or make a directory in "
            "it and set DIRECTORY to that",
        )


def _user() -> int:
    return os.geteuid()
