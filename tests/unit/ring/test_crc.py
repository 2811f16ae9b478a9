"""CRCs are the same with zlib-ng and without it, so that processes with and without it mix."""

import subprocess
import sys
import zlib

import pytest

from django_tasks_local.ring.format.crc import crc32

# What a process without the extra "fast" finds.
WITHOUT = (
    "import sys, zlib; sys.modules['zlib_ng'] = None; "
    "from django_tasks_local.ring.format.crc import crc32; "
    "assert crc32 is zlib.crc32; print(crc32(sys.stdin.buffer.read(), 7))"
)


@pytest.mark.parametrize("size", [0, 1, 120, 5_000, 2**20])
def test_the_same_number_either_way(size: int) -> None:
    """Of any length, and going on from an earlier CRC."""
    assert crc32.__module__ != "zlib"
    data = bytes(n % 251 for n in range(size))
    assert crc32(data, 7) == zlib.crc32(data, 7)
    assert crc32(memoryview(data), crc32(b"before")) == zlib.crc32(b"before" + data)


def test_a_process_without_it() -> None:
    """It falls back to the standard library."""
    data = b"123456789" * 1000
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], input=data, capture_output=True, check=True
    )
    assert int(done.stdout) == crc32(data, 7)
