"""The work that every contestant does: W1, as data and as a plain NumPy reference.

W1 is what the RxRx1 competition's second place (DeepNoise) feeds its model: six PNG files a site, stacked; each
channel standardised by its plate's mean and deviation, both jittered; mirrored and turned; in NCHW batches of float32,
or of float16 for a model that works in half precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

__all__ = ["DESCRIPTION", "DTYPES", "JITTER", "RoundTrip", "Work"]

#: The mean and the deviation are each multiplied by 1 + JITTER * u, u uniform in [-1, 1), a draw a site and channel.
JITTER = 0.1

#: What a batch can be made of.
DTYPES = ("float32", "float16")

DESCRIPTION = (
    "W1: one PNG a channel -> stack -> (x - plate mean) / plate std with both jittered by x(1 + 0.1 u), u in [-1, 1) "
    "-> horizontal flip p .5, vertical flip p .5, rotation by 0, 90, 180 or 270 degrees -> NCHW torch tensor"
)


@dataclass(frozen=True, eq=False)
class Work:
    """Sites, statistics and settings; the same object goes to every contestant.

    Attributes
    ----------
    catalog : Catalog
        The sites, in the order that they are taken; the list is gone round as often as needed.
    stats : PlateStats
        The statistics in the form that rxrx_fast takes.
    paths : list of tuple of str
        A site's files, by channel.
    mean, std : (N, C) float32
        The same statistics, one row a site.
    batch_size, threads : int
        ``threads`` is worker processes for torch and threads for the others.
    device : {"cpu", "cuda"}
    dtype : {"float32", "float16"}
        Of what is delivered. Everyone computes in float32; float16 is rounded from it.
    augment : bool
        False for the check, which compares pixels.
    """

    catalog: object
    stats: object
    paths: list[tuple[str, ...]] = field(repr=False)
    mean: np.ndarray = field(repr=False)
    std: np.ndarray = field(repr=False)
    batch_size: int = 32
    threads: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    augment: bool = True

    @classmethod
    def of(cls, catalog, stats, **settings) -> Work:
        """The work over the sites of a catalog, all of them complete."""
        from rxrx_fast.stats.normalize import Normalize

        groups, mean, std, _ = stats.normalizer(Normalize("plate"), catalog)
        paths = catalog.files(range(len(catalog)))
        return cls(catalog, stats, paths, mean[groups].astype(np.float32), std[groups].astype(np.float32), **settings)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def torch_dtype(self):
        """``dtype`` as torch has it."""
        import torch

        return getattr(torch, self.dtype)

    def reference(self, site: int) -> np.ndarray:
        """A finished site without augmentation, (C, H, W) float32, as plainly as it can be written."""
        stack = np.stack([np.asarray(Image.open(path)) for path in self.paths[site]]).astype(np.float32)
        return (stack - self.mean[site][:, None, None]) / self.std[site][:, None, None]


class RoundTrip:
    """A sampler that goes round ``size`` sites; each pass yields ``count`` and takes up where the last one stopped."""

    def __init__(self, size: int):
        self._size, self._next = size, 0
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        first, self._next = self._next, self._next + self.count
        return (i % self._size for i in range(first, first + self.count))
