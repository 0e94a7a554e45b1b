"""PNG files of pixels, without a library."""

import struct
import zlib

_COLOR_TYPES = {3: 2, 4: 6}


def png(pixels: bytes, width: int, height: int, channels: int, level: int = 1) -> bytes:
    """A PNG file of `[height, width, channels]`, RGB or RGBA, packed at a level of zlib."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = width * channels
    rows = b"".join(b"\0" + pixels[start : start + row] for start in range(0, len(pixels), row))
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPES[channels], 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows, level)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
