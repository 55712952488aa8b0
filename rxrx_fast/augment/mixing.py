"""Mixing the samples of a batch, and the soft labels that go with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from rxrx_kernels.augment.mix import rectangle

from rxrx_fast.augment.policy import Policy

__all__ = ["Mixed", "mixed_pairs", "soft_labels"]


class Mixed(NamedTuple):
    """How one pair of samples is mixed.

    share : float
        What each keeps of itself; for CutMix as drawn, see :meth:`kept`.
    cut : bool
        CutMix, else MixUp.
    place : (float, float)
        Middle of CutMix's rectangle, as shares of height and width.
    """

    share: float
    cut: bool
    place: tuple[float, float]

    def kept(self, shape: tuple[int, int]) -> float:
        """Share of its label that a sample of (height, width) keeps: by pixels, where a rectangle is cut."""
        if not self.cut:
            return self.share
        y0, y1, x0, x1 = rectangle(self.share, self.place, shape)
        return 1 - (y1 - y0) * (x1 - x0) / (shape[0] * shape[1])


def mixed_pairs(policy: Policy, seed: int, epoch: int, sites: np.ndarray) -> list[Mixed]:
    """How the samples 2 i and 2 i + 1 of a batch are mixed; a last one without a partner stays as it is.

    Pairs of neighbours are the same for any number of ranks, as long as a rank's batches are of even size. All views
    of a sample are mixed alike, because they share its label.

    Parameters
    ----------
    sites : (B,) int64
        Labels of the sites in the catalog.
    """
    pairs = policy.draw_pairs(seed, epoch, sites[: len(sites) // 2 * 2 : 2], 0)
    return [Mixed(float(s), bool(c), (float(p[0]), float(p[1]))) for s, c, p in zip(*pairs)]


def soft_labels(labels: np.ndarray, classes: int, mixed: list[Mixed], shape: tuple[int, int]) -> np.ndarray:
    """Shares of the classes.

    Parameters
    ----------
    labels : (B,) int64
        -1 for an unlabelled sample, whose share stays zero.
    classes : int
        K.
    mixed : list of Mixed
        Of the samples 2 i and 2 i + 1.
    shape : (height, width)
        Of the samples.

    Returns
    -------
    (B, K) float32
    """
    hard = np.zeros((len(labels), classes), np.float32)
    known = np.flatnonzero(labels >= 0)
    hard[known, labels[known]] = 1
    soft = hard.copy()
    for i, how in enumerate(mixed):
        kept, a, b = np.float32(how.kept(shape)), 2 * i, 2 * i + 1
        soft[a] = kept * hard[a] + (1 - kept) * hard[b]
        soft[b] = kept * hard[b] + (1 - kept) * hard[a]
    return soft
