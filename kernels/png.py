"""The PNG container: is a file whole, and what picture does it hold?

A decoder that is handed a damaged file may return a picture that is part grey, or abort the batch that the file is
in. A file that passes :func:`verify` has every chunk whole and every CRC-32 right (PNG specification, 3rd edition,
section 5), so what is left to go wrong in decoding is a file that was written wrong.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

__all__ = ["SIGNATURE", "Header", "PngError", "header", "verify"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: Channels of each colour type (section 11.2.1).
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class PngError(ValueError):
    """Not a whole PNG file; the message is the reason, without the file's name."""


class Header(NamedTuple):
    """The IHDR chunk. ``color_type`` 0 is grayscale, 2 RGB, 3 palette, 4 grayscale + alpha, 6 RGB + alpha."""

    width: int
    height: int
    bit_depth: int
    color_type: int
    interlaced: bool

    @property
    def channels(self) -> int:
        return _CHANNELS[self.color_type]


def header(data) -> Header:
    """Read the header of an encoded PNG.

    Parameters
    ----------
    data : bytes-like
        At least the first 33 bytes of the file.

    Raises
    ------
    PngError
        If the bytes are not the beginning of a PNG.
    """
    if len(data) == 0:
        raise PngError("the file is empty")
    if bytes(data[:8]) != SIGNATURE:
        raise PngError("not a PNG file (its first 8 bytes are not the PNG signature)")
    if len(data) < 33:
        raise PngError(f"truncated: {len(data)} bytes, not even a whole header")
    length, kind, width, height, depth, color, compression, filtering, interlace = struct.unpack_from(">I4sIIBBBBB", data, 8)
    if kind != b"IHDR" or length != 13:
        raise PngError("the first chunk is not a header (IHDR)")
    if color not in _CHANNELS or compression or filtering or interlace > 1 or not width or not height:
        raise PngError(f"the header is not valid (size {width} x {height}, colour type {color}, bit depth {depth})")
    return Header(width, height, depth, color, bool(interlace))


def verify(data) -> Header:
    """Walk the chunks of an encoded PNG and check each CRC-32.

    Parameters
    ----------
    data : bytes-like
        The whole file. Bytes behind IEND are tolerated, as every decoder does.

    Returns
    -------
    Header

    Raises
    ------
    PngError
        Truncated, a wrong CRC-32, no image data, or no IEND.
    """
    result = header(data)
    view = memoryview(data).cast("B")
    position, end, image_data = 8, len(view), 0
    while position + 12 <= end:
        length, kind = struct.unpack_from(">I4s", view, position)
        after = position + 12 + length
        if after > end:
            raise PngError(f"truncated in chunk {kind.decode('latin-1')!r}: {after - end} bytes are missing")
        (stored,) = struct.unpack_from(">I", view, after - 4)
        if zlib.crc32(view[position + 4 : after - 4]) != stored:
            raise PngError(f"damaged: the CRC-32 of chunk {kind.decode('latin-1')!r} at byte {position} is wrong")
        if kind == b"IDAT":
            image_data += length
        elif kind == b"IEND":
            if not image_data:
                raise PngError("holds no image data (IDAT)")
            return result
        position = after
    raise PngError("truncated: the end chunk (IEND) is missing")
