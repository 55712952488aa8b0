"""Uneven illumination (flat-field): a smooth field from the mean of a plate's images, and the factors that undo it."""

from __future__ import annotations

import numpy as np

__all__ = ["block_shift", "light_factors"]

_BLOCKS = 32
_DEGREE = 4
_MOST = 4.0


def block_shift(image_size: tuple[int, int]) -> int:
    """Blocks of ``1 << shift`` pixels on a side are at most 32 on the longer side of an image."""
    shift = 0
    while -(-max(image_size) // (1 << shift)) > _BLOCKS:
        shift += 1
    return shift


def _powers(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Values of all products of powers up to the fourth degree together, (len(y) * len(x), 15)."""
    y, x = (part.ravel() for part in np.meshgrid(y, x, indexing="ij"))
    return np.stack([y**i * x**j for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)], axis=1)


def light_factors(field: np.ndarray, image_size: tuple[int, int]) -> tuple[np.ndarray, int]:
    """Factors that undo the light of mean images.

    The logarithm of each mean image is fitted by a polynomial of fourth degree in both axes, which follows a lamp's
    falling off and no cell; the factors are the inverse of the light, whose mean over the image is 1.

    Parameters
    ----------
    field : (P, C, BH, BW) int64
        Sums of pixels by block, of any number of images. A field without light gives factors of 1.
    image_size : (height, width)

    Returns
    -------
    factors : (P, C, GH, GW) float32
        At nodes ``1 << shift`` pixels apart, the first at the first pixel and the last at the last or beyond; within
        1/4 and 4.
    shift : int
    """
    shift = block_shift(image_size)
    side = 1 << shift
    edges = [np.minimum(np.arange(0, size + side, side), size)[: -(-size // side) + 1] for size in image_size]
    middles = [(edge[:-1] + edge[1:] - 1) / 2 for edge in edges]
    nodes = [np.arange(max(2, -(-(size - 1) // side) + 1)) * side for size in image_size]
    # Positions from -1 to 1, where powers are well conditioned.
    fitted, wanted = (
        _powers(*(2 * p / max(size - 1, 1) - 1 for p, size in zip(places, image_size))) for places in (middles, nodes)
    )
    area = np.outer(*(np.diff(edge) for edge in edges))
    mean = (field / area).reshape(-1, fitted.shape[0])
    # A block without light, as of a dead corner, counts as a thousandth of the mean.
    floor = mean.mean(1, keepdims=True) / 1000
    light = np.log(np.maximum(mean, np.where(floor > 0, floor, 1.0)))
    weights = np.linalg.lstsq(fitted, light.T, rcond=None)[0]
    level = np.log((np.exp(fitted @ weights) * area.reshape(-1, 1)).sum(0) / area.sum())
    factors = np.exp(np.clip(level - wanted @ weights, -np.log(_MOST), np.log(_MOST)))
    return factors.T.reshape(*field.shape[:2], *map(len, nodes)).astype(np.float32), shift
