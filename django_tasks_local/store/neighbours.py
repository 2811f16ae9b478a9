"""Who is attached to the other rings of this user. Nothing is attached or written for that."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from . import layout as at
from . import segment as segments
from .lock import LIVENESS, ByteLock, any_held
from .objects import segment_path
from .registry import Role
from .trouble import DIRECTORY


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


def sites_elsewhere() -> Iterator[Neighbour]:
    """The living sites in rings that this process is not attached to, those of test runs left out.

    It takes 10 us a ring, and 50 where somebody is attached.
    """
    prefix = f"dtl-{os.geteuid()}-"
    for file_name in sorted(os.listdir(DIRECTORY)) if os.path.isdir(DIRECTORY) else ():
        if file_name.startswith(prefix) and file_name.endswith("s"):
            name = f"/{file_name[:-1]}"
            # Nobody attaches meanwhile: to close a descriptor drops all record locks on its file.
            with segments._attaching:
                found = [] if name in segments._segments else _sites_of(name)
            yield from found


def _sites_of(name: str) -> list[Neighbour]:
    with suppress(OSError):
        fd = os.open(segment_path(name), os.O_RDONLY | os.O_NOFOLLOW)
        try:
            return list(_read_sites(name, fd))
        finally:
            os.close(fd)
    return []


def _read_sites(name: str, fd: int) -> Iterator[Neighbour]:
    if not any_held(fd, LIVENESS):
        return
    start = os.pread(fd, at.COLUMNS_AT, 0)
    if len(start) < at.COLUMNS_AT:
        return
    words = memoryview(start).cast("Q")
    known = words[at.H_MAGIC] == at.MAGIC and words[at.H_VERSION] == at.VERSION
    if not known or words[at.H_PASSING]:
        return
    for index in range(min(words[at.H_ENTRIES_USED], at.ENTRIES)):
        entry = at.REGISTRY_AT + index * at.ENTRY_WORDS
        is_site = words[entry + at.E_COMMIT] >> at.ROLE_SHIFT == Role.SITE
        if is_site and ByteLock(fd, LIVENESS + index).held():
            at_byte = (entry + at.E_PATH) * 8
            length = min(words[entry + at.E_PATH_BYTES], at.PATH_BYTES)
            path = start[at_byte : at_byte + length].decode(errors="replace")
            yield Neighbour(name, words[entry + at.E_PID], path)
