"""Rows of 8-bit pixels on the CPU: what :mod:`rxrx_kernels.augment.depth` names, for a source of uint8.

Sums fit int32: a pixel has 8 bits, the weights between rows 8, and those within a row another 8. With AVX-512 sixteen
output pixels are made at a time (:mod:`rxrx_kernels.augment.resample`, :mod:`rxrx_kernels.augment.gather`). Elsewhere
plain loops give the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from rxrx_kernels.augment import gather, photometric, resample, warp
from rxrx_kernels.augment.resample import GROUP, load_int16, load_int32, store_int16
from rxrx_kernels.augment.rows import SPARE, fma
from rxrx_kernels.orient.rows import turn_block

__all__ = ["look_up_row", "resample_row", "row_form", "row_memory", "sample_row", "transpose"]

_inline = njit(inline="always")
_reach = _inline(warp.reach)
_sample = njit(nogil=True, cache=True)(warp.make_sample(_reach))
_look_up = _inline(photometric.make_look_up8(fma))
_u = np.uint64

# Forms of a row's taps: any, and such that 16 neighbouring output pixels take theirs from one SIMD vector.
_ANY, _GROUPED = 0, 1


@njit(inline="always")
def _nothing(*arguments):
    """Stand in for instructions that this processor does not have; never called."""


_groups = resample.groups if resample.VECTORS else _nothing
_blend_group = gather.blend_group if gather.VECTORS else _nothing
_look_up_group = gather.look_up_group if gather.VECTORS else _nothing


def transpose(plane, out):
    """See :func:`rxrx_kernels.augment.depth.transpose`."""
    rows, columns = plane.shape
    whole_rows, whole_columns = rows - rows % 8, columns - columns % 8
    source, pitch = _u(plane.ctypes.data), _u(plane.strides[0])
    target, target_pitch = _u(out.ctypes.data), _u(out.strides[0])
    # A strip of 64 columns: one cache line of each source row.
    for x0 in range(_u(0), _u(whole_columns), _u(64)):
        for y in range(_u(0), _u(whole_rows), _u(8)):
            for x in range(x0, min(x0 + _u(64), _u(whole_columns)), _u(8)):
                turn_block(source + y * pitch + x, pitch, target + x * target_pitch + y, target_pitch)
    for x in range(columns):
        for y in range(whole_rows if x < whole_columns else 0, rows):
            out[x, y] = plane[y, x]


def row_memory(pixel, columns, width):
    """See :func:`rxrx_kernels.augment.depth.row_memory`."""
    return np.zeros(columns + 2 * SPARE, np.int16), np.empty(width, np.int32)


def row_form(pixel, first, weights, columns, vectors):
    """See :func:`rxrx_kernels.augment.depth.row_form`."""
    fits, bases, lanes, pairs = resample.grouped(first, weights)
    return _GROUPED if fits and vectors else _ANY, bases, lanes, pairs


@njit(inline="always")
def _pad(line, columns, start, stop, border):
    """Pixels ``start`` to ``stop`` of a mixed row, outside of the image; ``line`` is the address of its first pixel."""
    for i in range(start, stop):
        at = _reach(i, columns, border)
        store_int16(line + _u(2 * i), load_int16(line + _u(2 * at)))


@njit(inline="always")
def _mix(plane, rows, columns, pitch, line, first, weights, taps, border):
    """One row of the output between rows of the source: taps along the column. All but counts are addresses."""
    for j in range(0, taps, 2):
        wa, wb = load_int16(weights + _u(2 * j)), load_int16(weights + _u(2 * j + 2))
        a, b = _reach(first + j, rows, border), _reach(first + j + 1, rows, border)
        resample.mix_rows(plane + _u(a) * pitch, plane + _u(b) * pitch, wa, wb, line, _u(columns), j > 0)


def resample_row(
    pixel, plane, shape, pitch, y, y_first, y_weights, border, line, left, right, form, x_first, x_weights, bases,
    lanes, pairs, values,
):  # fmt: skip
    """See :func:`rxrx_kernels.augment.depth.resample_row`."""
    rows, columns = shape
    taps = y_weights.shape[1]
    mixed = _u(line.ctypes.data + 2 * (left + SPARE))
    weights = _u(y_weights.ctypes.data + 2 * y * taps)
    _mix(plane, rows, columns, _u(pitch), mixed, y_first[y], weights, taps, border)
    _pad(mixed, columns, -left, 0, border)
    _pad(mixed, columns, columns, columns + right, border)
    if form == _GROUPED:
        count, halves = _u(bases.shape[0]), _u(bases.shape[1])
        tables = _u(bases.ctypes.data), _u(lanes.ctypes.data), _u(pairs.ctypes.data)
        _groups(mixed, tables[0], tables[1], tables[2], count, halves, _u(values.ctypes.data))
    else:
        resample.plain_row(mixed, x_first, x_weights, values)


def sample_row(pixel, plane, c, r, inside, lost, border, total, values, vectors):
    """See :func:`rxrx_kernels.augment.depth.sample_row`."""
    count, width = c.shape
    pitch, origin = np.int64(plane.shape[1]), _u(plane.ctypes.data)
    total[:] = 0
    sums = _u(total.ctypes.data)
    for i in range(count):
        columns, rows = _u(c.ctypes.data + i * c.strides[0]), _u(r.ctypes.data + i * r.strides[0])
        for g in range(inside.shape[1]):
            x0 = g * GROUP
            if inside[i, g] and vectors:
                at = _u(4 * x0)
                _blend_group(origin, _u(pitch), columns + at, rows + at, sums + at)
            elif inside[i, g]:
                for j in range(GROUP):
                    x = x0 + j
                    wx, wy = c[i, x] & np.int32(255), r[i, x] & np.int32(255)
                    at = origin + _u(np.int64(r[i, x] >> 8) * pitch + np.int64(c[i, x] >> 8))
                    top, low = load_int32(at), load_int32(at + _u(pitch))
                    mixed_top = np.int32((top & 255) * (256 - wx) + ((top >> 8) & 255) * wx)
                    mixed_low = np.int32((low & 255) * (256 - wx) + ((low >> 8) & 255) * wx)
                    total[x] += np.int32(mixed_top * (256 - wy) + mixed_low * wy)
            else:
                for x in range(x0, min(x0 + GROUP, width)):
                    if border == warp.CONSTANT and lost[x]:
                        continue
                    total[x] += np.int32(_sample(plane, np.int64(c[i, x]), np.int64(r[i, x]), border))
    # Up to 16 values of 24 bits are summed exactly, and rounded once.
    part = np.float32(2.0**-16 / count)
    for x in range(width):
        values[x] = np.float32(total[x]) * part


def look_up_row(pixel, values, width, table, k, bin_log2, vectors):
    """See :func:`rxrx_kernels.augment.depth.look_up_row`."""
    if vectors:
        start, entries = _u(values.ctypes.data), _u(table.ctypes.data) + _u(k * table.strides[0])
        for g in range(_u(values.size // GROUP)):
            _look_up_group(start + _u(64) * g, entries)
    else:
        for x in range(width):
            values[x] = _look_up(values[x], table, k, bin_log2)
