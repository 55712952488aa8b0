"""Views: what the kernels are told of one view of a batch, from draws and statistics.

Everything decided per sample is small and made here, on the host; pixels are only touched by the kernels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from rxrx_kernels import augment, blur, tone, warp

from rxrx_fast import geometry
from rxrx_fast.normalize import Normalize
from rxrx_fast.policy import Draws, Policy

__all__ = ["Plan", "View"]

_F32 = np.float32


class Plan(NamedTuple):
    """What is done to a batch, by sample.

    codes : (B,) int64
        Where a turn or flip and ``(pixel - center) * scale`` are all that is done, the turn's code, see
        :mod:`rxrx_kernels.fused`; else -1.
    center, scale : (B, C) float32
    augmentations : list
        B :class:`rxrx_kernels.augment.Augmentation`; None where the code says it all.
    """

    codes: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    augmentations: list


class View(NamedTuple):
    """One view of a batch of B samples with C channels.

    draws : Draws
    policy : Policy
    normalize : Normalize
    center, scale : (B, C) float64, or None
        Statistics that normalise; None where each site's own are taken, from its histogram.
    mapping : (B, C, 256) float64, or None
        Grey values that take the place of grey values before that (quantile matching, clipping).
    flat : (B, C, GH, GW) float32, or None
        Factors that undo uneven illumination, at nodes ``1 << shift`` pixels apart.
    shift : int
    shape, out_shape : (height, width)
        Of the stored images and of the output.
    """

    draws: Draws
    policy: Policy
    normalize: Normalize
    center: np.ndarray | None
    scale: np.ndarray | None
    mapping: np.ndarray | None
    flat: np.ndarray | None
    shift: int
    shape: tuple[int, int]
    out_shape: tuple[int, int]

    @property
    def per_site(self) -> bool:
        """Whether :meth:`plan` needs the sites' histograms."""
        return self.center is None

    def resolve(self, counts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Center and scale, (B, C) float64, with their jitter: the value is ``(pixel - center) / scale``.

        Parameters
        ----------
        counts : (B, C, 256) int64, or None
            The sites' histograms, if :attr:`per_site`.
        """
        center, scale = self.normalize.statistics(counts) if self.per_site else (self.center, self.scale)
        return center * self.draws.mean_factor, scale * self.draws.std_factor

    def plan(self, counts: np.ndarray | None, dtype: str = "float32", *, together: bool = False) -> Plan:
        """What the kernels do to each sample.

        Parameters
        ----------
        counts : (B, C, 256) int64, or None
            The sites' histograms, if :attr:`per_site`.
        dtype : str
            Of the output; with "uint8" grey values are delivered and nothing is normalised.
        together : bool
            All samples go the same way, as one launch on a GPU needs it: all have codes, or none has.
        """
        raw = dtype == "uint8"
        draws, policy = self.draws, self.policy
        count, channels = draws.mean_factor.shape
        if raw:
            center, scale, mapping = np.zeros((count, channels)), np.ones((count, channels)), None
        else:
            center, scale = self.resolve(counts)
            mapping = self.mapping
            if self.per_site and self.normalize.maps:
                mapping = self.normalize.mapping(counts)
        black = center.copy() if policy.border == "mean" else np.zeros_like(center)
        table = None
        if not raw and (mapping is not None or draws.gamma is not None):
            table, black = _table(draws, policy, mapping, center, scale, black)
        # (x / scale') gain + offset, in the form (pixel - center) * factor.
        factor = 1 / scale
        if not raw and draws.gain is not None:
            factor = factor * draws.gain
        if not raw and draws.offset is not None:
            center = center - draws.offset / factor
        center, factor, black = center.astype(_F32), factor.astype(_F32), black.astype(_F32)

        fixed = warp.fixed(
            geometry.matrices(draws.codes, draws.affine, draws.crop, policy.center_crop, self.shape, self.out_shape)
        )
        codes = np.array([warp.as_code(m, self.shape, self.out_shape) for m in fixed], np.int64).reshape(count)
        boxes = np.zeros((count, 4), np.int64)
        if draws.erased is not None:
            size = geometry.frame(self.shape, policy.center_crop)
            boxes = geometry.box(draws.erased, draws.crop, size, self.out_shape)
        busy = boxes[:, 1] > boxes[:, 0]
        busy |= table is not None or self.flat is not None or draws.order is not None
        for amount in (draws.blur, draws.noise, draws.bend):
            if amount is not None:
                busy = busy | (amount.reshape(count, -1) != 0).any(1)
        # The simplest kernel does not know every type.
        codes[busy | (dtype == "bfloat16")] = -1
        if together and (codes < 0).any():
            codes[:] = -1
        return Plan(codes, center, factor, self._augmentations(codes, center, factor, black, table, fixed, boxes))

    def _augmentations(self, codes, center, factor, black, table, fixed, boxes) -> list:
        draws, policy = self.draws, self.policy
        channels = center.shape[1]
        sampling = np.array([warp.FILTERS[policy.interpolation], warp.BORDERS.get(policy.border, warp.CONSTANT)])
        erase = np.array([0, policy.erase_noise], _F32)
        keys = None
        if draws.key is not None:
            keys = np.column_stack([draws.key & np.uint64(0xFFFFFFFF), draws.key >> np.uint64(32)]).astype(np.uint32)
        base = augment.plain(channels)._replace(sampling=sampling, erase=erase, shift=self.shift)
        found: list = [None] * len(codes)
        for b in np.flatnonzero(codes < 0):
            changes = {"matrix": fixed[b], "fill": black[b], "center": center[b], "scale": factor[b], "box": boxes[b]}
            if table is not None:
                changes["table"] = table[b]
            if self.flat is not None:
                changes["flat"] = self.flat[b]
            if keys is not None:
                changes["key"] = keys[b]
            if draws.noise is not None and draws.noise[b].any():
                # A variance in grey values is what the kernel adds up.
                changes["noise"] = np.tile(draws.noise[b].astype(_F32), (channels, 1))
            if draws.blur is not None and draws.blur[b] > 0:
                changes["blur"] = blur.gaussian(draws.blur[b])
            if draws.bend is not None and draws.bend[b].any():
                changes["bend"] = np.rint(draws.bend[b] * 256).astype(np.int32)
            augmentation = base._replace(**changes)
            if draws.order is not None:
                augmentation = _ordered(augmentation, draws.order[b])
            found[b] = augmentation
        return found


def _table(draws, policy, mapping, center, scale, black):
    """Tables (B, C, 257) float32 from grey values to finished ones, and the grey values that lie outside."""
    count, channels = center.shape
    grey = np.minimum(np.arange(tone.TABLE), tone.TABLE - 2.0)
    values = np.broadcast_to(grey, (count, channels, tone.TABLE))
    if draws.gamma is not None:
        values = 255 * (values / 255) ** draws.gamma[..., None]
    if mapping is not None:
        # Between whole grey values, where gamma leads, the mapping is linear.
        low = np.minimum(values.astype(np.int64), mapping.shape[-1] - 2)
        below = np.take_along_axis(mapping, low, -1)
        values = below + (values - low) * (np.take_along_axis(mapping, low + 1, -1) - below)
    table = (values - center[..., None]) / scale[..., None]
    if policy.border == "mean":
        # Where the table, which never falls, comes to zero.
        black = np.array([[np.interp(0.0, row[:-1], grey[:-1]) for row in rows] for rows in table])
    if draws.gain is not None:
        table = table * draws.gain[..., None]
    if draws.offset is not None:
        table = table + draws.offset[..., None]
    return np.ascontiguousarray(table, _F32), black


def _ordered(augmentation, order):
    """The channels in another order, each with its own tables; -1 leaves one out."""
    source = np.maximum(order, 0)
    changes = {"order": order.astype(np.int64)}
    for name in ("fill", "center", "scale", "table", "noise", "flat"):
        array = getattr(augmentation, name)
        if len(array):
            changes[name] = np.ascontiguousarray(array[source])
    return augmentation._replace(**changes)
