"""Damaged PNG files of 12 x 10 pixels, and a plain decoder that says what must become of them."""

from __future__ import annotations

import zlib

import numpy as np
from png_writer import container, encoded, filtered, image_header
from rxrx_kernels.png.container import PngError, supported, verify


def pixels_of(shape, dtype=np.uint8, seed=0):
    """Make noise on a slope: literals and matches for the inflater, and work for every filter."""
    rng = np.random.default_rng(seed)
    slope = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) * 3
    return (slope + rng.integers(0, 40, shape) * rng.integers(0, 2)).astype(dtype)


SHAPE = (12, 10)
PIXELS = pixels_of(SHAPE, seed=3)
STREAM = zlib.compress(filtered(PIXELS, np.arange(12) % 5).tobytes(), 9)
HEAD = image_header(*SHAPE)
WHOLE = container(HEAD, STREAM)


def expected(data):
    """Decode a file of 12 x 10 grayscale pixels in plain Python on zlib: the pixels, or None if it must be refused."""
    try:
        found = verify(data)
    except PngError:
        return None
    if (found.height, found.width) != SHAPE or not supported(found) or found.bit_depth != 8:
        return None
    stream, position, closed = b"", 8, False
    while True:
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            if closed:
                return None
            stream += data[position + 8 : position + 8 + length]
        elif stream:
            closed = True
        if not kind[0] & 32 and kind not in (b"IDAT", b"PLTE") and position > 8:
            return None
        position += 12 + length
    unpacker = zlib.decompressobj()
    try:
        rows = unpacker.decompress(stream, 133)
    except zlib.error:
        return None
    if not unpacker.eof or len(rows) != 132 or max(rows[::11]) > 4:
        return None
    out = [[0] * 11 for _ in range(13)]
    for y in range(12):
        kind = rows[11 * y]
        for x in range(10):
            a, b, c = out[y + 1][x], out[y][x + 1], out[y][x]
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2] if kind == 4 else 0
            out[y + 1][x + 1] = (rows[11 * y + 1 + x] + (0, a, b, (a + b) // 2, paeth)[kind]) & 255
    return np.array(out, np.uint8)[1:, 1:]


def mutants(seed):
    """Yield damaged files without end.

    The damage is anywhere in the file, in the zlib stream under right CRCs, or in the rows under a right stream.
    """
    rng = np.random.default_rng(seed)
    seeds = [
        encoded(pixels_of(SHAPE, seed=k), np.arange(12) % 5, level=level, pieces=(40, 3))
        for k in (0, 3)
        for level in (0, 1, 9)
    ]
    streams = [
        zlib.compress(filtered(pixels_of(SHAPE, seed=k), 4).tobytes(), level) for k in (0, 3) for level in (0, 1, 9)
    ]
    rows = filtered(PIXELS, np.arange(12) % 5).tobytes()

    def damaged_bytes(data):
        data = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(0, len(data)))
            match rng.integers(0, 6):
                case 0:
                    data[at] = rng.integers(0, 256)
                case 1:
                    data[at] ^= 1 << int(rng.integers(0, 8))
                case 2:
                    del data[at : at + int(rng.integers(1, 20))]
                case 3:
                    data[at:at] = rng.bytes(int(rng.integers(1, 20)))
                case 4:
                    data[at : at + 4] = [0xFF] * 4
                case 5:
                    del data[at:]
            if not data:
                break
        return bytes(data)

    while True:
        yield damaged_bytes(seeds[rng.integers(len(seeds))])
        yield container(HEAD, damaged_bytes(streams[rng.integers(len(streams))]), [int(rng.integers(0, 60))])
        yield container(HEAD, zlib.compress(damaged_bytes(rows)))
        wrong = bytearray(rows)
        wrong[rng.integers(len(rows))] = rng.integers(0, 256)
        yield container(HEAD, zlib.compress(bytes(wrong)), [7, 0, 1])
