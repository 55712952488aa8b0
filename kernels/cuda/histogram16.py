"""Histograms of 16-bit pixels on a GPU: the integers of :func:`rxrx_kernels.histogram.uint16.histogram16`.

The width of a channel's bins depends on its brightest pixel, so there are two launches. The first finds the darkest and
the brightest pixel, the sum and the sum of squares. The second takes the bins' width from the first one's result, and
counts. The host waits for neither. Sums of squares are below 2^63 for 2^31 pixels and are added as 64-bit integers, so
their order does not matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import config, cuda, int32, types, uint64
from rxrx_kernels.cuda.arrays import on_device
from rxrx_kernels.cuda.orient import check_blocks
from rxrx_kernels.histogram.bins import Histogram
from rxrx_kernels.histogram.uint16 import BINS16

__all__ = ["EXTREMES", "as_histogram", "histogram16_batch", "ptx"]

#: What ``extremes`` must hold before the launch: a darkest and a brightest pixel that any pixel replaces.
EXTREMES = (65535, 0)

# The simulator's threads are the system's, which synchronise slowly.
_THREADS = 32 if config.ENABLE_CUDASIM else 256
# Pixels that a block sums up, and pixels that it counts. Counting also clears and merges 4,096 bins, so it takes more.
_STRETCH, _COUNT_STRETCH = 16384, 65536
# Bits of a bin's index.
_BITS = 12


def _extremes(stack, sums, extremes):
    """Sum up a stretch of one channel of one site in a block, and add it to the channel's sums."""
    # One per line: the simulator tells shared arrays apart by their line.
    totals = cuda.shared.array(_THREADS, types.uint64)
    squares = cuda.shared.array(_THREADS, types.uint64)
    lows = cuda.shared.array(_THREADS, types.int32)
    highs = cuda.shared.array(_THREADS, types.int32)
    channels, width = stack.shape[1], stack.shape[3]
    b = cuda.blockIdx.y // channels
    k = cuda.blockIdx.y - b * channels
    t = cuda.threadIdx.x
    total, square, low, high = uint64(0), uint64(0), int32(65535), int32(0)
    first = cuda.blockIdx.x * _STRETCH
    for i in range(first + t, min(first + _STRETCH, stack.shape[2] * width), _THREADS):
        r = i // width
        value = int32(stack[b, k, r, i - r * width])
        low, high = min(low, value), max(high, value)
        total += uint64(value)
        square += uint64(value) * uint64(value)
    totals[t], squares[t], lows[t], highs[t] = total, square, low, high
    cuda.syncthreads()
    half = _THREADS // 2
    while half:
        if t < half:
            totals[t] += totals[t + half]
            squares[t] += squares[t + half]
            lows[t], highs[t] = min(lows[t], lows[t + half]), max(highs[t], highs[t + half])
        cuda.syncthreads()
        half //= 2
    if t == 0:
        cuda.atomic.add(sums, (b, k, 0), totals[0])
        cuda.atomic.add(sums, (b, k, 1), squares[0])
        cuda.atomic.min(extremes, (b, k, 0), lows[0])
        cuda.atomic.max(extremes, (b, k, 1), highs[0])


def _count(stack, extremes, counts):
    """Count a stretch of one channel in a block's shared memory, and add its bins to the channel's."""
    local = cuda.shared.array(BINS16, types.int32)
    channels, width = stack.shape[1], stack.shape[3]
    b = cuda.blockIdx.y // channels
    k = cuda.blockIdx.y - b * channels
    t = cuda.threadIdx.x
    for i in range(t, BINS16, _THREADS):
        local[i] = 0
    most, shift = extremes[b, k, 1], int32(0)
    while most >> (shift + _BITS):
        shift += 1
    cuda.syncthreads()
    first = cuda.blockIdx.x * _COUNT_STRETCH
    for i in range(first + t, min(first + _COUNT_STRETCH, stack.shape[2] * width), _THREADS):
        r = i // width
        cuda.atomic.add(local, int32(stack[b, k, r, i - r * width]) >> shift, 1)
    cuda.syncthreads()
    for i in range(t, BINS16, _THREADS):
        if local[i]:
            cuda.atomic.add(counts, (b, k, i), local[i])


_extremes_kernel, _count_kernel = cuda.jit(_extremes), cuda.jit(_count)


def histogram16_batch(stack: Any, counts: Any, sums: Any, extremes: Any, stream: Any = 0) -> None:
    """Count the values of each channel of each site. Queues the work and returns at once.

    Parameters
    ----------
    stack : (B, C, H, W) uint16, on the device, any strides
        Images of 1 to 2^31 pixels.
    counts : (B, C, 4096) int32, on the device
        Zeros before the launch. Receives counts in bins as narrow as each channel allows.
    sums : (B, C, 2) uint64, on the device
        Zeros before the launch. Receives the sum of the pixels and the sum of their squares.
    extremes : (B, C, 2) int32, on the device
        :data:`EXTREMES` before the launch. Receives the darkest and the brightest pixel.
    stream : numba.cuda stream or 0

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit.
    """
    stack, counts, sums, extremes = map(on_device, (stack, counts, sums, extremes))
    batch, channels, rows, columns = stack.shape
    kinds = {"stack": (stack, np.uint16, stack.shape), "counts": (counts, np.int32, (batch, channels, BINS16))}
    kinds["sums"] = sums, np.uint64, (batch, channels, 2)
    kinds["extremes"] = extremes, np.int32, (batch, channels, 2)
    for name, (array, dtype, shape) in kinds.items():
        if array.dtype != dtype or tuple(array.shape) != tuple(shape):
            raise ValueError(f"{name} must be {np.dtype(dtype)}{shape}, got {array.dtype}{tuple(array.shape)}")
    pixels = rows * columns
    if batch * channels * pixels == 0:
        return
    check_blocks(batch * channels)
    _extremes_kernel[(-(-pixels // _STRETCH), batch * channels), _THREADS, stream](stack, sums, extremes)
    _count_kernel[(-(-pixels // _COUNT_STRETCH), batch * channels), _THREADS, stream](stack, extremes, counts)


def as_histogram(counts: np.ndarray, sums: np.ndarray, extremes: np.ndarray, pixels: int) -> Histogram:
    """Make a histogram of what :func:`histogram16_batch` wrote, copied to the host.

    Parameters
    ----------
    counts, sums, extremes : numpy.ndarray
        As there.
    pixels : int
        Pixels of a channel.

    Returns
    -------
    Histogram
        Of (B, C), equal to :func:`rxrx_kernels.histogram.uint16.histogram16`'s.
    """
    total, squares = (sums[..., i].astype(np.uint64) for i in (0, 1))
    parts = np.full(total.shape, pixels, np.uint64), total, squares >> np.uint64(32), squares & np.uint64(0xFFFFFFFF)
    least, most = (extremes[..., i].astype(np.int64) for i in (0, 1))
    shift = np.zeros(most.shape, np.int64)
    while (wide := most >> (shift + _BITS) > 0).any():
        shift += wide
    return Histogram(counts.astype(np.int64), shift, np.stack(parts, -1).astype(np.int64), least, most)


def ptx(compute_capability: tuple[int, int]) -> dict[str, str]:
    """Compile to PTX without a GPU, as :func:`rxrx_kernels.cuda.orient.ptx`."""
    stack, numbers = types.Array(types.uint16, 4, "A"), types.Array(types.int32, 3, "C")
    signatures = {
        "extremes": (_extremes, types.void(stack, types.Array(types.uint64, 3, "C"), numbers)),
        "count16": (_count, types.void(stack, numbers, numbers)),
    }
    return {
        name: cuda.compile_ptx(function, signature, cc=compute_capability)[0]
        for name, (function, signature) in signatures.items()
    }
