"""A batch's augmentations as arrays, worked out on the host: what a GPU would otherwise compute a pixel at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import from_dtype
from rxrx_kernels.augment import photometric as tone
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.noise import NORMAL
from rxrx_kernels.augment.site import Augmentation, check
from rxrx_kernels.augment.site16 import check16

__all__ = ["EXTRAS", "WARPED", "Tables", "stack_augmentations"]

#: Columns of ``Tables.plan``.
PLAN = ("FILTER", "BORDER", "SEPARABLE", "SWAPPED", "DOWN", "COLUMN_TAPS", "ROW_TAPS", "BITS", "SHIFT", "FLAT", "NOISE")
PLAN += ("TABLE", "NODES", "FLAT_ROWS", "FLAT_COLUMNS")
FILTER, BORDER, SEPARABLE, SWAPPED, DOWN, COLUMN_TAPS, ROW_TAPS, BITS, SHIFT, FLAT, NOISE = range(11)
TABLE, NODES, FLAT_ROWS, FLAT_COLUMNS = range(11, len(PLAN))

#: Work of a batch: any site's map mixes rows and columns; any site has light, noise or a table of its own.
WARPED, EXTRAS = 1, 2

_SHARP = np.array([256], np.int32)
_DTYPES = {
    "plan": (np.int32, 2),
    "matrix": (np.int64, 2),
    "spans": (np.int32, 2),
    "column_first": (np.int32, 2),
    "column_weights": (np.int16, 3),
    "row_first": (np.int32, 2),
    "row_weights": (np.int16, 3),
    "order": (np.int32, 2),
    "fill": (np.float32, 2),
    "center": (np.float32, 2),
    "scale": (np.float32, 2),
    "table": (np.float32, 3),
    "box": (np.int32, 2),
    "erase": (np.float32, 2),
    "noise": (np.float32, 3),
    "key": (np.uint32, 2),
    "flat": (np.float32, 4),
    "bend": (np.int32, 4),
    "x_first": (np.int32, 2),
    "x_basis": (np.int32, 3),
    "y_first": (np.int32, 2),
    "y_basis": (np.int32, 3),
    "steps": (np.int32, 2),
    "blur": (np.int32, 2),
    "blur_sizes": (np.int32, 1),
    "normal": (np.float32, 1),
}


class Tables(NamedTuple):
    """B sites of C channels. Tables that no site of a batch has are one entry long; ``plan`` says who uses which.

    Contiguous arrays, of NumPy or of a device. ``column_first`` and ``column_weights``, which are
    :func:`rxrx_kernels.augment.warp.taps`, go by output column, or by output row where the plan says that a map exchanges
    the two (SWAPPED); rows likewise. A single weight of the blur means that no site has any.
    """

    plan: np.ndarray
    matrix: np.ndarray
    spans: np.ndarray
    column_first: np.ndarray
    column_weights: np.ndarray
    row_first: np.ndarray
    row_weights: np.ndarray
    order: np.ndarray
    fill: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    table: np.ndarray
    box: np.ndarray
    erase: np.ndarray
    noise: np.ndarray
    key: np.ndarray
    flat: np.ndarray
    bend: np.ndarray
    x_first: np.ndarray
    x_basis: np.ndarray
    y_first: np.ndarray
    y_basis: np.ndarray
    steps: np.ndarray
    blur: np.ndarray
    blur_sizes: np.ndarray
    normal: np.ndarray

    @staticmethod
    def kinds() -> list[tuple]:
        """Numba's scalar type and the dimensions of each field."""
        return [(from_dtype(np.dtype(dtype)), ndim) for dtype, ndim in _DTYPES.values()]

    def work(self) -> int:
        """What the sites of a batch ask for beyond the leanest kernel, of :data:`WARPED` and :data:`EXTRAS`.

        For tables on the host.
        """
        plan = self.plan
        extras = plan[:, [FLAT, NOISE, TABLE]].any() or self.erase[:, 1].any()
        return (0 if plan[:, SEPARABLE].all() else WARPED) | (EXTRAS if extras else 0)

    def packed(self) -> tuple[np.ndarray, list[tuple[str, int, tuple[int, ...], np.dtype]]]:
        """All fields in one block, so that one copy takes them to a device.

        Returns
        -------
        block : (N,) uint8
        layout : list of (name, offset in bytes, shape, dtype)
            Offsets are multiples of 256.
        """
        layout, size = [], 0
        for name, array in zip(self._fields, self):
            layout.append((name, size, array.shape, array.dtype))
            size += -(-array.nbytes // 256) * 256
        block = np.zeros(size, np.uint8)
        for (_, offset, _, _), array in zip(layout, self):
            block[offset : offset + array.nbytes] = array.view(np.uint8).reshape(-1) if array.size else 0
        return block, layout


def stack_augmentations(
    augmentations: Sequence[Augmentation], source: tuple[int, int, int], goal: tuple[int, int], bits: int = 8
) -> Tables:
    """Arrays for :func:`rxrx_kernels.cuda.augment.augment_batch`.

    Parameters
    ----------
    augmentations : sequence of Augmentation
        One a site, each with the same number of output channels.
    source : (C', H, W)
        A decoded site.
    goal : (H', W')
        An output plane.
    bits : int
        8 or 16, of the pixels.

    Raises
    ------
    ValueError
        What :func:`rxrx_kernels.augment.site.augment_site` and :func:`rxrx_kernels.augment.site16.augment_site16` refuse.
    """
    channels = len(augmentations[0].order) if augmentations else 0
    for a in augmentations:
        (check if bits == 8 else check16)(a, source, (channels, *goal))
    batch, length = len(augmentations), max(goal)
    taps = [_taps(a, source[1:], goal) for a in augmentations]
    grids = [a.flat.shape[1:] for a in augmentations if len(a.flat)]
    nodes = [a.bend.shape[2] for a in augmentations if a.bend.size]
    blurs = [a.blur if a.blur.size else _SHARP for a in augmentations]
    widest_blur = max((weights.size for weights in blurs), default=1)
    widest = [max([t[axis][1].shape[1] for t in taps if t] + [1]) for axis in (0, 1)]
    some = max(nodes, default=0)
    some_table, entries = any(len(a.table) for a in augmentations), tone.TABLE if bits == 8 else tone.TABLE16
    sizes = {
        "plan": (batch, len(PLAN)),
        "spans": (batch, 4),
        "column_first": (batch, length),
        "column_weights": (batch, length, widest[0]),
        "row_first": (batch, length),
        "row_weights": (batch, length, widest[1]),
        "table": (batch, channels, entries) if some_table else (1, 1, 1),
        "steps": (batch, channels) if some_table and bits == 16 else (1, 1),
        "noise": (batch, channels, 2) if any(len(a.noise) for a in augmentations) else (1, 1, 1),
        "flat": (batch, channels, *np.max(grids, axis=0)) if grids else (1, 1, 1, 1),
        "bend": (batch, 2, some, some) if some else (1, 1, 1, 1),
        "x_first": (batch, goal[1]) if some else (1, 1),
        "x_basis": (batch, goal[1], 4) if some else (1, 1, 1),
        "y_first": (batch, goal[0]) if some else (1, 1),
        "y_basis": (batch, goal[0], 4) if some else (1, 1, 1),
        "blur": (batch if widest_blur > 1 else 1, widest_blur),
        "blur_sizes": (batch if widest_blur > 1 else 1,),
        "normal": NORMAL.shape,
    }
    same = {"matrix": 6, "order": channels, "fill": channels, "center": channels, "scale": channels}
    same.update(box=4, erase=2, key=2)
    t = Tables(*(np.zeros(sizes.get(name) or (batch, same[name]), dtype) for name, (dtype, _) in _DTYPES.items()))
    t.normal[:] = NORMAL
    for b, weights in enumerate(blurs if widest_blur > 1 else ()):
        t.blur_sizes[b] = weights.size
        t.blur[b, : weights.size] = weights
    for b, a in enumerate(augmentations):
        for name in same:
            getattr(t, name)[b] = getattr(a, name)
        plan = t.plan[b]
        plan[[FILTER, BORDER]] = a.sampling
        plan[[SEPARABLE, SHIFT, FLAT, NOISE]] = taps[b] is not None, a.shift, len(a.flat) > 0, len(a.noise) > 0
        plan[[TABLE, NODES, BITS]] = len(a.table) > 0, a.bend.shape[2], warp.samples(a.matrix, a.sampling[0])
        plan[SWAPPED] = a.matrix[0] == 0 and a.matrix[4] == 0
        plan[DOWN] = abs(a.matrix[1]) > abs(a.matrix[0])
        if taps[b]:
            (first, weights, span), (rows, row_weights, row_span) = taps[b]
            plan[[COLUMN_TAPS, ROW_TAPS]] = weights.shape[1], row_weights.shape[1]
            t.spans[b] = *span, *row_span
            t.column_first[b, : len(first)], t.row_first[b, : len(rows)] = first, rows
            t.column_weights[b, : len(first), : weights.shape[1]] = weights
            t.row_weights[b, : len(rows), : row_weights.shape[1]] = row_weights
        for name in ("table", "noise"):
            if len(getattr(a, name)):
                getattr(t, name)[b] = getattr(a, name)
        if len(a.table) and bits == 16:
            t.steps[b] = a.steps
        if len(a.flat):
            plan[[FLAT_ROWS, FLAT_COLUMNS]] = a.flat.shape[1:]
            t.flat[b, :, : a.flat.shape[1], : a.flat.shape[2]] = a.flat
        if a.bend.size:
            count = a.bend.shape[2]
            t.bend[b, :, :count, :count] = a.bend
            t.x_first[b], t.x_basis[b] = warp.basis(goal[1], count)
            t.y_first[b], t.y_basis[b] = warp.basis(goal[0], count)
    return t


def _taps(a: Augmentation, shape, goal):
    """First pixels, weights and span of the source's columns and of its rows; None for maps that mix the two."""
    m, kind = a.matrix, a.sampling[0]
    if a.bend.size or not warp.is_separable(m):
        return None
    swapped = m[0] == 0 and m[4] == 0
    lines = (m[2], m[1] if swapped else m[0], goal[0 if swapped else 1], shape[1])
    rows = (m[5], m[3] if swapped else m[4], goal[1 if swapped else 0], shape[0])
    return [
        (*warp.taps(start, step, count, kind), warp.span(start, step, count, size, kind))
        for start, step, count, size in (lines, rows)
    ]
