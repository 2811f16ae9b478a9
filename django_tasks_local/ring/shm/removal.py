"""Take a ring's names away: by order, or because its test run has ended.

A process that has the objects open goes on with nameless ones, finds that out at its next look
(`Segment.intact`), and attaches to a new ring.
"""

import os
from contextlib import suppress
from time import sleep
from typing import Final

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring.format import layout as at

from . import segment as segments
from .boots import is_of_another_boot
from .errors import unavailable
from .header import read_head
from .lock import GUARD, SUCCESSOR, ByteLock, any_held
from .objects import SEMAPHORES
from .places import ring_exists, ring_names, segment_path, semaphore_name, semaphore_path

# How often to ask for the guard, a millisecond each, before its holder counts as attached.
_ATTEMPTS: Final = 50


def unlink_objects(name: str) -> None:
    """Remove the names of a ring's objects, though processes may be attached.

    Raises:
        StoreUnavailable: One of them belongs to another user.
    """
    segments.forget(name)
    base = semaphore_name(name)
    for path in (segment_path(name), *(semaphore_path(base + letters) for letters in SEMAPHORES)):
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise unavailable(error, path) from error


def unlink_unattached(name: str, *, idle: bool = False) -> bool:
    """Remove a ring unless another process is attached to it, and return whether it was removed.

    It looks and removes under the guard, which every process takes to enter itself: it is in
    the registry before we look, or finds the name gone when it is.

    Args:
        name: The ring's.
        idle: Leave it where tasks in it are unfinished, too, or may be.

    Raises:
        StoreUnavailable: It belongs to another user.
    """
    ours = segments.attached(name)
    if ours is not None:  # closing one more descriptor would drop our record locks
        mutex = ours.mutexes.get(os.getpid())
        if mutex is not None:
            return bool(mutex.try_run(_unlink_if_alone, ours.fd, name, idle))
        return _unlink_under_guard(ours.fd, name, idle)
    try:
        with segments.opened_unattached(name) as fd:
            return _unlink_under_guard(fd, name, idle) if fd is not None else not ring_exists(name)
    except OSError as error:
        raise unavailable(error, segment_path(name)) from error


def ring_is_attached(name: str) -> bool:
    """Return whether another process is attached to the segment of that name. Attach nothing."""
    ours = segments.attached(name)
    if ours is not None:
        return any_held(ours.fd, GUARD)
    with suppress(OSError), segments.opened_unattached(name) as fd:
        return fd is not None and any_held(fd, GUARD)
    return False


def sweep_temporary() -> None:
    """Remove the rings of this user's test runs whose processes are gone."""
    for name in ring_names():
        with suppress(OSError, StoreUnavailable):
            if _is_temporary(name):
                unlink_unattached(name)


def _is_temporary(name: str) -> bool:
    with segments.opened_unattached(name) as fd:
        if fd is None:
            return False
        words, _ = read_head(fd)
        return bool(words[at.H_MAGIC] == at.MAGIC and words[at.H_TEMPORARY])


def _unlink_under_guard(fd: int, name: str, idle: bool) -> bool:
    guard = ByteLock(fd, GUARD)
    for _ in range(_ATTEMPTS):
        if guard.acquire():
            try:
                return _unlink_if_alone(fd, name, idle)
            finally:
                guard.release()
        sleep(0.001)
    return False


def _unlink_if_alone(fd: int, name: str, idle: bool) -> bool:
    if any_held(fd, SUCCESSOR):  # this one, the pool's and those of the living
        return False
    if idle:
        head, _ = read_head(fd)
        unknown = head[at.H_DIRTY] or is_of_another_boot(head, segment_path(name))
        if head[at.H_UNFINISHED] or unknown:
            return False
    unlink_objects(name)
    return True
