"""Histograms of 8-bit pixels: one bin per grey value, so every statistic is exact.

The statistics of counts, and sums of blocks, can be imported from here too.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from rxrx_kernels.histogram.blocks import block_sums
from rxrx_kernels.histogram.stacks import checked
from rxrx_kernels.histogram.statistics import mad, mean_std, quantile

__all__ = ["BINS", "block_sums", "histogram", "mad", "mean_std", "quantile"]

#: One bin per value of a uint8 pixel.
BINS = 256


@njit(nogil=True, cache=True)
def _histogram(stack: np.ndarray, counts: np.ndarray) -> None:
    # Four partial counts: neighbours are often equal, and adding to one bin twice in a row waits for the first store.
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
        The counts are added to it in place. By default a new array of zeros.

    Returns
    -------
    (C, 256) int64
        ``counts``.

    Raises
    ------
    ValueError
        If the stack or ``counts`` does not fit.
    """
    stack = checked(stack, np.uint8)
    if counts is None:
        counts = np.zeros((stack.shape[0], BINS), np.int64)
    elif counts.shape != (stack.shape[0], BINS) or counts.dtype != np.int64:
        raise ValueError(f"counts must be ({stack.shape[0]}, {BINS}) int64, got {counts.dtype}{counts.shape}")
    _histogram(stack, counts)
    return counts
