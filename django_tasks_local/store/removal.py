"""Take a ring's names away: by order, or because its test run has ended.

A process that has the objects open goes on with nameless ones, finds that out at its next look
(`Segment.intact`), and attaches to a new ring.
"""

import os
from contextlib import suppress
from time import sleep
from typing import Final

from . import layout as at
from . import segment as segments
from .lock import GUARD, SUCCESSOR, ByteLock, any_held
from .objects import SEMAPHORES, segment_path, semaphore_path
from .trouble import DIRECTORY

# How often to ask for the guard, a millisecond each, before its holder counts as attached.
_ATTEMPTS: Final = 50


def unlink_objects(name: str) -> None:
    """Removes the names of a ring's objects, though processes may be attached."""
    segments.forget(name)
    for path in (segment_path(name), *(semaphore_path(name + letters) for letters in SEMAPHORES)):
        with suppress(OSError):
            os.unlink(path)


def unlink_unattached(name: str) -> bool:
    """Removes a ring unless another process is attached to it; whether that is so.

    It looks and removes under the guard, which every process takes to enter itself: it is in
    the registry before we look, or finds the name gone when it is.
    """
    ours = segments.attached(name)
    if ours is not None:  # closing one more descriptor would drop our record locks
        mutex = ours.mutexes.get(os.getpid())
        if mutex is not None:
            return bool(mutex.try_run(_unlink_if_alone, ours.fd, name))
        return _unlink_under_guard(ours.fd, name)
    try:
        fd = os.open(segment_path(name), os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        return _unlink_under_guard(fd, name)
    finally:
        os.close(fd)


def ring_is_attached(name: str) -> bool:
    """Whether another process is attached to the segment of that name; attaches nothing itself."""
    ours = segments.attached(name)
    if ours is not None:
        return any_held(ours.fd, GUARD)
    with suppress(OSError):
        fd = os.open(segment_path(name), os.O_RDONLY | os.O_NOFOLLOW)
        try:
            return any_held(fd, GUARD)
        finally:
            os.close(fd)
    return False


def sweep_passing() -> None:
    """Removes the rings of this user's test runs whose processes are gone."""
    prefix = f"dtl-{os.geteuid()}-"
    for file_name in os.listdir(DIRECTORY) if os.path.isdir(DIRECTORY) else ():
        name = f"/{file_name[:-1]}"
        if not (file_name.startswith(prefix) and file_name.endswith("s")):
            continue
        if segments.attached(name) is None and _is_passing(f"{DIRECTORY}/{file_name}"):
            with suppress(OSError):
                unlink_unattached(name)


def _is_passing(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        head = os.pread(fd, at.PAGE, 0).ljust(at.PAGE, b"\0")
    finally:
        os.close(fd)
    words = memoryview(head).cast("Q")
    return bool(words[at.H_MAGIC] == at.MAGIC and words[at.H_PASSING])


def _unlink_under_guard(fd: int, name: str) -> bool:
    guard = ByteLock(fd, GUARD)
    for _ in range(_ATTEMPTS):
        if guard.acquire():
            try:
                return _unlink_if_alone(fd, name)
            finally:
                guard.release()
        sleep(0.001)
    return False


def _unlink_if_alone(fd: int, name: str) -> bool:
    if any_held(fd, SUCCESSOR):  # this one, the pool's and those of the living
        return False
    unlink_objects(name)
    return True
