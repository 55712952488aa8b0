"""Sums of square blocks of pixels, for either depth."""

from __future__ import annotations

import numpy as np
from numba import njit
from rxrx_kernels.histogram.stacks import checked

__all__ = ["block_sums"]


@njit(nogil=True, cache=True)
def _block_sums(stack: np.ndarray, shift: int, sums: np.ndarray) -> None:
    rows, columns = stack.shape[1:]
    # Columns are summed up first: that loop is contiguous, and vectorises.
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
    """Sum up the pixels of square blocks: the coarse image that illumination is estimated from. Releases the GIL.

    Parameters
    ----------
    stack : (C, H, W) uint8 or uint16
    shift : int
        Binary logarithm of the blocks' side in pixels, 15 at most. The edge may cut the last blocks.

    Returns
    -------
    (C, ceil(H / side), ceil(W / side)) int64

    Raises
    ------
    ValueError
        If the stack is of another dtype or number of dimensions.
    """
    stack = checked(stack, np.uint8, np.uint16)
    sums = np.zeros((stack.shape[0], *(-(-side // (1 << shift)) for side in stack.shape[1:])), np.int64)
    _block_sums(stack, shift, sums)
    return sums
