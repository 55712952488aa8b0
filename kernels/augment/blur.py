"""Gaussian blur of a plane, in integers: the same bytes on every device.

Weights are multiples of 1/256 that sum to 1, so both passes are exact in integers and the result is rounded once, to
nearest, ties upwards. Beyond the edge the image is mirrored about its outermost pixel.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from rxrx_kernels.augment.warp import REFLECT, reach

__all__ = ["MAX_SIGMA", "blur_plane", "gaussian"]

#: Largest standard deviation, in pixels: beyond, the outer weights round to nothing and the middle ones to one.
MAX_SIGMA = 16.0

_reach = njit(inline="always")(reach)


def gaussian(sigma: float) -> np.ndarray:
    """Weights of a Gaussian out to three standard deviations.

    Parameters
    ----------
    sigma : float
        Pixels, 0 to :data:`MAX_SIGMA`.

    Returns
    -------
    (2 r + 1,) int32
        In 1/256; they sum to 256.
    """
    if not 0 <= sigma <= MAX_SIGMA:
        raise ValueError(f"sigma must be 0 to {MAX_SIGMA} pixels, got {sigma}")
    radius = int(np.ceil(3 * sigma))
    if radius == 0:
        return np.array([256], np.int32)
    # No deviation of less than a twentieth of a pixel reaches a neighbour, and its square could overflow.
    heights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 0.05)) ** 2)
    exact = 256 * heights / heights.sum()
    weights = np.floor(exact).astype(np.int32)
    # What rounding down left goes to the largest remainders, in pairs. All of it in the middle would double that weight
    # at large deviations, and the sharp image would show through.
    pairs, odd = divmod(256 - int(weights.sum()), 2)
    given = np.argsort(weights[radius + 1 :] - exact[radius + 1 :], kind="stable")[:pairs] + 1
    if pairs and weights[radius] + odd <= weights[radius + 1] and 1 in given:
        given, odd = given[:-1], odd + 2
    weights[radius + given] += 1
    weights[radius - given] += 1
    weights[radius] += odd
    return weights


@njit(nogil=True, cache=True)
def blur_plane(plane, weights, out):
    """Blur ``plane`` (H, W) uint8 or uint16 into ``out``, another array of that shape and dtype. Releases the GIL."""
    rows, columns = plane.shape
    radius = weights.size // 2
    # 16 bits of a pixel and 16 of two weights fit uint32.
    line = np.empty(columns + 2 * radius, np.uint32)
    total = np.empty(columns, np.uint32)
    for y in range(rows):
        line[:] = 0
        middle = line[radius : radius + columns]
        for j in range(weights.size):
            source, w = plane[_reach(y + j - radius, rows, REFLECT)], np.uint32(weights[j])
            for x in range(columns):
                middle[x] += np.uint32(source[x]) * w
        for i in range(radius):
            line[radius - 1 - i] = middle[_reach(-1 - i, columns, REFLECT)]
            line[radius + columns + i] = middle[_reach(columns + i, columns, REFLECT)]
        total[:] = np.uint32(1 << 15)
        for j in range(weights.size):
            shifted, w = line[j : j + columns], np.uint32(weights[j])
            for x in range(columns):
                total[x] += shifted[x] * w
        target = out[y]
        for x in range(columns):
            target[x] = total[x] >> np.uint32(16)
