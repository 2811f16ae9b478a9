"""How much memory a process has: by a cheap look, and by an exact one."""

import re
from pathlib import Path
from resource import getpagesize
from typing import Final

_PRIVATE: Final = re.compile(rb"^Private_(?:Clean|Dirty): +(\d+) kB$", re.MULTILINE)


def resident_bytes(pid: int | str = "self") -> int:
    """Return the memory that a process has mapped and in use, 0 for one that has gone (25 µs).

    What it shares with others counts in full, so its private memory is never more.
    """
    pages = _read(pid, "statm").split()[1:2]
    return int(pages[0]) * getpagesize() if pages else 0


def private_bytes(pid: int | str = "self") -> int:
    """Return the memory that would be free if a process ended, 0 for one that has gone.

    The kernel walks through all its pages for that: 0.7 ms, and some 6 ms more for each 100 MiB.
    """
    return 1024 * sum(map(int, _PRIVATE.findall(_read(pid, "smaps_rollup"))))


def _read(pid: int | str, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
