"""Uneven illumination (flat field): its estimate from the mean of a plate's images, and the factors that undo it."""

from __future__ import annotations

import numpy as np

__all__ = ["block_shift", "illumination_factors"]

_BLOCKS = 32
_DEGREE = 4
_LARGEST_FACTOR = 4.0


def block_shift(image_size: tuple[int, int]) -> int:
    """Return the smallest shift with at most 32 blocks of ``1 << shift`` pixels on the longer side of an image."""
    shift = 0
    while -(-max(image_size) // (1 << shift)) > _BLOCKS:
        shift += 1
    return shift


def _powers(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Values of the 15 monomials in y and x up to degree 4 on a grid, (len(y) * len(x), 15)."""
    y, x = (part.ravel() for part in np.meshgrid(y, x, indexing="ij"))
    return np.stack([y**i * x**j for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)], axis=1)


def illumination_factors(block_sums: np.ndarray, image_size: tuple[int, int]) -> tuple[np.ndarray, int]:
    """Compute the factors that undo the illumination of mean images.

    The logarithm of each mean image is fitted by least squares with a polynomial of degree 4 in y and x: flexible
    enough for the fall-off of a lamp, too stiff for cells. The illumination is scaled to a mean of 1 over the image,
    and the factors are its inverse.

    Parameters
    ----------
    block_sums : (P, C, BH, BW) int64
        Sums of pixels by block, over any number of images. Sums of 0 give factors of 1.
    image_size : (height, width)
        In pixels.

    Returns
    -------
    factors : (P, C, GH, GW) float32
        At nodes ``1 << block_shift`` pixels apart, the first at the first pixel, the last at the last pixel or beyond.
        Limited to 1/4 to 4.
    block_shift : int
    """
    shift = block_shift(image_size)
    side = 1 << shift
    edges = [np.minimum(np.arange(0, size + side, side), size)[: -(-size // side) + 1] for size in image_size]
    middles = [(edge[:-1] + edge[1:] - 1) / 2 for edge in edges]
    nodes = [np.arange(max(2, -(-(size - 1) // side) + 1)) * side for size in image_size]
    # Positions from -1 to 1, where the least-squares problem is well conditioned.
    fitted, wanted = (
        _powers(*(2 * p / max(size - 1, 1) - 1 for p, size in zip(places, image_size))) for places in (middles, nodes)
    )
    area = np.outer(*(np.diff(edge) for edge in edges))
    mean = (block_sums / area).reshape(-1, fitted.shape[0])
    # A block without light, such as a dead corner, counts as a thousandth of the mean: its logarithm is needed.
    floor = mean.mean(1, keepdims=True) / 1000
    light = np.log(np.maximum(mean, np.where(floor > 0, floor, 1.0)))
    weights = np.linalg.lstsq(fitted, light.T, rcond=None)[0]
    level = np.log((np.exp(fitted @ weights) * area.reshape(-1, 1)).sum(0) / area.sum())
    factors = np.exp(np.clip(level - wanted @ weights, -np.log(_LARGEST_FACTOR), np.log(_LARGEST_FACTOR)))
    return factors.T.reshape(*block_sums.shape[:2], *map(len, nodes)).astype(np.float32), shift
