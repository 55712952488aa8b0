"""One output pixel of an augmented batch on a GPU.

The arithmetic is that of :mod:`rxrx_kernels.augment.warp` and :mod:`rxrx_kernels.augment.photometric`.

Device functions for pixels of 8 or 16 bits, made with or without what few batches need (:data:`WARPED`, :data:`EXTRAS`
of :mod:`rxrx_kernels.augment.tables`): a kernel has as many registers as its longest path, and fewer of them let more
warps wait for memory at once. What is left out leaves no code; what is kept is the same arithmetic.
"""

from __future__ import annotations

import numpy as np
from numba import config
from rxrx_kernels.augment import photometric, warp
from rxrx_kernels.augment import tables as at
from rxrx_kernels.augment.noise import scramble
from rxrx_kernels.cuda.arrays import inline

__all__ = ["bfloat16_bits", "make_finished", "make_grey", "reach"]


def _exact_fma(a, b, c):
    """Emulate a fused multiply-add where Python does the arithmetic.

    The product is exact in float64, and the sum rounds to odd.
    """
    product, c = np.float64(a) * np.float64(b), np.float64(c)
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)
    if error and not int(np.array(total).view(np.int64)) & 1:
        total = np.nextafter(total, np.inf if error > 0 else -np.inf)
    return np.float32(total)


if config.ENABLE_CUDASIM:
    _fma, _times, _bits = (
        _exact_fma,
        lambda a, b: np.float32(a) * np.float32(b),
        lambda a: np.float32(a).view(np.uint32),
    )
else:
    from numba.cuda import libdevice

    _fma = inline(lambda a, b, c: libdevice.fmaf_rn(a, b, c))
    # A plain product that is subtracted from later would become a fused multiply-add.
    _times = inline(lambda a, b: libdevice.fmul_rn(a, b))
    _bits = inline(lambda a: np.uint32(libdevice.float_as_int(a)))

reach, _place, _outside = inline(warp.reach), inline(warp.place), inline(warp.outside)
_node, _scramble = inline(photometric.node), inline(scramble)
_interpolate = inline(photometric.make_interpolate(_fma))


@inline
def bfloat16_bits(value):
    """Return the bits of the nearest bfloat16, ties to even."""
    bits = _bits(value)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


def make_grey(bits: int, warped: bool):
    """``grey(plane, b, y, x, t)``: the grey value of an output pixel of a plane of 8 or 16 bits.

    It is below 0 where the pixel lies outside of the source and the border is a constant. Without ``warped``, every
    map of the batch is separable.
    """
    # What holds a sum of 16 bits of weights and a pixel, and one of up to 16 of those.
    wide, wider = (np.int32, np.int32) if bits == 8 else (np.uint32, np.int64)
    sample = inline(warp.make_sample(reach, wide))

    @inline
    def mixed(plane, column, row, c_weights, r_weights, columns_taps, rows_taps, border):
        """Return a pixel of a separable map, in 1/65536 of a grey value."""
        rows, columns = plane.shape
        total = wide(0)
        for i in range(np.uint32(rows_taps)):
            weight = r_weights[i]
            # What copies pixels has one weight that is not 0.
            if weight != 0:
                r = np.uint32(reach(row + i, rows, border))
                line = np.int32(0)
                for j in range(np.uint32(columns_taps)):
                    if c_weights[j] != 0:
                        pixel = np.int32(plane[r, np.uint32(reach(column + j, columns, border))])
                        line = np.int32(line + pixel * np.int32(c_weights[j]))
                total = wide(total + wide(line) * wide(weight))
        return total

    @inline
    def separable(plane, b, y, x, t):
        switches, border = t.switches[b], t.switches[b, at.BORDER]
        u, v = (y, x) if switches[at.TRANSPOSED] else (x, y)
        span = t.spans[b]
        if border == warp.CONSTANT and (u < span[0] or u >= span[1] or v < span[2] or v >= span[3]):
            return np.float32(-1)
        column, row = t.column_first[b, u], t.row_first[b, v]
        weights = t.column_weights[b, u], t.row_weights[b, v]
        total = mixed(
            plane, column, row, weights[0], weights[1], switches[at.COLUMN_TAPS], switches[at.ROW_TAPS], border
        )  # fmt: skip
        return np.float32(total) * np.float32(2.0**-16)

    if not warped:
        return separable

    @inline
    def grey(plane, b, y, x, t):
        rows, columns = plane.shape
        switches, m = t.switches[b], t.matrix[b]
        border, kind = switches[at.BORDER], switches[at.FILTER]
        if switches[at.SEPARABLE]:
            return separable(plane, b, y, x, t)
        dx = dy = np.int64(0)
        if switches[at.NODES]:
            dx = dy = np.int64(1 << 19)
            for j in range(4):
                for i in range(4):
                    weight = t.x_basis[b, x, i] * t.y_basis[b, y, j]
                    p, q = t.y_first[b, y] + j, t.x_first[b, x] + i
                    dx += np.int64(t.displacement[b, 0, p, q]) * weight
                    dy += np.int64(t.displacement[b, 1, p, q]) * weight
            dx, dy = dx >> 20, dy >> 20
        samples = switches[at.BITS]
        side = 1 << samples
        if border == warp.CONSTANT:
            c, r = _place(m, np.int64(x), np.int64(y), samples, 0, 0, kind)
            c1, r1 = _place(m, np.int64(x), np.int64(y), samples, side - 1, side - 1, kind)
            if _outside((c + c1 + 2 * dx + 1) >> 1, columns) or _outside((r + r1 + 2 * dy + 1) >> 1, rows):
                return np.float32(-1)
        total = wider(0)
        for j in range(side):
            for i in range(side):
                c, r = _place(m, np.int64(x), np.int64(y), samples, i, j, kind)
                c, r = c + dx, r + dy
                if kind == warp.NEAREST:
                    c, r = (c + 128) & -256, (r + 128) & -256
                total = wider(total + wider(sample(plane, c, r, border)))
        return np.float32(total) * (np.float32(2.0**-16) / np.float32(side * side))

    return grey


def make_finished(bits: int, extras: bool, raw: bool):
    """``finished(value, b, k, y, x, number, t)``: what becomes of a grey value, which is below 0 outside of the source.

    Light and noise, which is drawn for ``number``, the pixel's place in the output; the constant that lies outside;
    table or normalisation, unless ``raw``; the eraser. Without ``extras``, no site of the batch has light, noise, a
    table, or noise in what is erased.
    """
    noisy, largest = inline(photometric.make_noisy(_fma)), np.float32((1 << bits) - 1)
    look_up8, look_up16 = inline(photometric.make_look_up8(_fma)), inline(photometric.make_look_up16(_fma))

    if bits == 8:
        look_up = inline(lambda value, t, b, k: look_up8(value, t.lut[b], k, 0))
    else:
        look_up = inline(lambda value, t, b, k: look_up16(value, t.lut[b], k, t.lut_log2[b, k]))

    @inline
    def captured(value, b, k, y, x, number, t):
        switches = t.switches[b]
        if switches[at.FLAT]:
            c, r = _place(t.matrix[b], np.int64(x), np.int64(y), 0, 0, 0, warp.BILINEAR)
            i, u = _node(c, switches[at.FLAT_COLUMNS], switches[at.FLAT_LOG2])
            j, v = _node(r, switches[at.FLAT_ROWS], switches[at.FLAT_LOG2])
            upper = _interpolate(t.flat[b, k, j, i], t.flat[b, k, j, i + 1], u)
            lower = _interpolate(t.flat[b, k, j + 1, i], t.flat[b, k, j + 1, i + 1], u)
            value = _times(value, _interpolate(upper, lower, v))
        if switches[at.NOISE]:
            normal = t.normal[_scramble(number, t.key[b, 0], t.key[b, 1])]
            value = noisy(value, normal, t.noise[b, k, 0], t.noise[b, k, 1], largest)
        return value

    @inline
    def finished(value, b, k, y, x, number, t):
        inside = value >= 0
        if extras and inside:
            value = captured(value, b, k, y, x, number, t)
        if not inside:
            value = t.fill[b, k]
        box, m, s = t.box[b], t.center[b, k], t.scale[b, k]
        mean, spread = t.erase[b, 0], t.erase[b, 1]
        erased = box[0] <= y < box[1] and box[2] <= x < box[3]
        if not raw:
            if extras and t.switches[b, at.LUT]:
                value = look_up(value, t, b, k)
                m, s = np.float32(0), np.float32(1)
            if erased and mean == 0 and spread == 0:
                # What the normalisation makes zero of.
                value = m
            value = (value - m) * s
        if erased:
            if extras and spread != 0:
                other = np.uint32(t.key[b, 1] ^ np.uint32(0x5BD1E995))
                value = _fma(t.normal[_scramble(number, t.key[b, 0], other)], spread, mean)
            elif mean != 0 or raw:
                value = mean
        return value

    return finished
