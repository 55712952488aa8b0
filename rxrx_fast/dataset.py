"""Dataset: a catalog, its bytes, a normalisation and a policy; what a sample is.

It is a map-style dataset for ``torch.utils.data.DataLoader`` (one site at a time), and the description that
:class:`rxrx_fast.DataLoader` streams from (batches, through DALI). Both give the same pixels.
"""

from __future__ import annotations

import os
import warnings
from typing import NamedTuple

import numpy as np
import torch
from rxrx_kernels import moments
from rxrx_kernels.fused import fuse_site

from rxrx_fast.buffers import Buffers
from rxrx_fast.catalog import Catalog
from rxrx_fast.device import DTYPES
from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.normalize import Normalize
from rxrx_fast.policy import Policy
from rxrx_fast.stats import PlateStats
from rxrx_fast.stores import FileStore

__all__ = ["Dataset", "Parameters"]


class Parameters(NamedTuple):
    """What the fused kernel needs to make one view of a batch.

    codes : (B,) uint8
        Geometry.
    center, scale : (B, C) float64, or None
        Statistics that normalise; None where each site's own are taken, from its histogram.
    mean_factor, std_factor : (B, C) float64
        Jitter of the statistics.
    normalize : Normalize
    """

    codes: np.ndarray
    center: np.ndarray | None
    scale: np.ndarray | None
    mean_factor: np.ndarray
    std_factor: np.ndarray
    normalize: Normalize

    @property
    def per_site(self) -> bool:
        """Whether :meth:`resolve` needs the sites' histograms."""
        return self.center is None

    def resolve(self, counts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The kernel's two tables, (B, C) float32: the value is ``(pixel - center) * scale``.

        Parameters
        ----------
        counts : (B, C, 256) int64, or None
            The sites' histograms, if :attr:`per_site`.
        """
        center, scale = self.normalize.statistics(counts) if self.per_site else (self.center, self.scale)
        # In float64, rounded once at the end.
        return (center * self.mean_factor).astype(np.float32), (1 / (scale * self.std_factor)).astype(np.float32)


class Dataset(torch.utils.data.Dataset):
    """RxRx1 sites as samples ``(image, label, meta)``.

    Parameters
    ----------
    source : str, path or Catalog
        A data set's root, or a catalog. Sites without all of their files on disk are left out, with a warning that
        counts them.
    split : str, optional
        Such as "train" or "test"; None takes every site.
    normalize : str or Normalize
        "none", "global", "cell_type", "experiment", "plate", "site", or an :class:`rx.Normalize`.
    augment : str or Policy
        A preset's name or an :class:`rx.Policy`; drawn by (seed, epoch, site, view).
    views : int or list
        Number of independent draws of ``augment``, or a list of policies, one view each. With more than one, ``image``
        is a tuple.
    channels : tuple of int
        Channel numbers from 1, in the order wanted; by default all.
    size : int, optional
        Pixels on a side. None takes images as they are stored; this version does not resize, so any other value must
        be the stored size.
    dtype : {"float32", "float16", "uint8"}
        "float16" is float32 rounded once, to nearest, and half the memory to write and to send.
        "uint8" gives raw pixels: geometry applies, normalisation does not.
    stats : PlateStats or path, optional
        By default those saved beside the data (``rxrx_fast_stats.npz``), and if there are none they are fitted over
        every readable site of the root and saved there.
    seed : int
        Of the augmentation, when used without :class:`rx.DataLoader` (which has a seed of its own).

    Attributes
    ----------
    catalog : Catalog
        The sites, in the order of the samples.
    labels : (N,) int64
        siRNA label a sample, -1 where unknown.
    epoch : int
        Key of the draws; set it with :meth:`set_epoch` before an epoch.
    """

    def __init__(
        self,
        source,
        split: str | None = None,
        *,
        normalize: str | Normalize = "plate",
        augment: str | Policy = "none",
        views: int | list = 1,
        channels: tuple[int, ...] | None = None,
        size: int | None = None,
        dtype: str = "float32",
        stats: PlateStats | str | os.PathLike | None = None,
        seed: int = 0,
    ):
        if dtype not in DTYPES:
            raise UsageError(f"dtype={dtype!r}: must be one of {', '.join(map(repr, DTYPES))}")
        whole = source if isinstance(source, Catalog) else Catalog.read(source)
        available = whole.layout.channels
        channels = tuple(range(1, available + 1)) if channels is None else tuple(int(c) for c in channels)
        if not channels or len(set(channels)) != len(channels) or not all(1 <= c <= available for c in channels):
            raise UsageError(f"channels={channels}: must be different numbers from 1 to {available}")
        chosen = whole if split is None else whole.split(split)
        self.catalog = chosen.available(channels)
        if len(self.catalog) == 0:
            raise DataError(f"none of the {len(chosen)} sites has images for channels {channels} under {whole.root}")
        if len(self.catalog) < len(chosen):
            left_out = len(chosen) - len(self.catalog)
            warnings.warn(
                f"{left_out} of {len(chosen)} sites lack files of channels {channels} and are left out "
                "(catalog.summary() says which)",
                stacklevel=2,
            )
        self.store = FileStore(self.catalog, channels)
        self.channels, self.dtype, self.seed, self.epoch = channels, dtype, int(seed), 0
        self.normalize = Normalize.of(normalize)
        self.policies = self._policies(augment, views)
        self.image_size = self.store.image_size
        if size is not None and self.image_size != (size, size):
            raise UsageError(
                f"size={size}: the stored images are {self.image_size[0]} x {self.image_size[1]}; leave size=None"
            )
        if any(policy.transposes for policy in self.policies) and self.image_size[0] != self.image_size[1]:
            raise UsageError(f"turns and transposition need square images, and these are {self.image_size}")
        self.labels = self.catalog.labels
        self._codes = self.catalog.codes()
        self._center = self._scale = self._groups = None
        if dtype != "uint8":
            self._prepare_statistics(whole, stats)

    @staticmethod
    def _policies(augment, views) -> list[Policy]:
        if isinstance(views, (int, np.integer)) and not isinstance(views, bool):
            if views < 1:
                raise UsageError(f"views={views}: must be at least 1")
            return [Policy.of(augment)] * int(views)
        if not isinstance(views, (list, tuple)) or not views:
            raise UsageError(f"views={views!r}: must be a number or a list of policies")
        if augment != "none":
            raise UsageError("augment and a list of views can't be given together: the list says it all")
        return [Policy.of(view) for view in views]

    def _prepare_statistics(self, whole: Catalog, stats) -> None:
        if self.normalize.level == "none":
            self._groups = np.zeros(len(self), np.int64)
            self._center, self._scale = np.zeros((1, len(self.channels))), np.ones((1, len(self.channels)))
        elif self.normalize.level != "site":
            if stats is None:
                stats = PlateStats.beside(whole)
            elif not isinstance(stats, PlateStats):
                stats = PlateStats.load(stats)
            self._groups, center, scale = stats.normalizer(self.normalize, self.catalog)
            wanted = [c - 1 for c in self.channels]
            self._center, self._scale = center[:, wanted], scale[:, wanted]

    def __len__(self) -> int:
        return len(self.catalog)

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of ``dataset[i]``. Call it before the epoch's iterator starts its workers.

        The workers of a torch DataLoader with ``persistent_workers=True`` keep the data set that they were started
        with, so this does not reach them: they repeat the draws of the first epoch. :class:`rxrx_fast.DataLoader`
        needs no call.
        """
        self.epoch = int(epoch)

    def parameters(self, positions: np.ndarray, seed: int, epoch: int) -> list[Parameters]:
        """Parameters of each view of the samples at ``positions``, (B,) int64."""
        positions = np.asarray(positions, np.int64)
        center = scale = None
        if self._groups is not None:
            groups = self._groups[positions]
            center, scale = self._center[groups], self._scale[groups]
        sites = self._codes["site_index"][positions]
        return [
            Parameters(draws.codes, center, scale, draws.mean_factor, draws.std_factor, self.normalize)
            for draws in (
                policy.draw(seed, epoch, sites, view, len(self.channels)) for view, policy in enumerate(self.policies)
            )
        ]

    def meta(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Codes of the samples at ``positions``: a dict of (B,) int64; ``catalog.categories`` names them."""
        return {name: codes[positions] for name, codes in self._codes.items()}

    def __getitem__(self, index: int):
        """One sample: image (C, H, W) or a tuple of views, label int, meta dict of int."""
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of a data set of {len(self)}")
        index %= len(self)
        stack = self.store.pixels(index)
        kind, _ = DTYPES[self.dtype]
        images = []
        for view in self.parameters(np.array([index]), self.seed, self.epoch):
            image = Buffers(0).take(stack.shape, kind)  # aligned, for the kernel
            center = scale = [None]
            if self.dtype != "uint8":
                center, scale = view.resolve(moments.histogram(stack)[None] if view.per_site else None)
            fuse_site(stack, image, int(view.codes[0]), center[0], scale[0])
            images.append(torch.from_numpy(image))
        meta = {name: int(codes[index]) for name, codes in self._codes.items()}
        return images[0] if len(images) == 1 else tuple(images), int(self.labels[index]), meta
