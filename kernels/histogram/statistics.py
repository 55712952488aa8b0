"""Statistics of counted pixels, for any number of bins.

Counts are additive over sites, workers and machines, and give every statistic without a second look at the image. All
results are in bins: bin 3 counts as the value 3.
"""

from __future__ import annotations

import numpy as np

__all__ = ["mad", "mean_std", "quantile"]


def mean_std(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and population standard deviation (ddof=0) of counted pixels.

    Parameters
    ----------
    counts : (..., N) int64

    Returns
    -------
    mean, std : (...) float64
        In bins; NaN where nothing was counted. The sums are exact integers, so the order in which histograms were added
        does not matter: var = (n * sum(v^2) - sum(v)^2) / n^2.
    """
    values = np.arange(counts.shape[-1], dtype=np.int64)
    n = counts.sum(-1, dtype=np.int64)
    total = (counts * values).sum(-1, dtype=np.int64)
    squares = (counts * values**2).sum(-1, dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / n
        # n * squares passes 2^63 on a large plate. About the rounded mean, the sum of squares is small.
        middle = np.where(n > 0, np.rint(mean), 0).astype(np.int64)
        shifted = total - n * middle
        about = squares - 2 * middle * total + n * middle**2
        variance = about / n - (shifted / n) ** 2
    return mean, np.sqrt(np.maximum(variance, 0.0))


def quantile(counts: np.ndarray, q: float) -> np.ndarray:
    """Compute the ``q``-quantile of counted pixels, equal to ``numpy.quantile(..., method="linear")``.

    Parameters
    ----------
    counts : (..., N) int64
    q : float
        0 to 1; 0.5 is the median.

    Returns
    -------
    (...) float64
        In bins; NaN where nothing was counted.

    Raises
    ------
    ValueError
        If ``q`` is outside of 0 to 1.
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
    """Compute the median absolute deviation from the median.

    It is unscaled: multiply by 1.4826 to estimate a normal distribution's sigma.

    Parameters
    ----------
    counts : (..., N) int64

    Returns
    -------
    (...) float64
        In bins; NaN where nothing was counted.
    """
    middle, bins = quantile(counts, 0.5), counts.shape[-1]
    # The median is a multiple of 1/2, so twice the deviation is an integer: 0 to 510 for 256 bins.
    twice = np.abs(2 * np.arange(bins) - np.nan_to_num(2 * middle)[..., None]).astype(np.int64)
    flat_counts, flat_twice = counts.reshape(-1, bins), twice.reshape(-1, bins)
    folded = np.zeros((len(flat_counts), 2 * bins), np.int64)
    np.add.at(folded, (np.arange(len(flat_counts))[:, None], flat_twice), flat_counts)
    return (quantile(folded.reshape(*counts.shape[:-1], 2 * bins), 0.5) / 2).reshape(counts.shape[:-1])
