"""All rings of this user: what each tells of itself, and who is attached. Nothing is attached."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from django_tasks_local.ring.format import layout as at

from . import segment as segments
from .boots import is_of_another_boot
from .entries import Role
from .header import geometry_of, is_half_made, read_head, unusable
from .lock import GUARD, LIVENESS, ByteLock, any_held
from .objects import MUTEX
from .places import ring_names, segment_path, semaphore_name, semaphore_path
from .segment import opened_unattached


class Neighbour(NamedTuple):
    """A living site in another ring.

    Attributes:
        ring: The ring's name.
        pid: As that process sees itself.
        path: The end of its settings file's path, and its main script after a colon.
    """

    ring: str
    pid: int
    path: str


def sites_elsewhere(directories: tuple[str, ...] = ()) -> Iterator[Neighbour]:
    """Yield the living sites in other rings that this process is not attached to, but no test runs.

    It takes 10 µs a ring, and 50 where a process is attached.

    Args:
        directories: Where to look beside ``/dev/shm``.
    """
    for name in ring_names(directories):
        found: list[Neighbour] = []
        with suppress(OSError), opened_unattached(name) as fd:
            if fd is not None:
                found = list(_read_sites(name, fd))
        yield from found


def _read_sites(name: str, fd: int) -> Iterator[Neighbour]:
    if not any_held(fd, LIVENESS):
        return
    start = os.pread(fd, at.COLUMNS_AT, 0)
    if len(start) < at.COLUMNS_AT:
        return
    words = memoryview(start).cast("Q")
    known = words[at.H_MAGIC] == at.MAGIC and words[at.H_VERSION] == at.VERSION
    if not known or words[at.H_TEMPORARY]:
        return
    for index in range(min(words[at.H_ENTRIES_USED], at.ENTRIES)):
        entry = at.REGISTRY_AT + index * at.ENTRY_WORDS
        is_site = words[entry + at.E_COMMIT] >> at.ROLE_SHIFT == Role.SITE
        if is_site and ByteLock(fd, LIVENESS + index).held():
            at_byte = (entry + at.E_PATH) * 8
            length = min(words[entry + at.E_PATH_BYTES], at.PATH_BYTES)
            path = start[at_byte : at_byte + length].decode(errors="replace")
            yield Neighbour(name, words[entry + at.E_PID], path)


class Attached(NamedTuple):
    """A living process in a ring.

    Attributes:
        pid: As that process sees itself.
        role: What it is there.
    """

    pid: int
    role: Role


@dataclass(frozen=True)
class Surveyed:
    """One ring, as its header and its registry tell it.

    Attributes:
        name: The common part of its objects' names.
        problem: Why it cannot be used; "" if it can. Then only what is up to `is_ours` is known,
            and of an older layout ``unfinished``.
        made_at: Unix time.
        reserved_bytes: Memory that it takes.
        size_bytes: What it may grow to.
        is_ours: Whether it is a file of this user that begins as a ring does, or was about to.
        is_attached: Whether any process is attached.
        unfinished: Tasks that wait or run; ``None`` where a death or a restart of the host has left
            that open.
        running: Of those, how many run.
        kept: Finished results.
        temporary: Whether a test run has made it.
        is_of_another_boot: Whether nobody has attached since the host was started.
        attached_at: When a process attached last, Unix time; 0 for never.
        attached: The processes that are attached.
        module: The settings module of the site that came last, "" for none.
        paths: The ends of the settings files' paths of its sites, and main scripts after a colon.
    """

    name: str
    problem: str
    made_at: float
    reserved_bytes: int
    size_bytes: int
    is_ours: bool = False
    is_attached: bool = False
    unfinished: int | None = 0
    running: int = 0
    kept: int = 0
    temporary: bool = False
    is_of_another_boot: bool = False
    attached_at: float = 0.0
    attached: tuple[Attached, ...] = ()
    module: str = ""
    paths: tuple[str, ...] = ()


def survey_rings(directories: tuple[str, ...] = ()) -> Iterator[Surveyed]:
    """Yield all rings of this user, and other files with such names.

    Args:
        directories: Where to look beside ``/dev/shm``.
    """
    for name in ring_names(directories):
        found = survey_ring(name)
        if found is not None:
            yield found


def survey_ring(name: str) -> Surveyed | None:
    """Return what a ring tells of itself, None where there is none. It takes no lock."""
    path = segment_path(name)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    sizes = (_made_at(name, found), found.st_blocks * 512, found.st_size)
    if not stat.S_ISREG(found.st_mode):
        return Surveyed(name, "it is not a regular file", *sizes)
    if found.st_uid != os.geteuid():
        return Surveyed(name, f"it belongs to uid {found.st_uid}", *sizes)
    ours = segments.attached(name)
    try:
        if ours is not None:  # closing one more descriptor would drop our record locks
            return _read(name, ours.fd, sizes)
        with opened_unattached(name) as fd:
            return None if fd is None else _read(name, fd, sizes)
    except OSError as error:
        return Surveyed(name, f"it cannot be read ({error})", *sizes)


def _read(name: str, fd: int, sizes: tuple[float, int, int]) -> Surveyed:
    head, size = read_head(fd)
    is_attached = any_held(fd, GUARD)
    if geometry_of(head, size) is None:
        if is_half_made(head, size) and not is_attached:
            return Surveyed(name, "it was never completed", *sizes, is_ours=True)
        what = unusable(head, size, segment_path(name)).what
        is_ring = head[at.H_MAGIC] == at.MAGIC
        other_layout = is_ring and head[at.H_VERSION] != at.VERSION
        unfinished = int(head[at.H_UNFINISHED]) if other_layout else None
        return Surveyed(name, what, *sizes, is_ring, is_attached, unfinished)
    # Cut off meanwhile, it reads as zeros.
    words = memoryview(os.pread(fd, at.COLUMNS_AT, 0).ljust(at.COLUMNS_AT, b"\0")).cast("Q")
    now_ns = time.time_ns()
    since_ns = [words[entry + at.E_SINCE] for entry in _entries(words)]
    left = is_of_another_boot(words, segment_path(name))
    if 0 < words[at.H_MADE_AT] <= now_ns:
        sizes = (words[at.H_MADE_AT] / 1e9, *sizes[1:])
    return Surveyed(
        name, "", *sizes, True, is_attached,
        None if words[at.H_DIRTY] or left else words[at.H_UNFINISHED],
        words[at.H_RUNNING], words[at.H_FINISHED], bool(words[at.H_TEMPORARY]), left,
        max((each for each in since_ns if each <= now_ns), default=0) / 1e9,
        tuple(_attached(fd, words)), _module(words), tuple(_paths(words)),
    )  # fmt: skip


def _made_at(name: str, found: os.stat_result) -> float:
    """Return when a ring was made: nothing changes the time of the semaphore's file after that."""
    try:
        return os.lstat(semaphore_path(f"{semaphore_name(name)}{MUTEX}")).st_mtime
    except OSError:
        return found.st_mtime


def _entries(words: memoryview) -> range:
    """Return where the entries of the registry begin that were ever used, and the first one."""
    used = max(1, min(words[at.H_ENTRIES_USED], at.ENTRIES))
    end = at.REGISTRY_AT + used * at.ENTRY_WORDS
    return range(at.REGISTRY_AT, end, at.ENTRY_WORDS)


def _attached(fd: int, words: memoryview) -> Iterator[Attached]:
    for index, entry in enumerate(_entries(words)):
        commit = words[entry + at.E_COMMIT]
        if commit and ByteLock(fd, LIVENESS + index).held():
            role = commit >> at.ROLE_SHIFT
            known = role in Role.__members__.values()
            yield Attached(words[entry + at.E_PID], Role(role) if known else Role.VISITOR)


def _module(words: memoryview) -> str:
    return _text(words, at.H_MODULE + 1, min(words[at.H_MODULE], at.MODULE_BYTES))


def _paths(words: memoryview) -> list[str]:
    """Return those of the codes; where there are none yet, those of the registry."""
    codes = [at.code_word(code, 0) for code in range(at.CODES)]
    found = [
        _text(words, code + at.C_PATH, min(words[code + at.C_PATH_BYTES], at.CODE_PATH_BYTES))
        for code in codes
        if words[code + at.C_DIGEST]
    ] or [
        _text(words, entry + at.E_PATH, min(words[entry + at.E_PATH_BYTES], at.PATH_BYTES))
        for entry in _entries(words)
    ]
    return list(dict.fromkeys(filter(None, found)))


def _text(words: memoryview, start: int, length: int) -> str:
    return bytes(words.cast("B")[start * 8 : start * 8 + length]).decode(errors="replace")
