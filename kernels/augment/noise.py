"""Noise of a camera, drawn by arithmetic: a pixel's noise is a pure function of a key and of the pixel's place.

Gaussian (read) noise and shot noise are independent, so their variances add up and one normal number a pixel serves
both: ``sqrt(sigma^2 + shot * value)``. A camera's shot noise is Poisson distributed; at ``1 / shot`` photons a grey
value, its variance in grey values is ``shot * value``, and the normal distribution stands for it (Foi et al.,
"Practical Poissonian-Gaussian noise modeling", IEEE Transactions on Image Processing 2008).

The normal numbers are 4,096 quantiles in a table, which a hash picks from: no logarithm or cosine, of which every
library has its own, so all devices draw the same bits. They reach 3.7 standard deviations.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

__all__ = ["NORMAL", "scramble"]

_BITS = 12


def _quantiles() -> np.ndarray:
    inverse = NormalDist().inv_cdf
    count = 1 << _BITS
    values = np.array([inverse((i + 0.5) / count) for i in range(count)])
    # The tails that a table cuts off take 0.06% of the variance with them.
    return (values / values.std()).astype(np.float32)


#: (4096,) float32, mean 0 and standard deviation 1.
NORMAL = _quantiles()


def scramble(word, low, high):
    """Return a normal number's place in :data:`NORMAL`, from a pixel's number and the two halves of a key, all uint32.

    Twice the 32-bit mixer "lowbias32" of Wellons' search for hash functions of little bias ("Prospecting for hash
    functions", 2018).
    """
    h = np.uint32(word ^ low)
    for _i in range(2):
        h = np.uint32(h ^ (h >> np.uint32(16)))
        h = np.uint32(h * np.uint32(0x7FEB352D))
        h = np.uint32(h ^ (h >> np.uint32(15)))
        h = np.uint32(h * np.uint32(0x846CA68B))
        h = np.uint32(h ^ (h >> np.uint32(16)))
        h = np.uint32(h + high)
    return h >> np.uint32(32 - _BITS)
