"""Where the objects of a ring lie: their names, and their paths in the file system.

The name of a ring in memory is that of POSIX shared memory, ``/dtl-1000-0123456789ab``. Where its
segment lies in another directory, that stands before it, and the semaphores have a name of their
own: they always lie in memory.
"""

import os
from hashlib import blake2s
from typing import Final

# Where POSIX shared memory and named semaphores lie on Linux.
MEMORY: Final = "/dev/shm"


def ring_name(alias: str, namespace: str, directory: str = MEMORY) -> str:
    """Return the name of a ring.

    Args:
        alias: The alias of the backend.
        namespace: What tells this site from others.
        directory: Where its segment lies, without symbolic links.
    """
    # An alias may be any text, halves of surrogate pairs included. The directory is no part of it:
    # a volume may be mounted elsewhere tomorrow.
    text = f"{alias}\0{namespace}".encode(errors="surrogatepass")
    name = f"/dtl-{os.geteuid()}-{_digest(text)}"
    return name if directory == MEMORY else f"{directory}{name}"


def directory_of(name: str) -> str:
    """Return the directory in which a ring's segment lies."""
    return name.rpartition("/")[0] or MEMORY


def base_name(name: str) -> str:
    """Return the name that a ring would have in memory."""
    return f"/{name.rpartition('/')[2]}"


def is_in_memory(name: str) -> bool:
    """Return whether a ring ends with the host."""
    return name.rfind("/") == 0


def segment_path(name: str) -> str:
    """Return where a ring's segment lies in the file system."""
    return f"{MEMORY if is_in_memory(name) else ''}{name}s"


def semaphore_name(name: str) -> str:
    """Return the common part of the names of a ring's semaphores, at most 30 characters."""
    if is_in_memory(name):
        return name
    # The same alias may have had a ring in memory, or in another directory.
    owner = name.rpartition("/")[2].rpartition("-")[0]
    return f"/{owner}-{_digest(os.fsencode(name))}"


def semaphore_path(name: str) -> str:
    """Return where a named semaphore lies in the file system, as glibc and musl have it."""
    return f"{MEMORY}/sem.{name[1:]}"


def inode_of(path: str) -> int:
    """Return the inode behind a path, 0 where there is nothing."""
    try:
        return os.stat(path, follow_symlinks=False).st_ino
    except OSError:
        return 0


def ring_exists(name: str) -> bool:
    """Return whether there is a segment of that name."""
    return inode_of(segment_path(name)) != 0


def ring_names(directories: tuple[str, ...] = ()) -> list[str]:
    """Return the names of all rings of this user, as far as their files' names tell.

    Args:
        directories: Where to look beside ``/dev/shm``.
    """
    prefix = f"dtl-{os.geteuid()}-"
    found = []
    for directory in dict.fromkeys((MEMORY, *directories)):
        try:
            files = sorted(os.listdir(directory))
        except OSError:  # it is not there, or not ours to read
            continue
        base = "" if directory == MEMORY else directory
        found += [
            f"{base}/{file[:-1]}" for file in files if file.startswith(prefix) and file[-1] == "s"
        ]
    return found


def _digest(text: bytes) -> str:
    return blake2s(text, digest_size=6).hexdigest()
