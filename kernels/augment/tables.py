"""A batch's augmentations as arrays, computed on the host so that the GPU need not compute them for each pixel."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numba import from_dtype
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.noise import NORMAL
from rxrx_kernels.augment.parameters import PARAMETERS, Augmentation, Parameter, check

__all__ = ["EXTRAS", "TABLES", "WARPED", "Tables", "stack_augmentations"]

#: Columns of ``Tables.switches``: what each site's kernel does, and the sizes of its tables.
SWITCHES = ("FILTER", "BORDER", "SEPARABLE", "TRANSPOSED", "DOWN", "COLUMN_TAPS", "ROW_TAPS", "BITS", "FLAT_LOG2")
SWITCHES += ("FLAT", "NOISE", "LUT", "NODES", "FLAT_ROWS", "FLAT_COLUMNS")
FILTER, BORDER, SEPARABLE, TRANSPOSED, DOWN, COLUMN_TAPS, ROW_TAPS, BITS, FLAT_LOG2, FLAT, NOISE = range(11)
LUT, NODES, FLAT_ROWS, FLAT_COLUMNS = range(11, len(SWITCHES))

#: Work of a batch: any site's map mixes rows and columns; any site has a flat field, noise or a lookup table.
WARPED, EXTRAS = 1, 2

_SHARP = np.array([256], np.int32)
_COPIED = {
    name: replace(p, axes=("B", *p.axes), dtype=p.table) for name, p in PARAMETERS.items() if p.table is not None
}
_COMPUTED = {
    "switches": Parameter(("B", len(SWITCHES)), np.int32, "What a site's kernel does; columns are ``SWITCHES``."),
    "spans": Parameter(
        ("B", 4), np.int32, "First and end of the columns and of the rows (if transposed, exchanged) inside the source."
    ),
    "column_first": Parameter(("B", "N"), np.int32, "First source column of :func:`rxrx_kernels.augment.warp.taps`."),
    "column_weights": Parameter(("B", "N", "T"), np.int16, "Their weights."),
    "row_first": Parameter(("B", "N"), np.int32, "First source row of :func:`rxrx_kernels.augment.warp.taps`."),
    "row_weights": Parameter(("B", "N", "T"), np.int16, "Their weights."),
    "x_first": Parameter(("B", "W"), np.int32, "Control points of :func:`rxrx_kernels.augment.warp.basis` by column."),
    "x_basis": Parameter(("B", "W", 4), np.int32, "Their weights."),
    "y_first": Parameter(("B", "H"), np.int32, "Control points of :func:`rxrx_kernels.augment.warp.basis` by row."),
    "y_basis": Parameter(("B", "H", 4), np.int32, "Their weights."),
    "blur_sizes": Parameter(("B",), np.int32, "Weights in each row of ``blur``."),
    "normal": Parameter((len(NORMAL),), np.float32, "Quantiles of the normal distribution."),
}
#: The specification of :class:`Tables`: what is computed here, and what is copied from the sites' records.
TABLES: dict[str, Parameter] = {**_COMPUTED, **_COPIED}
_Fields: Any = namedtuple("_Fields", TABLES)


class Tables(_Fields):
    """B sites of C channels. Tables that no site of a batch has are one entry long; ``switches`` say who uses which.

    Contiguous arrays, of NumPy or of a device. Column taps go by output column, or by output row if the site's map is
    TRANSPOSED; row taps likewise. A single weight of the blur means that no site has any.
    """

    __slots__ = ()

    @staticmethod
    def kinds() -> list[tuple]:
        """Return Numba's scalar type and the dimensions of each field."""
        return [(from_dtype(np.dtype(p.dtype)), len(p.axes)) for p in TABLES.values()]

    def work(self) -> int:
        """Return what the sites of a batch ask for beyond the leanest kernel, of :data:`WARPED` and :data:`EXTRAS`.

        For tables on the host.
        """
        switches = self.switches
        extras = switches[:, [FLAT, NOISE, LUT]].any() or self.erase[:, 1].any()
        return (0 if switches[:, SEPARABLE].all() else WARPED) | (EXTRAS if extras else 0)

    def packed(self) -> tuple[np.ndarray, list[tuple[str, int, tuple[int, ...], np.dtype]]]:
        """Return all fields in one block, so that one copy takes them to a device.

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
    """Make the arrays for :func:`rxrx_kernels.cuda.augment.augment_batch`.

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
        What :func:`rxrx_kernels.augment.parameters.check` refuses.
    """
    channels = len(augmentations[0].order) if augmentations else 0
    for a in augmentations:
        check(a, source, (channels, *goal), bits)
    batch, length = len(augmentations), max(goal)
    taps = [_taps(a, source[1:], goal) for a in augmentations]
    blurred = any(a.blur.size > 1 for a in augmentations)
    # Where any site is blurred, one weight leaves the others as they are.
    records = [a._replace(blur=(a.blur if a.blur.size else _SHARP) if blurred else a.blur[:0]) for a in augmentations]
    deformed = any(a.displacement.size for a in augmentations)
    lengths = {"B": batch, "N": length, "H": goal[0] if deformed else 1, "W": goal[1] if deformed else 1}
    widest = [max([t[axis][1].shape[1] for t in taps if t] + [1]) for axis in (0, 1)]
    fields = {}
    for name, parameter in _COMPUTED.items():
        lengths["T"] = widest[name == "row_weights"]
        shape = [lengths[axis] if isinstance(axis, str) else axis for axis in parameter.axes]
        fields[name] = np.zeros(shape, parameter.dtype)
    for name, parameter in _COPIED.items():
        fields[name] = _stacked([getattr(a, name) for a in records], parameter)
    t = Tables(**fields)
    t.normal[:] = NORMAL
    for b, a in enumerate(records):
        switches = t.switches[b]
        switches[[FILTER, BORDER]] = a.sampling
        switches[[SEPARABLE, TRANSPOSED]] = taps[b] is not None, warp.is_transposed(a.matrix)
        switches[[FLAT, NOISE, LUT]] = len(a.flat) > 0, len(a.noise) > 0, len(a.lut) > 0
        switches[[FLAT_LOG2, NODES, BITS]] = a.flat_log2, a.displacement.shape[2], warp.samples(a.matrix, a.sampling[0])
        switches[DOWN] = abs(a.matrix[1]) > abs(a.matrix[0])
        t.blur_sizes[b] = a.blur.size
        if taps[b]:
            (first, weights, span), (rows, row_weights, row_span) = taps[b]
            switches[[COLUMN_TAPS, ROW_TAPS]] = weights.shape[1], row_weights.shape[1]
            t.spans[b] = *span, *row_span
            t.column_first[b, : len(first)], t.row_first[b, : len(rows)] = first, rows
            t.column_weights[b, : len(first), : weights.shape[1]] = weights
            t.row_weights[b, : len(rows), : row_weights.shape[1]] = row_weights
        if len(a.flat):
            switches[[FLAT_ROWS, FLAT_COLUMNS]] = a.flat.shape[1:]
        if a.displacement.size:
            t.x_first[b], t.x_basis[b] = warp.basis(goal[1], a.displacement.shape[2])
            t.y_first[b], t.y_basis[b] = warp.basis(goal[0], a.displacement.shape[2])
    return t


def _stacked(arrays: list[np.ndarray], parameter: Parameter) -> np.ndarray:
    """Stack one parameter of all sites, padded with zeros to the longest; one entry where no site has it."""
    dimensions = len(parameter.axes)
    if parameter.optional and not any(array.size for array in arrays):
        return np.zeros((1,) * dimensions, parameter.dtype)
    longest = np.max([array.shape for array in arrays], axis=0) if arrays else np.zeros(dimensions - 1, int)
    stacked = np.zeros((len(arrays), *longest), parameter.dtype)
    for row, array in zip(stacked, arrays):
        row[tuple(map(slice, array.shape))] = array
    return stacked


def _taps(a: Augmentation, shape: tuple[int, int], goal: tuple[int, int]) -> list | None:
    """First pixels, weights and span of the source's columns and of its rows; None for maps that mix the two."""
    m, kind = a.matrix, a.sampling[0]
    if not warp.is_separable(m, a.displacement.shape[2]):
        return None
    transposed = warp.is_transposed(m)
    counts = goal if transposed else goal[::-1]
    axes = zip((m[2], m[5]), warp.source_steps(m, transposed), counts, shape[::-1])
    return [
        (*warp.taps(start, step, count, kind), warp.span(start, step, count, size, kind))
        for start, step, count, size in axes
    ]
