"""The compiled loop over a site's PNG files: chunks, CRC-32, inflate, unfilter. Called by :mod:`rxrx_kernels.png.files`.

It knows no exceptions, since it runs without the interpreter: each file ends with a status, which the caller words.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic
from rxrx_kernels.clock import nanoseconds
from rxrx_kernels.deflate import libdeflate as inflate
from rxrx_kernels.deflate.pair import BUSY, FAILED, FREE, PHASE, begin
from rxrx_kernels.deflate.pair import work as inflate_until_one_ends
from rxrx_kernels.png.unfilter import undo

# What can be wrong with a file. CONTAINER is everything that `rxrx_kernels.png.files.verify` finds and words.
OK = 0
CONTAINER = 1
OTHER_KIND = 2
OTHER_SIZE = 3
NOT_DECODED = 4
STREAM = 5
SHORT = 6
LONG = 7
FILTER = 8
ORDER = 9
CRITICAL = 10
ROOM = 11

# Chunk types as big-endian integers.
_IHDR, _PLTE, _IDAT, _IEND = (int.from_bytes(kind, "big") for kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"))
#: Set in the first letter of chunks that a decoder may skip (section 5.4).
_ANCILLARY = 1 << 29
#: Bytes of image data below which libdeflate is quicker: its tables are built faster, which counts in short streams.
PAIRED = 8192


@intrinsic
def pointer(typing, address):
    """An address as a pointer to bytes, which ``carray`` makes an array of."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(types.uint64), generate


@njit(nogil=True, cache=True)
def word(data, at):
    high = (np.uint32(data[at]) << 8) | np.uint32(data[at + 1])
    return (high << 16) | (np.uint32(data[at + 2]) << 8) | np.uint32(data[at + 3])


@njit(nogil=True, cache=True)
def append(joined, used, data, start, size):
    """``joined[used:][:size] = data[start:][:size]``, whose bounds the caller has checked."""
    inflate.copy_bytes(
        np.uint64(joined.ctypes.data) + np.uint64(used), np.uint64(data.ctypes.data) + np.uint64(start), np.uint64(size)
    )


@njit(nogil=True, cache=True)
def image_data(data, height, width, bit_depth, crc32, joined):
    """Check a file and find its compressed image data: (status, whether it was joined, first byte, size)."""
    if data.size < 33 or word(data, 0) != 0x89504E47 or word(data, 4) != 0x0D0A1A0A:
        return CONTAINER, False, 0, 0
    if word(data, 8) != 13 or word(data, 12) != _IHDR:
        return CONTAINER, False, 0, 0
    start, size, pieces, closed = 0, 0, 0, False
    position = 8
    while position + 12 <= data.size:
        length, kind = np.int64(word(data, position)), np.int64(word(data, position + 4))
        body, after = position + 8, position + 12 + length
        if after > data.size:
            return CONTAINER, False, 0, 0
        checked = np.uint64(data.ctypes.data) + np.uint64(position + 4)
        if inflate.crc32(crc32, checked, np.uint64(length + 4)) != word(data, after - 4):
            return CONTAINER, False, 0, 0
        if kind == _IDAT:
            if closed:
                return ORDER, False, 0, 0
            if pieces == 0:
                start = body
            else:
                # One piece stays where it is; writers cut at 64 KB, so at a second the first is fetched too.
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
def _check_header(data, height, width, bit_depth):
    """IHDR (section 11.2.1) against what the array holds, before anything is written."""
    depth, color, compression, filtering, interlace = data[24], data[25], data[26], data[27], data[28]
    if word(data, 16) == 0 or word(data, 20) == 0 or compression != 0 or filtering != 0 or interlace > 1:
        return CONTAINER
    if color != 0 or depth != bit_depth or interlace != 0:
        return OTHER_KIND
    if np.int64(word(data, 16)) != width or np.int64(word(data, 20)) != height:
        return OTHER_SIZE
    return OK


@njit(nogil=True, cache=True)
def _verdict(found):
    return OK if found == 0 else SHORT if found == 2 else LONG if found == 3 else STREAM


@njit(nogil=True, cache=True)
def decode(
    addresses,
    sizes,
    out,
    size,
    status,
    decompress,
    crc32,
    adler32,
    decompressor,
    filtered,
    joined,
    pair,
    paired,
    work,
    clock,
):
    """All files of a site, two at a time: nanoseconds that unfiltering took.

    ``out`` is (C, H, row bytes) uint8, ``size`` the bytes of a pixel; ``filtered`` (2, H * (1 + row bytes) + ROOM) and
    ``joined`` (2, N) are uint8. From ``paired`` bytes of image data on, the inflater for two streams is asked first,
    and libdeflate about all that it refuses.
    """
    height, width = out.shape[1], out.shape[2] // size
    expected = np.uint64(height * (1 + out.shape[2]))
    states, tables, tails = pair
    strip, steps, masks = work
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
                    inflate.zlib_decompress(
                        decompress, decompressor, sources[slot], packed_sizes[slot], target, expected
                    )
                )
            if status[k] == OK:
                began = nanoseconds(clock)
                if not undo(filtered[slot], out[k], size, strip, steps, masks):
                    status[k] = FILTER
                unfiltering += nanoseconds(clock) - began
            planes[slot], states[slot, PHASE] = -1, FREE
