"""Write a PNG picture with the standard library."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
EIGHT_BIT_PALETTE = (8, 3, 0, 0, 0)  # bit depth, colour type, and the only methods there are


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def encode(rows: list[bytes], palette: list[tuple[int, int, int]]) -> bytes:
    """Return the PNG file of a picture in up to 256 colours.

    Args:
        rows: One byte for each pixel, an index into the palette; all rows have the same length.
        palette: Red, green and blue of each colour, 0 to 255.
    """
    header = struct.pack(">II5B", len(rows[0]), len(rows), *EIGHT_BIT_PALETTE)
    unfiltered = b"".join(b"\0" + row for row in rows)
    return (
        SIGNATURE
        + _chunk(b"IHDR", header)
        + _chunk(b"PLTE", b"".join(bytes(colour) for colour in palette))
        + _chunk(b"IDAT", zlib.compress(unfiltered, 9))
        + _chunk(b"IEND", b"")
    )
