"""Histograms of either depth, with bins of any width, and their statistics in grey values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from rxrx_kernels.histogram import statistics

__all__ = ["Histogram", "coarsened"]


class Histogram(NamedTuple):
    """Counted pixels of either depth.

    All statistics are float64 grey values, NaN where nothing was counted.

    counts : (..., N) int64
    shift : (...) int64
        Binary logarithm of the bins' width in grey values.
    sums : (..., 4) int64, or None
        Number of pixels, their sum, and the sum of their squares as two numbers: multiples of 2^32, and the rest. All
        four are additive. None for 8-bit pixels, whose counts give exact sums.
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
        """Make a histogram of 8-bit pixels' counts, one bin per grey value. A histogram is returned as it is."""
        return counts if isinstance(counts, Histogram) else cls(counts, np.zeros(counts.shape[:-1], np.int64))

    @classmethod
    def stack(cls, parts: Iterable[Histogram]) -> Histogram:
        """Stack histograms of one shape along a new first axis."""
        counts, shift, *others = zip(*parts)
        return cls(np.stack(counts), np.stack(shift), *(None if part[0] is None else np.stack(part) for part in others))

    def grey(self, bins: np.ndarray) -> np.ndarray:
        """Convert positions in bins, (...) or broadcast to it, to grey values; integers are the bins' middles."""
        width = np.left_shift(1, self.shift)
        return bins * width + (width - 1) / 2

    def bins(self, grey: np.ndarray) -> np.ndarray:
        """Convert grey values, (..., N), to positions in bins: the inverse of :meth:`grey`."""
        width = np.left_shift(1, self.shift)[..., None]
        return (grey - (width - 1) / 2) / width

    def middles(self) -> np.ndarray:
        """Return the grey values in the middle of the bins, (..., N) float64."""
        bins = np.arange(self.counts.shape[-1], dtype=np.float64)
        return self._replace(shift=np.asarray(self.shift)[..., None]).grey(bins)

    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute mean and population standard deviation (ddof=0), (...) each; exact where there are sums."""
        if self.sums is None:
            mean, std = statistics.mean_std(self.counts)
            return self.grey(mean), std * np.left_shift(1, self.shift)
        found = np.full((2, *self.sums.shape[:-1]), np.nan)
        for at in np.ndindex(*self.sums.shape[:-1]):
            # Python's integers do not overflow, and their division rounds once.
            n, total, high, low = (int(value) for value in self.sums[at])
            if n:
                found[(0, *at)] = total / n
                found[(1, *at)] = math.sqrt((n * ((high << 32) + low) - total**2) / n**2)
        return found[0], found[1]

    def quantile(self, q: float) -> np.ndarray:
        """Compute the ``q``-quantile, 0 to 1, (...); see :func:`rxrx_kernels.histogram.statistics.quantile`."""
        return self.grey(statistics.quantile(self.counts, q))

    def mad(self) -> np.ndarray:
        """Compute the median absolute deviation from the median, unscaled, (...)."""
        return statistics.mad(self.counts) * np.left_shift(1, self.shift)


def coarsened(counts: np.ndarray, shift: np.ndarray, wanted: int) -> np.ndarray:
    """Merge bins until they are ``1 << wanted`` grey values wide.

    Parameters
    ----------
    counts : (..., 4096) int64
    shift : (...) int64
        Binary logarithm of the bins' width today.
    wanted : int
        At least ``shift``.

    Returns
    -------
    (..., 4096) int64
        The ``counts`` themselves if nothing is to be merged.

    Raises
    ------
    ValueError
        If bins would have to become narrower.
    """
    shift = np.broadcast_to(shift, counts.shape[:-1])
    if (shift > wanted).any():
        raise ValueError(f"bins can't be made narrower: they are {1 << int(shift.max())} grey values wide")
    for width in range(wanted):
        rows = shift <= width
        if rows.any():
            half = counts.reshape(*counts.shape[:-1], -1, 2).sum(-1)
            merged = np.concatenate([half, np.zeros_like(half)], axis=-1)
            counts = np.where(rows[..., None], merged, counts)
    return counts
