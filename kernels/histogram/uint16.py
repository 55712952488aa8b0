"""Statistics of 16-bit pixels: histograms that stay small, and sums that stay exact.

65,536 counts a plate, kind of well and channel would be gigabytes over a screen, and cameras of 12 bits fill a
sixteenth of them. So there are 4,096 bins, each ``1 << shift`` grey values wide: one where no pixel passes 4,095, and
as few as hold every pixel otherwise, up to 16. Bins of one width become those of the next by adding neighbours, so that
histograms of different widths add up, and the width of a sum depends only on its pixels and not on their order.

Mean and standard deviation come from the numbers of pixels, their sum and the sum of their squares, all integers, and
are exact whatever the width. Quantiles are those of the bins' middles: exact with bins of one grey value, and otherwise
off by at most half a bin less half a grey value, which is 7.5; the median absolute deviation by at most twice that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from rxrx_kernels.histogram import uint8 as moments

__all__ = ["BINS16", "WIDEST", "Histogram", "coarsened", "histogram16"]

#: Bins of a histogram of 16-bit pixels.
BINS16 = 4096
#: The largest shift, with which the bins hold every value.
WIDEST = 4

_LOW = (1 << 32) - 1


class Histogram(NamedTuple):
    """Counted pixels of any depth, with the sums of 16-bit ones.

    Statistics are those of grey values and float64, NaN where nothing was counted.

    counts : (..., N) int64
    shift : (...) int64
        Binary logarithm of the bins' width.
    sums : (..., 4) int64, or None
        Number of pixels, their sum, and the sum of their squares as two numbers: multiples of 2^32, and the rest, which
        both add up. None where the counts alone say it all.
    least, most : (...) int64, or None
        The darkest and the brightest pixel.
    """

    counts: np.ndarray
    shift: np.ndarray
    sums: np.ndarray | None = None
    least: np.ndarray | None = None
    most: np.ndarray | None = None

    @classmethod
    def of(cls, counts: np.ndarray | Histogram) -> Histogram:
        """Counts with a bin for each grey value, as 8-bit pixels have; or a histogram itself."""
        return counts if isinstance(counts, Histogram) else cls(counts, np.zeros(counts.shape[:-1], np.int64))

    @classmethod
    def stack(cls, parts) -> Histogram:
        """Histograms of one shape, one after the other along a new first axis."""
        return cls(*(None if arrays[0] is None else np.stack(arrays) for arrays in zip(*parts)))

    def grey(self, bins: np.ndarray) -> np.ndarray:
        """Grey values at places given in bins, (...) or broadcast to it; whole numbers are the bins' middles."""
        width = np.left_shift(1, self.shift)
        return bins * width + (width - 1) / 2

    def bins(self, grey: np.ndarray) -> np.ndarray:
        """Places in bins, (..., N), of grey values of that shape: the other way round."""
        width = np.left_shift(1, self.shift)[..., None]
        return (grey - (width - 1) / 2) / width

    def middles(self) -> np.ndarray:
        """Grey values in the middle of the bins, (..., N) float64."""
        bins = np.arange(self.counts.shape[-1], dtype=np.float64)
        return self._replace(shift=np.asarray(self.shift)[..., None]).grey(bins)

    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and population standard deviation (ddof=0), from the sums, which are exact, where there are sums."""
        if self.sums is None:
            mean, std = moments.mean_std(self.counts)
            return self.grey(mean), std * np.left_shift(1, self.shift)
        found = np.full((2, *self.sums.shape[:-1]), np.nan)
        for at in np.ndindex(*self.sums.shape[:-1]):
            # Python's integers have any number of digits, and their division rounds once.
            n, total, high, low = (int(value) for value in self.sums[at])
            if n:
                found[(0, *at)] = total / n
                found[(1, *at)] = math.sqrt((n * ((high << 32) + low) - total**2) / n**2)
        return found[0], found[1]

    def quantile(self, q: float) -> np.ndarray:
        """The ``q``-quantile, 0 to 1; see :func:`rxrx_kernels.histogram.uint8.quantile`."""
        return self.grey(moments.quantile(self.counts, q))

    def mad(self) -> np.ndarray:
        """Median absolute deviation from the median, unscaled."""
        return moments.mad(self.counts) * np.left_shift(1, self.shift)


def coarsened(counts: np.ndarray, shift: np.ndarray, wanted: int) -> np.ndarray:
    """The same pixels in bins of ``1 << wanted`` grey values, at least as wide as they were.

    Parameters
    ----------
    counts : (..., 4096) int64
    shift : (...) int64
    wanted : int

    Returns
    -------
    (..., 4096) int64
        The counts themselves if they are as wanted.
    """
    shift = np.broadcast_to(shift, counts.shape[:-1])
    if (shift > wanted).any():
        raise ValueError(f"bins can't be made narrower: they are {1 << int(shift.max())} grey values wide")
    for step in range(wanted):
        rows = shift <= step
        if rows.any():
            half = counts.reshape(*counts.shape[:-1], -1, 2).sum(-1)
            merged = np.concatenate([half, np.zeros_like(half)], axis=-1)
            counts = np.where(rows[..., None], merged, counts)
    return counts


@njit(nogil=True, cache=True)
def _extremes(stack, sums, least, most):
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
def _count(stack, shift, counts):
    # Two partial counts: neighbours are often equal, and adding to one bin twice in a row waits for the store.
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
    """
    if stack.ndim != 3 or stack.dtype != np.uint16 or not 0 < stack[0].size < 1 << 31:
        raise ValueError(f"stack must be (C, H, W) uint16 and not empty, got {stack.dtype}{stack.shape}")
    # Read-only, as DALI's arrays are: Numba compiles a function of its own for either kind.
    stack = stack.view()
    stack.flags.writeable = False
    channels = len(stack)
    sums = np.zeros((channels, 4), np.int64)
    least, most = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    _extremes(stack, sums, least, most)
    # Bits of the brightest pixel beyond those of a bin's number.
    shift = np.array([max(int(value).bit_length() - 12, 0) for value in most], np.int64)
    counts = np.zeros((channels, BINS16), np.int64)
    _count(stack, shift, counts)
    return Histogram(counts, shift, sums, least, most)
