"""The compiled walk over a PNG file's chunks: CRC-32, header, compressed image data.

"Section" refers to the PNG specification, 3rd edition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from rxrx_kernels.deflate import libdeflate
from rxrx_kernels.png.status import CONTAINER, CRITICAL, OK, ORDER, OTHER_KIND, OTHER_SIZE, ROOM

__all__ = ["append", "image_data", "pointer", "word"]

# Chunk types as big-endian integers.
_IHDR, _PLTE, _IDAT, _IEND = (int.from_bytes(kind, "big") for kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"))
#: Set in the first letter of chunks that a decoder may skip (section 5.4).
_ANCILLARY = 1 << 29


@intrinsic
def pointer(typing: Any, address: int) -> tuple[Any, Callable]:
    """Convert an address (uint64) to a pointer to bytes, for ``numba.carray``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(types.uint64), generate


@njit(nogil=True, cache=True)
def word(data: np.ndarray, at: int) -> np.uint32:
    """Read a big-endian uint32 from ``data[at:]``."""
    high = (np.uint32(data[at]) << 8) | np.uint32(data[at + 1])
    return (high << 16) | (np.uint32(data[at + 2]) << 8) | np.uint32(data[at + 3])


@njit(nogil=True, cache=True)
def append(joined: np.ndarray, used: int, data: np.ndarray, start: int, size: int) -> None:
    """Do ``joined[used:][:size] = data[start:][:size]``. The caller has checked the bounds."""
    libdeflate.copy_bytes(
        np.uint64(joined.ctypes.data) + np.uint64(used), np.uint64(data.ctypes.data) + np.uint64(start), np.uint64(size)
    )


@njit(nogil=True, cache=True)
def image_data(
    data: np.ndarray, height: int, width: int, bit_depth: int, crc32: int, joined: np.ndarray
) -> tuple[int, bool, int, int]:
    """Check a file's chunks and find its compressed image data.

    Parameters
    ----------
    data : (N,) uint8
        The file.
    height, width, bit_depth : int
        What the header must say.
    crc32 : int
        Address of libdeflate's function.
    joined : (M,) uint8
        Receives the image data if the file has it in several pieces.

    Returns
    -------
    status : int
        One of :mod:`rxrx_kernels.png.status`.
    was_joined : bool
        Whether the image data is in ``joined``; otherwise it is in ``data``.
    start, size : int
        Where the image data begins there, and its bytes.
    """
    if data.size < 33 or word(data, 0) != 0x89504E47 or word(data, 4) != 0x0D0A1A0A:
        return CONTAINER, False, 0, 0
    if word(data, 8) != 13 or word(data, 12) != _IHDR:
        return CONTAINER, False, 0, 0
    start: Any
    size: Any
    position: Any
    start, size, pieces, closed = 0, 0, 0, False
    position = 8
    while position + 12 <= data.size:
        length, kind = np.int64(word(data, position)), np.int64(word(data, position + 4))
        body, after = position + 8, position + 12 + length
        if after > data.size:
            return CONTAINER, False, 0, 0
        checked = np.uint64(data.ctypes.data) + np.uint64(position + 4)
        if libdeflate.crc32(crc32, checked, np.uint64(length + 4)) != word(data, after - 4):
            return CONTAINER, False, 0, 0
        if kind == _IDAT:
            if closed:
                return ORDER, False, 0, 0
            if pieces == 0:
                start = body
            else:
                # A single piece is not copied. When a second comes (writers cut at 64 KB), the first is copied too.
                if size + length > joined.size:
                    return ROOM, False, 0, 0
                if pieces == 1:
                    append(joined, 0, data, start, size)
                append(joined, size, data, body, length)
            size += length
            pieces += 1
        elif kind == _IEND:
            if size == 0:
                return CONTAINER, False, 0, 0
            return OK, pieces > 1, 0 if pieces > 1 else start, size
        else:
            closed = pieces > 0
            if position == 8:
                status = _check_header(data, height, width, bit_depth)
                if status != OK:
                    return status, False, 0, 0
            elif kind & _ANCILLARY == 0 and kind != _PLTE:
                return CRITICAL, False, 0, 0
        position = after
    return CONTAINER, False, 0, 0


@njit(nogil=True, cache=True)
def _check_header(data: np.ndarray, height: int, width: int, bit_depth: int) -> int:
    """Compare IHDR (section 11.2.1) with what is expected, before anything is written."""
    depth, color, compression, filtering, interlace = data[24], data[25], data[26], data[27], data[28]
    if word(data, 16) == 0 or word(data, 20) == 0 or compression != 0 or filtering != 0 or interlace > 1:
        return CONTAINER
    if color != 0 or depth != bit_depth or interlace != 0:
        return OTHER_KIND
    if np.int64(word(data, 16)) != width or np.int64(word(data, 20)) != height:
        return OTHER_SIZE
    return OK
