"""The container of a PNG file: its header, its chunks, and whether it is whole (PNG specification, 3rd edition).

A decoder that is given a damaged file may return a partly grey image, or abort the file's whole batch. In a file that
passes :func:`verify` every chunk is whole and every CRC-32 right (section 5). Decoding it fails only if it was written
wrong.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import NamedTuple

import numpy as np

__all__ = ["SIGNATURE", "BytesLike", "Header", "PngError", "header", "supported", "verify"]

#: An encoded file. Arrays are 1-D uint8.
BytesLike = bytes | bytearray | memoryview | np.ndarray | mmap.mmap

SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: Channels of each colour type (section 11.2.1).
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class PngError(ValueError):
    """A file that is not a whole PNG, or not the expected one.

    Parameters
    ----------
    reason : str
        What is wrong, without the file's name. It is the error's message.
    index : int, optional
        The file's place in the list given to :func:`rxrx_kernels.png.files.decode_site`.
    """

    def __init__(self, reason: str, index: int | None = None):
        super().__init__(reason)
        self.index = index

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.index)


class Header(NamedTuple):
    """The IHDR chunk. ``color_type`` 0 is grayscale, 2 RGB, 3 palette, 4 grayscale + alpha, 6 RGB + alpha."""

    width: int
    height: int
    bit_depth: int
    color_type: int
    interlaced: bool

    @property
    def channels(self) -> int:
        """Samples of a pixel."""
        return _CHANNELS[self.color_type]


def _view(data: BytesLike) -> memoryview:
    # NumPy's type hints have the buffer protocol only from Python 3.12 on.
    return memoryview(data).cast("B")  # type: ignore[arg-type]


def header(data: BytesLike) -> Header:
    """Read the header of an encoded PNG.

    Parameters
    ----------
    data : bytes-like
        At least the first 33 bytes of the file.

    Returns
    -------
    Header

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
    view = _view(data)
    length, kind, width, height, depth, color, compression, filtering, interlace = struct.unpack_from(
        ">I4sIIBBBBB", view, 8
    )
    if kind != b"IHDR" or length != 13:
        raise PngError("the first chunk is not a header (IHDR)")
    if color not in _CHANNELS or compression or filtering or interlace > 1 or not width or not height:
        raise PngError(f"the header is not valid (size {width} x {height}, colour type {color}, bit depth {depth})")
    return Header(width, height, depth, color, bool(interlace))


def verify(data: BytesLike) -> Header:
    """Walk the chunks of an encoded PNG and check each CRC-32.

    Parameters
    ----------
    data : bytes-like
        The whole file. Bytes behind IEND are tolerated, as by every decoder.

    Returns
    -------
    Header

    Raises
    ------
    PngError
        If the file is truncated, a CRC-32 is wrong, or image data or IEND is missing.
    """
    result = header(data)
    view = _view(data)
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


def supported(found: Header) -> bool:
    """Tell whether :func:`rxrx_kernels.png.files.decode_site` takes such a file.

    It takes grayscale of 8 or 16 bits that is not interlaced, which is what microscopes write.
    """
    return found.color_type == 0 and found.bit_depth in (8, 16) and not found.interlaced
