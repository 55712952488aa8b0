"""Views: what the kernels are told of one view of a batch, from sampled parameters and statistics.

Everything decided per sample is small and made here, on the host; pixels are only touched by the kernels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from rxrx_kernels.augment import blur, warp
from rxrx_kernels.augment.parameters import PARAMETERS, plain
from rxrx_kernels.augment.photometric import LUT8, LUT16
from rxrx_kernels.histogram.uint16 import WIDEST, Histogram

from rxrx_fast.augment import geometry
from rxrx_fast.augment.policy import Policy
from rxrx_fast.augment.sampled import SampledParameters
from rxrx_fast.stats.normalize import Normalize

__all__ = ["RAW", "KernelArguments", "View"]

#: Output types that give grey values as they are stored; nothing is normalised.
RAW = ("uint8", "uint16")

_F32 = np.float32


class KernelArguments(NamedTuple):
    """What is done to a batch, by sample.

    codes : (B,) int64
        Where a turn or flip and ``(pixel - center) * scale`` are all that is done, the turn's code, see
        :mod:`rxrx_kernels.orient.site`; else -1.
    center, scale : (B, C) float32
    augmentations : list
        B :class:`rxrx_kernels.augment.parameters.Augmentation`; None where the code says it all.
    raw : bool
        Whether grey values are delivered, so that uint16 does not stand for the bits of bfloat16.
    """

    codes: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    augmentations: list
    raw: bool = False


class View(NamedTuple):
    """One view of a batch of B samples with C channels.

    sampled : SampledParameters
    policy : Policy
    normalize : Normalize
    center, scale : (B, C) float64, or None
        Statistics that normalise; None where each site's own are taken, from its histogram.
    mapping : (B, C, N) float64, or None
        Grey values that take the place of grey values before that (quantile matching, clipping).
    flat : (B, C, GH, GW) float32, or None
        Factors that undo uneven illumination, at nodes ``1 << flat_log2`` pixels apart.
    flat_log2 : int
    shape, out_shape : (height, width)
        Of the stored images and of the output.
    bits : int
        8 or 16, of the stored pixels.
    bin_log2 : int
        With 16 bits: tables go by bins of ``1 << bin_log2`` grey values, see :mod:`rxrx_kernels.histogram.uint16`.
        Where each site's own statistics are taken, so is its own bin width.
    """

    sampled: SampledParameters
    policy: Policy
    normalize: Normalize
    center: np.ndarray | None
    scale: np.ndarray | None
    mapping: np.ndarray | None
    flat: np.ndarray | None
    flat_log2: int
    shape: tuple[int, int]
    out_shape: tuple[int, int]
    bits: int = 8
    bin_log2: int = WIDEST

    @property
    def per_site(self) -> bool:
        """Whether :meth:`kernel_arguments` needs the sites' histograms."""
        return self.center is None

    def resolve(self, counts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Center and scale, (B, C) float64, with their jitter: the value is ``(pixel - center) / scale``.

        Parameters
        ----------
        counts : (B, C, 256) int64, Histogram of (B, C), or None
            The sites' histograms, if :attr:`per_site`.
        """
        center, scale = self.normalize.statistics(counts) if self.per_site else (self.center, self.scale)
        return center * self.sampled.mean_factor, scale * self.sampled.std_factor

    def kernel_arguments(
        self, counts: np.ndarray | None, dtype: str = "float32", *, together: bool = False
    ) -> KernelArguments:
        """Return what the kernels do to each sample.

        Parameters
        ----------
        counts : (B, C, 256) int64, Histogram of (B, C), or None
            The sites' histograms, if :attr:`per_site`.
        dtype : str
            Of the output; with one of :data:`RAW` grey values are delivered and nothing is normalised.
        together : bool
            All samples go the same way, as one launch on a GPU needs it: all have codes, or none has.
        """
        raw = dtype in RAW
        sampled, policy = self.sampled, self.policy
        count, channels = sampled.mean_factor.shape
        if raw:
            center, scale, mapping = np.zeros((count, channels)), np.ones((count, channels)), None
        else:
            center, scale = self.resolve(counts)
            mapping = self.mapping
            if self.per_site and self.normalize.maps:
                mapping = self.normalize.mapping(counts)
        black = center.copy() if policy.border == "mean" else np.zeros_like(center)
        table = bin_log2 = None
        if not raw and (mapping is not None or sampled.gamma is not None):
            if self.bits == 16:
                bin_log2 = counts.shift if self.per_site else np.full(center.shape, self.bin_log2)
            table, black = _table(sampled, policy, mapping, center, scale, black, bin_log2)
        # (x / scale') gain + offset, in the form (pixel - center) * factor.
        factor = 1 / scale
        if not raw and sampled.gain is not None:
            factor = factor * sampled.gain
        if not raw and sampled.offset is not None:
            center = center - sampled.offset / factor
        center, factor, black = center.astype(_F32), factor.astype(_F32), black.astype(_F32)

        fixed = warp.fixed(
            geometry.matrices(
                sampled.codes, sampled.affine, sampled.crop, policy.center_crop, self.shape, self.out_shape
            )
        )
        codes = np.array([warp.as_code(m, self.shape, self.out_shape) for m in fixed], np.int64).reshape(count)
        boxes = np.zeros((count, 4), np.int64)
        if sampled.erased is not None:
            size = geometry.frame(self.shape, policy.center_crop)
            boxes = geometry.box(sampled.erased, sampled.crop, size, self.out_shape)
        busy = boxes[:, 1] > boxes[:, 0]
        busy |= table is not None or self.flat is not None or sampled.order is not None
        for amount in (sampled.blur, sampled.noise, sampled.displacement):
            if amount is not None:
                busy = busy | (amount.reshape(count, -1) != 0).any(1)
        # The simplest kernel does not know every type; that of a GPU, which is asked for all together, knows 16 bits.
        codes[busy | (dtype == "bfloat16") | (self.bits == 16 and not together)] = -1
        if together and (codes < 0).any():
            codes[:] = -1
        augmentations = self._augmentations(codes, center, factor, black, table, bin_log2, fixed, boxes)
        return KernelArguments(codes, center, factor, augmentations, raw)

    def _augmentations(self, codes, center, factor, black, table, bin_log2, fixed, boxes) -> list:
        sampled, policy = self.sampled, self.policy
        channels = center.shape[1]
        sampling = np.array([warp.FILTERS[policy.interpolation], warp.BORDERS.get(policy.border, warp.CONSTANT)])
        erase = np.array([0, policy.erase_noise], _F32)
        keys = None
        if sampled.key is not None:
            keys = np.column_stack([sampled.key & np.uint64(0xFFFFFFFF), sampled.key >> np.uint64(32)]).astype(
                np.uint32
            )
        base = plain(channels)._replace(sampling=sampling, erase=erase, flat_log2=self.flat_log2)
        found: list = [None] * len(codes)
        for b in np.flatnonzero(codes < 0):
            changes = {"matrix": fixed[b], "fill": black[b], "center": center[b], "scale": factor[b], "box": boxes[b]}
            if table is not None:
                changes["lut"] = table[b]
            if bin_log2 is not None:
                changes["lut_log2"] = np.ascontiguousarray(bin_log2[b])
            if self.flat is not None:
                changes["flat"] = self.flat[b]
            if keys is not None:
                changes["key"] = keys[b]
            if sampled.noise is not None and sampled.noise[b].any():
                # A variance in grey values is what the kernel adds up.
                changes["noise"] = np.tile(sampled.noise[b].astype(_F32), (channels, 1))
            if sampled.blur is not None and sampled.blur[b] > 0:
                changes["blur"] = blur.gaussian(sampled.blur[b])
            if sampled.displacement is not None and sampled.displacement[b].any():
                changes["displacement"] = np.rint(sampled.displacement[b] * 256).astype(np.int32)
            augmentation = base._replace(**changes)
            if sampled.order is not None:
                augmentation = _ordered(augmentation, sampled.order[b])
            found[b] = augmentation
        return found


def _table(sampled, policy, mapping, center, scale, black, bin_log2):
    """Tables (B, C, ...) float32 from grey values to finished ones, and the grey values that lie outside.

    ``bin_log2`` is (B, C) for 16-bit pixels, whose tables go by the middles of bins, and None for 8-bit ones, whose
    tables have an entry a grey value and the last one twice.
    """
    count, channels = center.shape
    entries, most = (LUT8 - 1, 255) if bin_log2 is None else (LUT16, (LUT16 << bin_log2[..., None]) - 1)
    shift = np.zeros((count, channels), np.int64) if bin_log2 is None else bin_log2
    bins = Histogram(np.broadcast_to(np.int64(0), (count, channels, entries)), shift)
    grey = values = bins.middles()
    if sampled.gamma is not None:
        values = most * (values / most) ** sampled.gamma[..., None]
    if mapping is not None:
        # Between the middles of bins, where gamma leads, the mapping is linear.
        place = bins.bins(values)
        low = np.clip(place.astype(np.int64), 0, entries - 2)
        below = np.take_along_axis(mapping, low, -1)
        values = below + (place - low) * (np.take_along_axis(mapping, low + 1, -1) - below)
    table = (values - center[..., None]) / scale[..., None]
    if policy.border == "mean":
        # Where the table, which never falls, comes to zero.
        rows = zip(table.reshape(-1, entries), grey.reshape(-1, entries))
        black = np.array([np.interp(0.0, *row) for row in rows]).reshape(count, channels)
    if bin_log2 is None:
        table = np.concatenate([table, table[..., -1:]], axis=-1)
    if sampled.gain is not None:
        table = table * sampled.gain[..., None]
    if sampled.offset is not None:
        table = table + sampled.offset[..., None]
    return np.ascontiguousarray(table, _F32), black


def _ordered(augmentation, order):
    """Put the channels in another order, each with its own tables; -1 leaves one out."""
    source = np.maximum(order, 0)
    changes = {"order": order.astype(np.int64)}
    for name, parameter in PARAMETERS.items():
        array = getattr(augmentation, name)
        if name != "order" and parameter.axes[:1] == ("C",) and len(array):
            changes[name] = np.ascontiguousarray(array[source])
    return augmentation._replace(**changes)
