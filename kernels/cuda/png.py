"""Undo PNG row filters on a GPU, and check the Adler-32 of inflated bytes: bytes in, a (B, C, H, W) batch out.

**How.** One warp does one channel, 32 rows at a time, one row per lane. A filtered byte needs its left, upper and upper
left neighbours to be undone first (PNG specification, 3rd edition, section 9), so each lane is two pixels behind the
lane above it::

    row 0   . . . . . . 6 . .          lane 0 of step 6: pixel 6 of row 0
    row 1   . . . . 4 . . . .          lane 1 of step 6: pixel 4 of row 1
    row 2   . . 2 . . . . . .          lane 2 of step 6: pixel 2 of row 2

The left neighbour is the lane's own last result. The upper one comes from the lane above by a shuffle. The upper left
one is the upper one of the step before. If lanes were one pixel apart, a step would wait for its shuffle. With two the
shuffle has a step's time to arrive, for 31 more steps a band. A band's pixels pass through a skewed 32 x 32 tile in
shared memory, so global memory is read and written along rows. The tile's rows are spaced so that no two lanes use the
same memory bank.

Sub, Up and None are Paeth with neighbours masked to zero (as in :mod:`rxrx_kernels.png.unfilter`) and Average is a
select, so lanes of different filters stay together. Sub alone would be a prefix sum along the row and Up one along the
column, both faster. But 98% of RxRx1's rows are Paeth, and one such row among its 32 makes a warp take the slow way.

**Floors.** Memory: a channel of 512 x 512 bytes is read (263 KB) and written (262 KB) once. 1,536 channels at 3.0 TB/s
take 0.27 ms. Steps: 16 bands x 576 steps x about 30 dependent cycles (subtract, compare, two selects, add, mask) /
1.7 GHz = 0.16 ms for any number of channels, until the lanes' instructions fill the multiprocessors: 1,536 warps x
9,216 steps x about 30 instructions / (132 x 4 a cycle) = 0.47 ms. So instructions bound many channels, and steps bound
few. These numbers are computed; ``make gpu-bench`` measures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import config, cuda, int32, types, uint16, uint32, uint64
from rxrx_kernels.cuda.arrays import inline, on_device
from rxrx_kernels.png import status as png_status

__all__ = ["check_adler_batch", "ptx", "unfilter_batch"]

WARP = 32
_SKEW = 2
# Elements from one row of the tile to the next, by bytes of a pixel: an odd number of 4-byte banks.
_PITCH = {1: 36, 2: 34}
# Two positions per lane, and one above the first lane.
_RING = (2, WARP + 1)
_ALL = 0xFFFFFFFF
# Unsigned numbers for array indices: Numba tests signed ones for being negative at every access.
_1, _2, _3, _4, _5, _6, _7, _8 = (np.uint32(i) for i in range(1, 9))

_OK, _FILTER, _STREAM = png_status.OK, png_status.FILTER, png_status.STREAM

#: Threads that sum up one stream. The simulator's are the system's threads, which synchronise slowly.
_SUMMERS = 32 if config.ENABLE_CUDASIM else 256
_ADLER_PRIME = 65521


def _predict(left, up, corner, use_left, use_up, use_corner, use_mean):
    """Predict a byte from its neighbours, 0 to 255. All numbers are int32, the masks 0 or 255.

    Paeth takes the neighbour nearest to left + up - corner; ties go to left, then up. Let t = 3 corner - (left + up).
    Then Paeth is the greater of left and up where t is at most the smaller one, the smaller where t is at least the
    greater, and else the corner. This form has the fewest steps from ``left``, on which everything waits.
    """
    left, up = int32(left & use_left), int32(up & use_up)
    corner = int32(corner & use_corner)
    low, high = min(left, up), max(left, up)
    t = int32(int32(3 * corner - up) - left)
    paeth = high if t <= low else low if high <= t else corner
    return int32((left + up) >> 1) if use_mean else paeth


_predict_here = inline(_predict)


def _undo_8(raw, left, up, corner, use_left, use_up, use_corner, use_mean):
    return int32((raw + _predict_here(left, up, corner, use_left, use_up, use_corner, use_mean)) & 255)


def _undo_16(raw, left, up, corner, use_left, use_up, use_corner, use_mean):
    """Undo both bytes of a sample. Filters work on bytes, and a low byte's neighbours are low bytes."""
    low = _predict_here(left & 255, up & 255, corner & 255, use_left, use_up, use_corner, use_mean)
    high = _predict_here(left >> 8, up >> 8, corner >> 8, use_left, use_up, use_corner, use_mean)
    return int32((((raw >> 8) + high) & 255) << 8 | ((raw + low) & 255))


def _offset(x, y, last_x, last_row, stride, size):
    """Find a pixel's first byte in a channel; a pixel outside of the image counts as the nearest one inside."""
    return uint32(min(y, last_row) * stride + 1 + min(max(x, 0), last_x) * size)


_offset_here = inline(_offset)


def _load_8(filtered, n, x, y, last_x, last_row, stride):
    return filtered[n, _offset_here(x, y, last_x, last_row, stride, 1)]


def _load_16(filtered, n, x, y, last_x, last_row, stride):
    # Big-endian in a PNG, and not aligned: the filter's byte precedes each row.
    at = _offset_here(x, y, last_x, last_row, stride, 2)
    return uint16((int32(filtered[n, at]) << 8) | filtered[n, uint32(at + 1)])


def _make_unfilter(pixel_bytes, shuffles):
    """Make the kernel for pixels of one or two bytes. Without ``shuffles``, lanes pass pixels on in shared memory."""
    tile_shape, kind = (WARP, _PITCH[pixel_bytes]), types.uint8 if pixel_bytes == 1 else types.uint16
    undo, load = (inline(_undo_8), inline(_load_8)) if pixel_bytes == 1 else (inline(_undo_16), inline(_load_16))

    if shuffles:

        def hand_on(ring, step, value):
            return cuda.shfl_up_sync(_ALL, value, 1)

    else:

        def hand_on(ring, step, value):
            # Two positions in turn, so one barrier a step is enough.
            ring[step & _1, cuda.threadIdx.x + 1] = value
            cuda.syncthreads()
            return int32(ring[step & _1, cuda.threadIdx.x])

    hand_on = inline(hand_on)

    def kernel(filtered, out, status):
        tile = cuda.shared.array(tile_shape, kind)
        edge = cuda.shared.array(WARP, kind)
        ring = cuda.shared.array(_RING, types.int32)
        n, lane = uint32(cuda.blockIdx.x), uint32(cuda.threadIdx.x)
        state = status[n]
        # All lanes must read the old status before one writes a new one.
        cuda.syncthreads()
        if state != _OK:
            return
        channels, height, width = uint32(out.shape[1]), int32(out.shape[2]), int32(out.shape[3])
        b = uint32(n // channels)
        k = uint32(n - b * channels)
        stride = int32(width * pixel_bytes + 1)
        last_row, last_x = int32(height - 1), int32(width - 1)
        first = int32(0)
        while first < height:
            method = int32(0)
            if first + lane < height:
                method = int32(filtered[n, (first + lane) * stride])
                if method > 4:
                    status[n] = _FILTER
            use_left = int32(255) if method == 1 or method >= 3 else int32(0)
            use_up = int32(255) if method >= 2 else int32(0)
            use_corner = int32(255) if method == 4 else int32(0)
            use_mean = method == 3
            left, corner, up, up_next = int32(0), int32(0), int32(0), int32(0)
            # From here on, all lanes see the band above in memory.
            cuda.syncthreads()
            start = int32(0)
            while start < width + _SKEW * (WARP - 1):
                r = uint32(0)
                while r < WARP:
                    # Eight loads in flight at a time, and so without a condition. Outside of the image they read
                    # some pixel of it, which is not used.
                    x, y = int32(start + lane - _SKEW * r), int32(first + r)
                    v0 = load(filtered, n, x, y, last_x, last_row, stride)
                    v1 = load(filtered, n, x - _SKEW, y + 1, last_x, last_row, stride)
                    v2 = load(filtered, n, x - 2 * _SKEW, y + 2, last_x, last_row, stride)
                    v3 = load(filtered, n, x - 3 * _SKEW, y + 3, last_x, last_row, stride)
                    v4 = load(filtered, n, x - 4 * _SKEW, y + 4, last_x, last_row, stride)
                    v5 = load(filtered, n, x - 5 * _SKEW, y + 5, last_x, last_row, stride)
                    v6 = load(filtered, n, x - 6 * _SKEW, y + 6, last_x, last_row, stride)
                    v7 = load(filtered, n, x - 7 * _SKEW, y + 7, last_x, last_row, stride)
                    tile[r, lane], tile[r + _1, lane], tile[r + _2, lane], tile[r + _3, lane] = v0, v1, v2, v3
                    tile[r + _4, lane], tile[r + _5, lane], tile[r + _6, lane], tile[r + _7, lane] = v4, v5, v6, v7
                    r = uint32(r + _8)
                if first > 0 and start + lane < width:
                    edge[lane] = out[b, k, uint32(first - 1), uint32(start + lane)]
                cuda.syncthreads()
                j = uint32(0)
                x = int32(start - _SKEW * lane)
                while j < WARP:
                    above = int32(edge[j]) if first > 0 else int32(0)
                    if lane == 0:
                        up = above
                    value = undo(int32(tile[lane, j]), left, up, corner, use_left, use_up, use_corner, use_mean)
                    # Pixels to the left of the image are zero (section 9.2). Those to the right are never read.
                    if x < 0:
                        value = int32(0)
                    tile[lane, j] = value
                    left, corner, up = value, up, up_next
                    up_next = hand_on(ring, j, value)
                    j, x = uint32(j + _1), int32(x + 1)
                cuda.syncthreads()
                r = uint32(0)
                while r < WARP:
                    x = int32(start + lane - _SKEW * r)
                    if first + r < height and 0 <= x <= last_x:
                        out[b, k, uint32(first + r), uint32(x)] = tile[r, lane]
                    r = uint32(r + _1)
                start = int32(start + WARP)
            first = int32(first + WARP)

    return kernel


def _sum_up(data, size, adlers, status):
    """Check the Adler-32 (RFC 1950, section 8.2) of a stream's bytes, one block per stream.

    The first sum is 1 plus all bytes. The second is the size plus each byte times the number of bytes from it to the
    end.
    """
    plain = cuda.shared.array(_SUMMERS, types.uint64)
    weighted = cuda.shared.array(_SUMMERS, types.uint64)
    n, t = cuda.blockIdx.x, cuda.threadIdx.x
    state = status[n]
    cuda.syncthreads()
    if state != _OK:
        return
    ones, sums = uint64(0), uint64(0)
    for i in range(t, size, _SUMMERS):
        byte = uint64(data[n, i])
        ones += byte
        sums += byte * uint64(size - i)
    plain[t], weighted[t] = ones, sums
    cuda.syncthreads()
    half = _SUMMERS // 2
    while half:
        if t < half:
            plain[t] += plain[t + half]
            weighted[t] += weighted[t + half]
        cuda.syncthreads()
        half //= 2
    if t == 0:
        low = (plain[0] + uint64(1)) % uint64(_ADLER_PRIME)
        high = (weighted[0] + uint64(size)) % uint64(_ADLER_PRIME)
        if uint32((high << uint64(16)) | low) != adlers[n]:
            status[n] = _STREAM


_unfilter_sources = {size: _make_unfilter(size, not config.ENABLE_CUDASIM) for size in (1, 2)}
_unfilter_kernels = {size: cuda.jit(source) for size, source in _unfilter_sources.items()}
_sum_up_kernel = cuda.jit(_sum_up)


def check_adler_batch(data: Any, size: int, adlers: Any, status: Any, stream: Any = 0) -> None:
    """Compare the Adler-32 of N decoded streams with the stored ones. Queues the work and returns at once.

    Parameters
    ----------
    data : (N, P >= size) uint8, on the device, C-contiguous
    size : int
        Bytes of a stream, below 2^28, so that 64-bit sums do not overflow.
    adlers : (N,) uint32, on the device
    status : (N,) int32, on the device
        A status of 0 becomes :data:`rxrx_kernels.png.status.STREAM` where the sum is wrong.
    stream : numba.cuda stream or 0

    Raises
    ------
    ValueError
        If shapes do not fit, or ``size`` is out of range.
    """
    data, adlers, status = map(on_device, (data, adlers, status))
    if data.shape[0] != status.shape[0] or adlers.shape[0] != status.shape[0] or not 0 <= size <= data.shape[1]:
        raise ValueError(f"{status.shape[0]} statuses and {adlers.shape[0]} sums do not fit data {tuple(data.shape)}")
    if size >= 2**28:
        raise ValueError(f"size={size}: must be below 2^28")
    if status.shape[0]:
        _sum_up_kernel[status.shape[0], _SUMMERS, stream](data, size, adlers, status)


def unfilter_batch(filtered: Any, out: Any, status: Any, stream: Any = 0) -> None:
    """Undo any filters of N = B * C channels. Queues the work and returns at once.

    Parameters
    ----------
    filtered : (N, P) uint8, on the device, C-contiguous
        Inflated image data of each channel, at least ``H * (1 + W * itemsize)`` bytes.
    out : (B, C, H, W) uint8 or uint16, on the device, C-contiguous
        Channel k of sample b comes from stream ``b * C + k``. 16-bit samples are in the device's byte order.
    status : (N,) int32, on the device
        Streams with a status other than 0 are skipped, and their planes not written. An unknown filter makes the status
        :data:`rxrx_kernels.png.status.FILTER`, and the plane undefined.
    stream : numba.cuda stream or 0

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit, or images are too large.
    """
    filtered, out, status = map(on_device, (filtered, out, status))
    batch, channels, height, width = out.shape
    size = out.dtype.itemsize
    if out.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"out must be uint8 or uint16, got {out.dtype}")
    if filtered.shape[0] != batch * channels or filtered.shape[1] < height * (1 + width * size):
        raise ValueError(f"filtered has shape {tuple(filtered.shape)}, which does not fit out {tuple(out.shape)}")
    if status.shape[0] != batch * channels:
        raise ValueError(f"status must be ({batch * channels},), got {tuple(status.shape)}")
    if height * (1 + width * size) >= 2**28:
        raise ValueError(f"images of {height} x {width} pixels are too large")
    if batch * channels and height and width:
        _unfilter_kernels[size][batch * channels, WARP, stream](filtered, out, status)


def ptx(compute_capability: tuple[int, int]) -> dict[str, str]:
    """Compile to PTX without a GPU, as :func:`rxrx_kernels.cuda.orient.ptx`."""
    data, numbers = types.Array(types.uint8, 2, "C"), types.Array(types.int32, 1, "C")
    signatures = {
        "unfilter_8": (_unfilter_sources[1], types.void(data, types.Array(types.uint8, 4, "C"), numbers)),
        "unfilter_16": (_unfilter_sources[2], types.void(data, types.Array(types.uint16, 4, "C"), numbers)),
        "adler": (_sum_up, types.void(data, types.int64, types.Array(types.uint32, 1, "C"), numbers)),
    }
    return {
        name: cuda.compile_ptx(function, signature, cc=compute_capability)[0]
        for name, (function, signature) in signatures.items()
    }
