"""Check PNG files and gather their compressed image data in one buffer: what a GPU needs to decode them.

A file's image data is one zlib stream cut into IDAT chunks. A GPU's decoder needs the raw deflate stream in one piece
and aligned. :func:`gather` walks the chunks, checks every CRC-32 and the header (PNG specification, 3rd edition,
sections 5 and 11.2), and copies each piece once, to where they are joined::

    file       signature IHDR [IDAT: 78 DA, deflate ...] [IDAT: ... deflate, Adler-32] IEND
    out        ......... 78 DA | deflate ................................ | Adler-32 ....... next file
                               ^ start, a multiple of ALIGNMENT

Nothing is inflated, so only the CRC-32 and the zlib header (RFC 1950) of the compressed data are checked. Whether it is
a valid deflate stream is for the decoder to find out, and its Adler-32 tells whether the decoded bytes are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import carray, njit
from rxrx_kernels.deflate import libdeflate
from rxrx_kernels.png.chunks import append, image_data, pointer, word
from rxrx_kernels.png.container import BytesLike
from rxrx_kernels.png.status import NOT_DECODED, OK, STREAM

__all__ = ["ALIGNMENT", "Gathered", "gather", "room"]

#: Bytes. nvCOMP requires 4, and a GPU reads 16 at a time.
ALIGNMENT = 16
#: Bytes of the zlib header before the stream, and of the Adler-32 behind it (RFC 1950).
_BEFORE, _BEHIND = 2, 4


class Gathered(NamedTuple):
    """Where the deflate streams of N files are in the buffer.

    starts, sizes : (N,) int64
        First byte and bytes of each raw deflate stream.
    adlers : (N,) uint32
        Adler-32 of what it decodes to.
    status : (N,) int64
        0, or a status that :func:`rxrx_kernels.png.files.status_text` puts into words; the size is then 0.
    """

    starts: np.ndarray
    sizes: np.ndarray
    adlers: np.ndarray
    status: np.ndarray


def room(files: Sequence[BytesLike]) -> int:
    """Return the bytes of buffer that :func:`gather` needs for these files: theirs and a little more."""
    return sum(_slot(len(data)) for data in files)


def _slot(size: int) -> int:
    # The zlib header takes the end of one unit, and a decoder may read a unit beyond the stream.
    return (-(-size // ALIGNMENT) + 2) * ALIGNMENT


def gather(files: Sequence[BytesLike], out: np.ndarray, height: int, width: int, bit_depth: int = 8) -> Gathered:
    """Check files and copy their deflate streams into ``out``. Releases the GIL; a damaged file raises nothing.

    Parameters
    ----------
    files : sequence of N C bytes-like objects
        Encoded grayscale files. Bytes behind IEND are tolerated.
    out : (:func:`room`,) uint8
        Its address is a multiple of :data:`ALIGNMENT`. Page-locked memory reaches a GPU faster.
    height, width : int
        What the files must hold, in pixels.
    bit_depth : int
        8 or 16.

    Returns
    -------
    Gathered

    Raises
    ------
    ValueError
        If ``out`` or ``bit_depth`` does not fit.
    ImportError
        If libdeflate, which computes the CRC-32, is not installed.
    """
    if out.ndim != 1 or out.dtype != np.uint8 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"out must be 1-D uint8, contiguous and writeable, got {out.dtype}{out.shape}")
    if out.size < room(files) or out.ctypes.data % ALIGNMENT:
        raise ValueError(f"out must be {room(files)} bytes, aligned to {ALIGNMENT}; it has {out.size}")
    if bit_depth not in (8, 16):
        raise ValueError(f"bit_depth={bit_depth}: must be 8 or 16")
    arrays = [np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8) for data in files]
    slots = np.cumsum([0, *(_slot(array.size) for array in arrays)])[: len(arrays)]
    found = Gathered(
        (slots + ALIGNMENT).astype(np.int64),
        np.zeros(len(arrays), np.int64),
        np.zeros(len(arrays), np.uint32),
        np.full(len(arrays), NOT_DECODED, np.int64),
    )
    _gather(
        np.array([array.ctypes.data for array in arrays], np.uint64),
        np.array([array.size for array in arrays], np.int64),
        out,
        height,
        width,
        bit_depth,
        libdeflate.functions().crc32,
        *found,
    )
    return found


@njit(nogil=True, cache=True)
def _gather(
    addresses: np.ndarray,
    lengths: np.ndarray,
    out: np.ndarray,
    height: int,
    width: int,
    bit_depth: int,
    crc32: int,
    starts: np.ndarray,
    sizes: np.ndarray,
    adlers: np.ndarray,
    status: np.ndarray,
) -> None:
    """Fill ``out`` and the arrays of a :class:`Gathered` from files at N addresses."""
    for k in range(addresses.size):
        data = carray(pointer(np.uint64(addresses[k])), (lengths[k],))
        # The zlib header goes before the aligned address, so that the deflate stream begins there.
        first = starts[k] - _BEFORE
        joined = out[first : first + lengths[k]]
        state, was_joined, start, size = image_data(data, height, width, bit_depth, crc32, joined)
        if state == OK:
            if not was_joined:
                append(joined, 0, data, start, size)
            state = _check_zlib(joined, size)
        if state == OK:
            sizes[k] = size - _BEFORE - _BEHIND
            adlers[k] = word(joined, size - _BEHIND)
        status[k] = state


@njit(nogil=True, cache=True)
def _check_zlib(joined: np.ndarray, size: int) -> int:
    """Check the zlib header (RFC 1950, 2.2): deflate, a window of at most 32 KB, no preset dictionary."""
    if size <= _BEFORE + _BEHIND:
        return STREAM
    method, flags = np.int64(joined[0]), np.int64(joined[1])
    if method & 15 != 8 or method >> 4 > 7 or (256 * method + flags) % 31 != 0 or flags & 32:
        return STREAM
    return OK
