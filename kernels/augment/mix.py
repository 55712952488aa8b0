"""Mixing two finished samples in place: CutMix exchanges a rectangle, MixUp blends. Both keep the pair's pixels.

A pair is mixed in place: nothing is copied and each pixel is read and written at most once. Both labels get the same
shares, because what one sample loses the other one gains.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["blend", "exchange", "rectangle"]


def rectangle(share: float, place: tuple[float, float], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the rectangle that CutMix exchanges: ``y0, y1, x0, x1``.

    Its sides are ``sqrt(1 - share)`` of the image's about a middle that lies anywhere in the image, cut at the edges
    (Yun et al., "CutMix", ICCV 2019, equation 2). What a sample keeps is 1 less the share of the cut rectangle.

    Parameters
    ----------
    share : float
        0 to 1.
    place : (float, float)
        Middle, as shares of height and width.
    shape : (height, width)
    """
    bounds = []
    for middle, size in zip(place, shape):
        side, at = int(size * np.sqrt(1 - share)), int(middle * size)
        bounds += [max(at - side // 2, 0), min(at + side // 2, size)]
    return tuple(bounds)


@njit(nogil=True, cache=True)
def _exchange(a, b):
    for k in range(a.shape[0]):
        for y in range(a.shape[1]):
            for x in range(a.shape[2]):
                a[k, y, x], b[k, y, x] = b[k, y, x], a[k, y, x]


@njit(nogil=True, cache=True)
def _blend(a, b, share, rest):
    for k in range(a.shape[0]):
        for y in range(a.shape[1]):
            for x in range(a.shape[2]):
                p, q = a[k, y, x], b[k, y, x]
                a[k, y, x], b[k, y, x] = share * p + rest * q, share * q + rest * p


def _check(a: np.ndarray, b: np.ndarray, kinds) -> None:
    if a.ndim != 3 or a.shape != b.shape or a.dtype != b.dtype or a.dtype not in kinds:
        raise ValueError(f"a pair must be two (C, H, W) arrays of one kind, got {a.dtype}{a.shape}, {b.dtype}{b.shape}")


def exchange(a: np.ndarray, b: np.ndarray, box) -> None:
    """Exchange the pixels of a rectangle. Releases the GIL.

    Parameters
    ----------
    a, b : (C, H, W) float32, float16 or uint16 (bits of bfloat16)
        Changed in place, with any strides.
    box : (4,) int
        ``y0, y1, x0, x1``.
    """
    _check(a, b, (np.float32, np.float16, np.uint16))
    y0, y1, x0, x1 = (int(edge) for edge in box)
    if not (0 <= y0 <= y1 <= a.shape[1] and 0 <= x0 <= x1 <= a.shape[2]):
        raise ValueError(f"box {tuple(box)} does not lie within {a.shape[1]} x {a.shape[2]} pixels")
    a, b = (array.view(np.uint16) if array.dtype == np.float16 else array for array in (a, b))
    _exchange(a[:, y0:y1, x0:x1], b[:, y0:y1, x0:x1])


def blend(a: np.ndarray, b: np.ndarray, share: float) -> None:
    """Blend each of a pair with the other, in float32. Releases the GIL.

    ``a, b = share * a + (1 - share) * b, share * b + (1 - share) * a``.

    Parameters
    ----------
    a, b : (C, H, W) float32
        Changed in place, with any strides.
    share : float
        0 to 1.
    """
    _check(a, b, (np.float32,))
    _blend(a, b, np.float32(share), np.float32(1 - share))
