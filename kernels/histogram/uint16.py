"""Histograms of 16-bit pixels: few bins, and exact sums.

65,536 counts per plate, kind of well and channel would be gigabytes over a screen, and 12-bit cameras use a sixteenth
of them. So there are 4,096 bins, each ``1 << shift`` grey values wide. The width is 1 if no pixel passes 4,095, and
otherwise the smallest one whose bins hold every pixel, up to 16. Adding neighbours turns bins of one width into bins of
the next, so histograms of different widths can be added. The width of a sum depends on its pixels and not on their
order.

Mean and standard deviation are computed from the number of pixels, their sum and the sum of their squares. All are
integers, so the result is exact whatever the width. Quantiles are those of the bins' middles. They are exact with bins
of one grey value. With wider bins they are off by at most (width - 1) / 2, which is 7.5, and the median absolute
deviation by at most twice that.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from rxrx_kernels.histogram.bins import Histogram, coarsened
from rxrx_kernels.histogram.stacks import checked

__all__ = ["BINS16", "WIDEST", "Histogram", "coarsened", "histogram16"]

#: Bins of a histogram of 16-bit pixels.
BINS16 = 4096
#: The largest ``shift``, with which the bins hold every value.
WIDEST = 4


@njit(nogil=True, cache=True)
def _extremes(stack: np.ndarray, sums: np.ndarray, least: np.ndarray, most: np.ndarray) -> None:
    for k in range(stack.shape[0]):
        low, high = np.uint16(65535), np.uint16(0)
        total = squares = np.uint64(0)
        for y in range(stack.shape[1]):
            line = stack[k, y]
            for x in range(line.size):
                value = line[x]
                low, high = min(low, value), max(high, value)
                total += np.uint64(value)
                squares += np.uint64(value) * np.uint64(value)
        sums[k, 0] = stack.shape[1] * stack.shape[2]
        sums[k, 1] = total
        sums[k, 2], sums[k, 3] = squares >> np.uint64(32), squares & np.uint64(0xFFFFFFFF)
        least[k], most[k] = low, high


@njit(nogil=True, cache=True)
def _count(stack: np.ndarray, shift: np.ndarray, counts: np.ndarray) -> None:
    # Two partial counts: neighbours are often equal, and adding to one bin twice in a row waits for the first store.
    partial = np.zeros((2, counts.shape[1]), np.int64)
    for k in range(stack.shape[0]):
        partial[:] = 0
        by = shift[k]
        for y in range(stack.shape[1]):
            line = stack[k, y]
            even = line.size - line.size % 2
            for x in range(0, even, 2):
                partial[0, line[x] >> by] += 1
                partial[1, line[x + 1] >> by] += 1
            if even < line.size:
                partial[0, line[even] >> by] += 1
        counts[k] = partial[0] + partial[1]


def histogram16(stack: np.ndarray) -> Histogram:
    """Count the values of each channel, in bins as narrow as each channel allows. Releases the GIL.

    Parameters
    ----------
    stack : (C, H, W) uint16
        At most 2^31 pixels a channel.

    Returns
    -------
    Histogram
        Of (C,) channels, with sums and extremes.

    Raises
    ------
    ValueError
        If the stack is of another dtype or number of dimensions, or a channel has no pixels or too many.
    """
    if stack.ndim != 3 or stack.dtype != np.uint16 or not 0 < stack[0].size < 1 << 31:
        raise ValueError(f"stack must be (C, H, W) uint16 and not empty, got {stack.dtype}{stack.shape}")
    stack = checked(stack, np.uint16)
    channels = len(stack)
    sums = np.zeros((channels, 4), np.int64)
    least, most = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    _extremes(stack, sums, least, most)
    # So many bits does the brightest pixel have beyond the 12 of a bin's index.
    shift = np.array([max(int(value).bit_length() - 12, 0) for value in most], np.int64)
    counts = np.zeros((channels, BINS16), np.int64)
    _count(stack, shift, counts)
    return Histogram(counts, shift, sums, least, most)
