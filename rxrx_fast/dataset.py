"""Dataset: a catalog, its bytes, a normalisation and a policy; what a sample is.

It is a map-style dataset for ``torch.utils.data.DataLoader`` (one site at a time), and the description that
:class:`rxrx_fast.DataLoader` streams from (batches, through DALI). Both give the same pixels.
"""

from __future__ import annotations

import os
import warnings

import numpy as np
import torch
from rxrx_kernels.histogram.uint16 import WIDEST

from rxrx_fast.augment.geometry import frame
from rxrx_fast.augment.mixing import mixed_pairs, soft_labels
from rxrx_fast.augment.policy import Policy
from rxrx_fast.augment.views import RAW, View
from rxrx_fast.catalog import Catalog
from rxrx_fast.devices.device import DTYPES, as_tensor, count_site, finish_site, stacked
from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.runtime.buffers import Buffers
from rxrx_fast.stats import Normalizer, PlateStats
from rxrx_fast.stats.normalize import Normalize
from rxrx_fast.stores import open_store

__all__ = ["Dataset"]


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
    size : int or (int, int), optional
        Pixels on a side, or (height, width), of the output; images (or the crops that ``augment`` makes) are resized to
        it in the kernel that does everything else. None takes the size as stored, or of the policy's centre crop.
    dtype : {"float32", "float16", "bfloat16", "uint8", "uint16"}
        "float16" and "bfloat16" are float32 rounded once, to nearest, ties to even, and half the memory to write and to
        send. "uint8" gives the raw pixels of 8-bit files, and "uint16" those of 16-bit ones: what moves, blurs or adds
        noise to pixels applies; what changes their scale (normalisation, jitter, gamma, gain, offset) does not, nor
        does mixing.
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
        size: int | tuple[int, int] | None = None,
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
        self.store = open_store(self.catalog, channels)
        self.channels, self.dtype, self.seed, self.epoch = channels, dtype, int(seed), 0
        self.normalize = Normalize.of(normalize)
        self.policies = self._policies(augment, views)
        self.image_size, self._bits = self.store.image_size, 8 * self.store.dtype.itemsize
        if dtype in RAW and dtype != f"uint{self._bits}":
            raise UsageError(f"dtype={dtype!r}: these files are of {self._bits} bits; 'uint{self._bits}' is raw pixels")
        self.size = self._output_size(size)
        if any(policy.transposes for policy in self.policies) and len(set(self.image_size)) > 1:
            raise UsageError(f"turns and transposition need square images, and these are {self.image_size}")
        if len({policy.mixes for policy in self.policies}) > 1:
            raise UsageError("either all views are mixed (cutmix, mixup) or none: labels go with all of them")
        self.labels = self.catalog.labels
        self._codes = self.catalog.codes()
        self._classes = int(max(whole.labels.max(initial=-1), 0)) + 1
        self._normalizer = self._light = None
        self._step = WIDEST
        if dtype not in RAW:
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

    def _output_size(self, size) -> tuple[int, int]:
        """(height, width) of the samples."""
        if size is None:
            frames = {frame(self.image_size, policy.center_crop) for policy in self.policies}
            if len(frames) > 1:
                raise UsageError(f"views are cropped to different sizes, {sorted(frames)}: say size=...")
            return frames.pop()
        sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
        if len(sides) != 2 or not all(isinstance(s, (int, np.integer)) and 1 <= s <= 32768 for s in sides):
            raise UsageError(f"size={size!r}: must be pixels on a side, from 1 to 32768, or (height, width)")
        return tuple(int(side) for side in sides)

    def _prepare_statistics(self, whole: Catalog, stats) -> None:
        level = self.normalize.level
        if level not in ("none", "site") or self.normalize.illumination:
            if stats is None:
                stats = PlateStats.beside(whole)
            elif not isinstance(stats, PlateStats):
                stats = PlateStats.load(stats)
            if stats.bits != self._bits:
                raise DataError(f"the statistics are of {stats.bits}-bit pixels, and these files of {self._bits} bits")
        wanted = [c - 1 for c in self.channels]
        if level == "none":
            one = np.ones((1, len(self.channels)))
            self._normalizer = Normalizer(np.zeros(len(self), np.int64), 0 * one, one, None)
        elif level != "site":
            self._step = stats.bin_shift
            groups, *tables = stats.normalizer(self.normalize, self.catalog)
            self._normalizer = Normalizer(groups, *(None if t is None else t[:, wanted] for t in tables))
        if self.normalize.illumination:
            plates, factors, shift = stats.illumination(self.catalog)
            self._light = plates, np.ascontiguousarray(factors[:, wanted]), shift

    def __len__(self) -> int:
        return len(self.catalog)

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of ``dataset[i]``. Call it before the epoch's iterator starts its workers.

        The workers of a torch DataLoader with ``persistent_workers=True`` keep the data set that they were started
        with, so this does not reach them: they repeat the draws of the first epoch. :class:`rxrx_fast.DataLoader`
        needs no call.
        """
        self.epoch = int(epoch)

    def parameters(self, positions: np.ndarray, seed: int, epoch: int) -> list[View]:
        """What is done in each view to the samples at ``positions``, (B,) int64."""
        positions = np.asarray(positions, np.int64)
        center = scale = mapping = flat = None
        shift = 0
        if self._normalizer is not None:
            groups = self._normalizer.groups[positions]
            center, scale = self._normalizer.center[groups], self._normalizer.scale[groups]
            mapping = None if self._normalizer.mapping is None else self._normalizer.mapping[groups]
        if self._light is not None:
            plates, factors, shift = self._light
            flat = factors[plates[positions]]
        sites = self._codes["site_index"][positions]
        tables = center, scale, mapping, flat, shift, self.image_size, self.size, self._bits, self._step
        return [
            View(policy.draw(seed, epoch, sites, view, len(self.channels)), policy, self.normalize, *tables)
            for view, policy in enumerate(self.policies)
        ]

    @property
    def only_turns(self) -> bool:
        """Whether the simplest kernel makes all samples, and the others need not be compiled."""
        plain = self.size == self.image_size and not self.normalize.maps and not self.normalize.illumination
        return plain and self.dtype != "bfloat16" and all(policy.only_turns for policy in self.policies)

    @property
    def mixes(self) -> bool:
        """Whether samples are mixed with their neighbours in a batch, and labels are soft."""
        return self.dtype not in RAW and self.policies[0].mixes

    @property
    def classes(self) -> int:
        """Number of siRNA labels, K: one more than the largest of the whole catalog."""
        return self._classes

    def mixing(self, positions: np.ndarray, seed: int, epoch: int) -> list:
        """How neighbours of a batch at ``positions`` are mixed: a list of Mixed, empty without cutmix and mixup."""
        if not self.mixes:
            return []
        return mixed_pairs(self.policies[0], seed, epoch, self._codes["site_index"][np.asarray(positions, np.int64)])

    def batch_labels(self, positions: np.ndarray, mixed: list) -> np.ndarray:
        """Labels of a batch: (B,) int64, or (B, K) float32 where samples are mixed."""
        labels = self.labels[positions]
        return soft_labels(labels, self.classes, mixed, self.size) if self.mixes else labels

    def meta(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Codes of the samples at ``positions``: a dict of (B,) int64; ``catalog.categories`` names them."""
        return {name: codes[positions] for name, codes in self._codes.items()}

    def __getitem__(self, index: int):
        """One sample: image (C, H, W) or a tuple of views, label int, meta dict of int."""
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of a data set of {len(self)}")
        index %= len(self)
        if self.mixes:
            raise UsageError("cutmix and mixup mix the samples of a batch: use rx.DataLoader, or leave them out here")
        (stack,) = self.store.pixels([index])
        images = []
        for view in self.parameters(np.array([index]), self.seed, self.epoch):
            image = Buffers(0).take((len(self.channels), *self.size), DTYPES[self.dtype][0])  # aligned, for the kernel
            counts = stacked([count_site(stack)]) if view.per_site and self.dtype not in RAW else None
            plan = view.kernel_arguments(counts, self.dtype)
            finish_site(stack, image, plan, 0)
            images.append(as_tensor(image, self.dtype))
        meta = {name: int(codes[index]) for name, codes in self._codes.items()}
        return images[0] if len(images) == 1 else tuple(images), int(self.labels[index]), meta
