"""Rows of 16-bit pixels on the CPU: what :mod:`rxrx_kernels.augment.depth` names, for a source of uint16.

Between rows, the 16 bits of a pixel and the 8 of a weight are summed exactly in int32. Within a row, another 8 bits are
summed exactly in uint32. The sum is rounded to float32 once. So results depend on no device and on no order of sums.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from rxrx_kernels.augment import photometric, warp
from rxrx_kernels.augment.resample import GROUP
from rxrx_kernels.augment.rows import SPARE, fma, pixels_at

__all__ = ["look_up_row", "resample_row", "row_form", "row_memory", "sample_row", "transpose"]

_inline = njit(inline="always")
_reach = _inline(warp.reach)
_sample = njit(nogil=True, cache=True)(warp.make_sample(_reach, np.uint32))
_look_up = _inline(photometric.make_look_up16(fma))
_u = np.uint64
_TILE = 32

# Forms of a row's taps, by how much has to be done: pixels that follow each other and lie within the image, pixels that
# follow each other, single pixels, sums of pixels.
_WITHIN, _STRAIGHT, _PICKED, _MIXED = 0, 1, 2, 3


def transpose(plane, out):
    """See :func:`rxrx_kernels.augment.depth.transpose`."""
    # In squares, so that cache lines are used whole.
    rows, columns = plane.shape
    for y0 in range(0, rows, _TILE):
        for x0 in range(0, columns, _TILE):
            for x in range(x0, min(x0 + _TILE, columns)):
                for y in range(y0, min(y0 + _TILE, rows)):
                    out[x, y] = plane[y, x]


def row_memory(pixel, columns, width):
    """See :func:`rxrx_kernels.augment.depth.row_memory`."""
    return np.zeros(columns + 2 * SPARE, np.int32), np.empty(width, np.int64)


@njit(nogil=True, cache=True)
def _form(first, weights, columns):
    form = _STRAIGHT
    for x in range(first.size):
        if weights[x, 0] != 256:
            return _MIXED
        if first[x] != first[0] + x:
            form = _PICKED
    return _WITHIN if form == _STRAIGHT and first[0] >= 0 and first[0] + first.size <= columns else form


def row_form(pixel, first, weights, columns, vectors):
    """See :func:`rxrx_kernels.augment.depth.row_form`."""
    nothing = np.zeros((0, 0, 0), np.int16)
    return _form(first, weights, columns), np.zeros((0, 0), np.int32), nothing, nothing


@njit(nogil=True, cache=True)
def _mix_rows(plane, y, columns, first, weights, border, line, zero, right):
    """Taps along the columns into ``line``, whose pixel ``zero`` is the row's first; then its ends beyond the image."""
    rows = plane.shape[0]
    mixed = line[zero : zero + columns]
    if weights[y, 0] == 256:
        source = plane[_reach(np.int64(first[y]), rows, border)]
        for x in range(columns):
            mixed[x] = np.int32(source[x]) << np.int32(8)
    else:
        mixed[:] = 0
        for j in range(weights.shape[1]):
            w = np.int32(weights[y, j])
            if w:
                source = plane[_reach(np.int64(first[y]) + j, rows, border)]
                for x in range(columns):
                    mixed[x] += np.int32(source[x]) * w
    for i in range(zero):
        line[i] = mixed[_reach(i - zero, columns, border)]
    for i in range(columns, columns + right):
        line[zero + i] = mixed[_reach(i, columns, border)]


@njit(nogil=True, cache=True)
def _mix_columns(line, zero, first, weights, form, values):
    """Grey values, float32, of an output row from a mixed one."""
    if form <= _STRAIGHT:
        source = line[zero + first[0] : zero + first[0] + first.size]
        for x in range(first.size):
            values[x] = np.float32(source[x]) * np.float32(2.0**-8)
    elif form == _PICKED:
        for x in range(first.size):
            values[x] = np.float32(line[zero + first[x]]) * np.float32(2.0**-8)
    elif weights.shape[1] == 2:
        for x in range(first.size):
            # Unsigned, because a signed place would be tested for Python's wrap-around.
            at, w = _u(zero + first[x]), np.uint32(weights[x, 1])
            total = np.uint32(np.uint32(line[at]) * np.uint32(np.uint32(256) - w))
            total = np.uint32(total + np.uint32(np.uint32(line[at + _u(1)]) * w))
            values[x] = np.float32(total) * np.float32(2.0**-16)
    else:
        for x in range(first.size):
            at, total = _u(zero + first[x]), np.uint32(0)
            for j in range(_u(weights.shape[1])):
                total = np.uint32(total + np.uint32(np.uint32(line[at + j]) * np.uint32(weights[x, j])))
            values[x] = np.float32(total) * np.float32(2.0**-16)


@njit(nogil=True, cache=True)
def _take_row(plane, row, first, width, values):
    """Grey values, float32, of pixels that follow each other, where nothing is mixed."""
    source = plane[row, first : first + width]
    for x in range(width):
        values[x] = np.float32(source[x])


def resample_row(
    pixel, plane, shape, pitch, y, y_first, y_weights, border, line, left, right, form, x_first, x_weights, bases,
    lanes, pairs, values,
):  # fmt: skip
    """See :func:`rxrx_kernels.augment.depth.resample_row`."""
    source = pixels_at(pixel, plane, (shape[0], pitch))
    if form == _WITHIN and y_weights[y, 0] == 256:
        _take_row(source, _reach(np.int64(y_first[y]), shape[0], border), x_first[0], x_first.size, values)
    else:
        _mix_rows(source, y, shape[1], y_first, y_weights, border, line, left, right)
        _mix_columns(line, left, x_first, x_weights, form, values)


def sample_row(pixel, plane, c, r, inside, lost, border, total, values, vectors):
    """See :func:`rxrx_kernels.augment.depth.sample_row`."""
    count, width = c.shape
    total[:] = 0
    for i in range(count):
        for g in range(inside.shape[1]):
            for x in range(g * GROUP, min((g + 1) * GROUP, width)):
                if inside[i, g]:
                    row, column = _u(r[i, x] >> 8), _u(c[i, x] >> 8)
                    wx, wy = np.int64(c[i, x] & 255), np.int64(r[i, x] & 255)
                    a, b = np.int64(plane[row, column]), np.int64(plane[row, column + _u(1)])
                    d, e = np.int64(plane[row + _u(1), column]), np.int64(plane[row + _u(1), column + _u(1)])
                    total[x] += (a * (256 - wx) + b * wx) * (256 - wy) + (d * (256 - wx) + e * wx) * wy
                else:
                    total[x] += _sample(plane, np.int64(c[i, x]), np.int64(r[i, x]), border)
    # A number of samples is a power of 2: the sum is rounded, and scaled exactly.
    part = np.float32(2.0**-16 / count)
    for x in range(width):
        values[x] = np.float32(total[x]) * part


def look_up_row(pixel, values, width, table, k, bin_log2, vectors):
    """See :func:`rxrx_kernels.augment.depth.look_up_row`."""
    for x in range(width):
        values[x] = _look_up(values[x], table, k, bin_log2)
