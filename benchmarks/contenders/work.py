"""The bodies of the tasks, for libraries that know nothing of Django."""

import time
from functools import cache
from random import randbytes


def noop() -> None:
    """Do nothing."""


def noop_of(number: int) -> None:
    """Do nothing with what `imap_unordered` has to pass."""


def produce(size_bytes: int, text: bool = False) -> tuple[int, bytes | str]:
    """Return data, and the moment of returning it."""
    data = blob(size_bytes, text)
    return time.monotonic_ns(), data


@cache
def blob(size_bytes: int, text: bool = False) -> bytes | str:
    """Return random ASCII, made once per process and size so that making it is not measured.

    ASCII, since Django's own `TaskResult` (and with it most backends) takes only what JSON can
    hold: as `bytes` for what can pickle, as text for the rest.
    """
    data = randbytes(size_bytes).translate(bytes(i & 0x7F for i in range(256)))
    return data.decode() if text else data
