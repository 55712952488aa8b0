"""The compiled loop over a site's PNG files: chunks, inflate, unfilter. :mod:`rxrx_kernels.png.files` calls it."""

from __future__ import annotations

import numpy as np
from numba import carray, njit
from rxrx_kernels.clock import nanoseconds
from rxrx_kernels.deflate import libdeflate
from rxrx_kernels.deflate.pair import BUSY, FAILED, FREE, PHASE, begin
from rxrx_kernels.deflate.pair import work as inflate_until_one_ends
from rxrx_kernels.png.chunks import image_data, pointer
from rxrx_kernels.png.status import FILTER, LONG, OK, SHORT, STREAM
from rxrx_kernels.png.unfilter import undo

__all__ = ["PAIRED", "decode"]

#: Bytes of an image from which our own inflater is used. libdeflate builds its tables faster, so it is the faster one
#: for smaller images.
PAIRED = 8192


@njit(nogil=True, cache=True)
def _verdict(found: int) -> int:
    """Translate what libdeflate's ``zlib_decompress`` returns to a status."""
    return OK if found == 0 else SHORT if found == 2 else LONG if found == 3 else STREAM


@njit(nogil=True, cache=True)
def decode(
    addresses: np.ndarray,
    sizes: np.ndarray,
    out: np.ndarray,
    size: int,
    status: np.ndarray,
    decompress: int,
    crc32: int,
    adler32: int,
    decompressor: int,
    filtered: np.ndarray,
    joined: np.ndarray,
    pair: tuple[np.ndarray, np.ndarray, np.ndarray],
    paired: int,
    work: tuple[np.ndarray, np.ndarray, np.ndarray],
    clock: int,
) -> int:
    """Decode all files of a site, two at a time.

    Parameters
    ----------
    addresses : (C,) uint64
    sizes : (C,) int64
        Each file's address and bytes.
    out : (C, H, row bytes) uint8
    size : int
        Bytes of a pixel, 1 or 2.
    status : (C,) int64
        Receives each file's status.
    decompress, crc32, adler32 : int
        Addresses of libdeflate's functions.
    decompressor : int
        Address of libdeflate's tables.
    filtered : (2, H * (1 + row bytes) + ROOM) uint8
        Receives inflated image data.
    joined : (2, N) uint8
        Room for image data in several pieces.
    pair : tuple
        :func:`rxrx_kernels.deflate.pair.workspace`.
    paired : int
        Images of at least so many bytes go to our own inflater first. libdeflate inflates what it refuses, and all
        smaller images.
    work : tuple
        :func:`rxrx_kernels.png.unfilter.workspace`.
    clock : int
        :func:`rxrx_kernels.clock.address`.

    Returns
    -------
    int
        Nanoseconds that unfiltering took.
    """
    height, width = out.shape[1], out.shape[2] // size
    expected = np.uint64(height * (1 + out.shape[2]))
    states, tables, tails = pair
    strip, diagonals, masks = work
    states[:] = np.uint64(0)
    planes, sources, packed_sizes = np.full(2, -1), np.zeros(2, np.uint64), np.zeros(2, np.uint64)
    following, unfiltering = 0, 0
    while True:
        for slot in range(2):
            while planes[slot] < 0 and following < out.shape[0]:
                k = following
                following += 1
                data = carray(pointer(np.uint64(addresses[k])), (sizes[k],))
                state, was_joined, start, packed = image_data(data, height, width, 8 * size, crc32, joined[slot])
                status[k] = state
                if state == OK:
                    base = np.uint64(joined[slot].ctypes.data) if was_joined else np.uint64(addresses[k])
                    planes[slot], sources[slot], packed_sizes[slot] = k, base + np.uint64(start), np.uint64(packed)
                    if expected >= paired:
                        target = np.uint64(filtered[slot].ctypes.data)
                        begin(states[slot], sources[slot], packed_sizes[slot], target, expected)
                    else:
                        states[slot, PHASE] = FAILED
        if planes[0] < 0 and planes[1] < 0:
            return unfiltering
        inflate_until_one_ends(states, tables, tails, adler32)
        for slot in range(2):
            k = planes[slot]
            if k < 0 or states[slot, PHASE] == BUSY:
                continue
            if states[slot, PHASE] == FAILED:
                target = np.uint64(filtered[slot].ctypes.data)
                status[k] = _verdict(
                    libdeflate.zlib_decompress(
                        decompress, decompressor, sources[slot], packed_sizes[slot], target, expected
                    )
                )
            if status[k] == OK:
                began = nanoseconds(clock)
                if not undo(filtered[slot], out[k], size, strip, diagonals, masks):
                    status[k] = FILTER
                unfiltering += nanoseconds(clock) - began
            planes[slot], states[slot, PHASE] = -1, FREE
