"""Compressed image data of PNG files, checked and gathered into one buffer: what a GPU needs to decode them.

A file's image data is one zlib stream cut into IDAT chunks. A GPU's decoder wants the raw deflate stream in one piece
and aligned. :func:`gather` walks the chunks, checks every CRC-32 and the header (PNG specification, 3rd edition,
sections 5 and 11.2), and copies the pieces, each once, to where they are joined::

    file       signature IHDR [IDAT: 78 DA, deflate ...] [IDAT: ... deflate, Adler-32] IEND
    out        ......... 78 DA | deflate ................................ | Adler-32 ....... next file
                               ^ start, a multiple of ALIGNMENT

Nothing is inflated, so of the compressed data only its CRC-32 and its zlib header (RFC 1950) are known to be right:
that a writer wrote a valid deflate stream is for the decoder to find out, and the Adler-32 says whether what it found
is what was written.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray, njit
from rxrx_kernels.deflate import libdeflate as inflate
from rxrx_kernels.png import decode as png_decode

__all__ = ["ALIGNMENT", "Gathered", "gather", "room"]

#: Bytes; nvCOMP asks for 4, and a GPU reads 16 at a time.
ALIGNMENT = 16
#: The zlib header before the stream, and the Adler-32 behind it (RFC 1950).
_BEFORE, _BEHIND = 2, 4


class Gathered(NamedTuple):
    """Where the streams of N files are, and what is known of them.

    ``starts`` and ``sizes`` (N,) int64: first byte in the buffer, and bytes, of each raw deflate stream. ``adlers``
    (N,) uint32: Adler-32 of what it decodes to. ``status`` (N,) int64: 0, or what
    :func:`rxrx_kernels.png.files.status_text` puts into words; the size is then 0.
    """

    starts: np.ndarray
    sizes: np.ndarray
    adlers: np.ndarray
    status: np.ndarray


def room(files) -> int:
    """Bytes of buffer that :func:`gather` wants for these files: theirs and a little more."""
    return sum(_slot(len(data)) for data in files)


def _slot(size: int) -> int:
    # The header fills the end of one unit, and a decoder may read a unit beyond the stream.
    return (-(-size // ALIGNMENT) + 2) * ALIGNMENT


def gather(files, out: np.ndarray, height: int, width: int, bit_depth: int = 8) -> Gathered:
    """Check files and copy their deflate streams into ``out``. Releases the GIL; never raises for what a file holds.

    Parameters
    ----------
    files : sequence of N C bytes-like objects
        Encoded grayscale files. Bytes behind IEND are tolerated.
    out : (:func:`room`,) uint8
        Its address a multiple of :data:`ALIGNMENT`; page-locked, if a GPU is to fetch it.
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
        If ``out`` does not fit.
    ImportError
        If libdeflate, whose CRC-32 this uses, is not installed.
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
        np.full(len(arrays), png_decode.NOT_DECODED, np.int64),
    )
    _gather(
        np.array([array.ctypes.data for array in arrays], np.uint64),
        np.array([array.size for array in arrays], np.int64),
        out,
        height,
        width,
        bit_depth,
        inflate.functions().crc32,
        *found,
    )
    return found


@njit(nogil=True, cache=True)
def _gather(addresses, lengths, out, height, width, bit_depth, crc32, starts, sizes, adlers, status):
    for k in range(addresses.size):
        data = carray(png_decode.pointer(np.uint64(addresses[k])), (lengths[k],))
        # The stream's own header goes before the aligned place, so that the stream itself begins there.
        first = starts[k] - _BEFORE
        joined = out[first : first + lengths[k]]
        state, was_joined, start, size = png_decode.image_data(data, height, width, bit_depth, crc32, joined)
        if state == png_decode.OK:
            if not was_joined:
                png_decode.append(joined, 0, data, start, size)
            state = _check_zlib(joined, size)
        if state == png_decode.OK:
            sizes[k] = size - _BEFORE - _BEHIND
            adlers[k] = png_decode.word(joined, size - _BEHIND)
        status[k] = state


@njit(nogil=True, cache=True)
def _check_zlib(joined, size):
    """The two bytes before a stream (RFC 1950, 2.2): deflate, a window of at most 32 KB, no preset dictionary."""
    if size <= _BEFORE + _BEHIND:
        return png_decode.STREAM
    method, flags = np.int64(joined[0]), np.int64(joined[1])
    if method & 15 != 8 or method >> 4 > 7 or (256 * method + flags) % 31 != 0 or flags & 32:
        return png_decode.STREAM
    return png_decode.OK
