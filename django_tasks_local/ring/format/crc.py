"""CRC-32 as zlib has it, by zlib-ng where that is installed.

The numbers are the same, so any mixture of processes can use a ring, those with zlib-ng and those
without. It takes a ninth of the time for 16 MiB, and a third for 120 bytes.
"""

try:
    from zlib_ng.zlib_ng import crc32
except ImportError:  # the extra "fast"
    from zlib import crc32

__all__ = ["crc32"]
