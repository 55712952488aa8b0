"""Histograms of a stack's channels, and the statistics that follow from a histogram.

A 256-bin count is additive over sites, workers and machines, and gives every statistic of 8-bit pixels exactly,
without a second look at the image.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["BINS", "block_sums", "histogram", "mad", "mean_std", "quantile"]

#: One bin a value of a uint8 pixel.
BINS = 256


@njit(nogil=True, cache=True)
def _histogram(stack, counts):
    # Four partial counts: neighbours are often equal, and adding to one bin twice in a row waits for the store.
    partial = np.zeros((4, BINS), np.int64)
    for k in range(stack.shape[0]):
        partial[:] = 0
        plane = stack[k]
        rows, columns = plane.shape
        even = columns - columns % 4
        for y in range(rows):
            for x in range(0, even, 4):
                partial[0, plane[y, x]] += 1
                partial[1, plane[y, x + 1]] += 1
                partial[2, plane[y, x + 2]] += 1
                partial[3, plane[y, x + 3]] += 1
            for x in range(even, columns):
                partial[0, plane[y, x]] += 1
        for i in range(BINS):
            counts[k, i] += partial[0, i] + partial[1, i] + partial[2, i] + partial[3, i]


def histogram(stack: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Count the values of each channel. Releases the GIL.

    Parameters
    ----------
    stack : (C, H, W) uint8
    counts : (C, 256) int64, optional
        Added to in place; a new array of zeros by default.

    Returns
    -------
    (C, 256) int64
    """
    if stack.ndim != 3 or stack.dtype != np.uint8:
        raise ValueError(f"stack must be (C, H, W) uint8, got {stack.dtype}{stack.shape}")
    if counts is None:
        counts = np.zeros((stack.shape[0], BINS), np.int64)
    elif counts.shape != (stack.shape[0], BINS) or counts.dtype != np.int64:
        raise ValueError(f"counts must be ({stack.shape[0]}, {BINS}) int64, got {counts.dtype}{counts.shape}")
    # Read-only, as DALI's arrays are: Numba compiles a function of its own for either kind.
    stack = stack.view()
    stack.flags.writeable = False
    _histogram(stack, counts)
    return counts


@njit(nogil=True, cache=True)
def _block_sums(stack, shift, sums):
    rows, columns = stack.shape[1:]
    # Rows first: a contiguous loop, which vectorises.
    upright = np.zeros(columns, np.int32)
    for k in range(stack.shape[0]):
        for i in range(sums.shape[1]):
            upright[:] = 0
            for y in range(i << shift, min((i + 1) << shift, rows)):
                line = stack[k, y]
                for x in range(columns):
                    upright[x] += np.int32(line[x])
            for x in range(columns):
                sums[k, i, x >> shift] += upright[x]


def block_sums(stack: np.ndarray, shift: int) -> np.ndarray:
    """Sums of the pixels of square blocks, the coarse picture that illumination is estimated from. Releases the GIL.

    Parameters
    ----------
    stack : (C, H, W) uint8 or uint16
    shift : int
        Blocks have ``1 << shift`` pixels on a side, at most 2^15; the last ones may be cut by the edge.

    Returns
    -------
    (C, ceil(H / side), ceil(W / side)) int64
    """
    if stack.ndim != 3 or stack.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"stack must be (C, H, W) uint8 or uint16, got {stack.dtype}{stack.shape}")
    stack = stack.view()
    stack.flags.writeable = False
    sums = np.zeros((stack.shape[0], *(-(-side // (1 << shift)) for side in stack.shape[1:])), np.int64)
    _block_sums(stack, shift, sums)
    return sums


def mean_std(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation (ddof=0) of counted pixels.

    Parameters
    ----------
    counts : (..., 256) int64
        Of any number of bins, as those of the other functions here: what follows is then in bins.

    Returns
    -------
    mean, std : (...) float64
        NaN where nothing was counted. The sums are exact integers, so the result does not depend on the order in
        which histograms were added: var = (n * sum(v^2) - sum(v)^2) / n^2.
    """
    values = np.arange(counts.shape[-1], dtype=np.int64)
    n = counts.sum(-1, dtype=np.int64)
    total = (counts * values).sum(-1, dtype=np.int64)
    squares = (counts * values**2).sum(-1, dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / n
        # n * squares passes 2^63 on a large plate; about the rounded mean the sum of squares is small instead.
        middle = np.where(n > 0, np.rint(mean), 0).astype(np.int64)
        shifted = total - n * middle
        about = squares - 2 * middle * total + n * middle**2
        variance = about / n - (shifted / n) ** 2
    return mean, np.sqrt(np.maximum(variance, 0.0))


def quantile(counts: np.ndarray, q: float) -> np.ndarray:
    """The ``q``-quantile of counted pixels, as ``numpy.quantile(..., method="linear")`` gives it.

    Parameters
    ----------
    counts : (..., 256) int64
    q : float
        0 to 1; 0.5 is the median.

    Returns
    -------
    (...) float64, NaN where nothing was counted.
    """
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"q must be 0 to 1, got {q}")
    cumulative = counts.cumsum(-1, dtype=np.int64)
    n = cumulative[..., -1]
    place = q * np.maximum(n - 1, 0)
    below = np.floor(place).astype(np.int64)
    # The value of the k-th smallest pixel is the first bin whose cumulative count exceeds k.
    low = (cumulative <= below[..., None]).sum(-1)
    high = (cumulative <= np.minimum(below + 1, np.maximum(n - 1, 0))[..., None]).sum(-1)
    return np.where(n > 0, low + (high - low) * (place - below), np.nan)


def mad(counts: np.ndarray) -> np.ndarray:
    """Median absolute deviation from the median, unscaled (multiply by 1.4826 to estimate a normal's sigma).

    Parameters
    ----------
    counts : (..., 256) int64

    Returns
    -------
    (...) float64, NaN where nothing was counted.
    """
    middle, bins = quantile(counts, 0.5), counts.shape[-1]
    # The median is a multiple of 1/2, so twice the deviation is an integer, of 8-bit pixels from 0 to 510.
    twice = np.abs(2 * np.arange(bins) - np.nan_to_num(2 * middle)[..., None]).astype(np.int64)
    flat_counts, flat_twice = counts.reshape(-1, bins), twice.reshape(-1, bins)
    folded = np.zeros((len(flat_counts), 2 * bins), np.int64)
    np.add.at(folded, (np.arange(len(flat_counts))[:, None], flat_twice), flat_counts)
    return (quantile(folded.reshape(*counts.shape[:-1], 2 * bins), 0.5) / 2).reshape(counts.shape[:-1])
