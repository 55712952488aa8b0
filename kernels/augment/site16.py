"""Every augmentation of a site of 16-bit pixels in one pass on the CPU: what :mod:`rxrx_kernels.augment.site` does for 8.

The same geometry, the same order and the same arithmetic a pixel, with room for 16 bits more or less of it: between
rows, 16 bits of a pixel and 8 of a weight are summed exactly in int32; within a row, another 8 bits, exactly in uint32;
the sum is rounded to float32 once. So results depend on no device, and on no order of the sums. Noise and raw output
end at 65,535, and tables have 4,096 entries (:func:`rxrx_kernels.augment.photometric.make_toned16`).
"""

from __future__ import annotations

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic
from rxrx_kernels.augment import photometric as tone
from rxrx_kernels.augment import resample as warp_lines
from rxrx_kernels.augment import site as augment
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.blur import blur_plane16
from rxrx_kernels.augment.site import Augmentation
from rxrx_kernels.augment.steps import (
    erase_part,
    fma,
    lit_row,
    make_add_noise,
    make_finish,
    make_prepare,
    places,
    scatter,
)
from rxrx_kernels.orient import rows as fused_lines

__all__ = ["KINDS16", "augment_site16", "check16"]

#: Kinds of output, by their number in compiled code.
KINDS16 = tuple(warp_lines.SIZES16)

_inline = njit(inline="always")
_reach = _inline(warp.reach)
_sample = njit(nogil=True, cache=True)(warp.make_sample(_reach, np.uint32))
_samples, _place, _outside = _inline(warp.samples), _inline(warp.place), _inline(warp.outside)
_shaded, _toned = _inline(tone.make_shaded(fma)), _inline(tone.make_toned16(fma))
_u = np.uint64
_TILE = 32


@intrinsic
def _shorts(typing, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint16)(types.uint64), generate


@njit(nogil=True, cache=True)
def _transposed(plane, out):
    """``out[x, y] = plane[y, x]``, in squares, so that lines of the cache are used whole."""
    rows, columns = plane.shape
    for y0 in range(0, rows, _TILE):
        for x0 in range(0, columns, _TILE):
            for x in range(x0, min(x0 + _TILE, columns)):
                for y in range(y0, min(y0 + _TILE, rows)):
                    out[x, y] = plane[y, x]


@njit(nogil=True, cache=True)
def _mix_rows(plane, y, first, weights, border, line, zero, right):
    """Taps along the columns into ``line``, whose pixel ``zero`` is the row's first; then its ends beyond the image."""
    rows, columns = plane.shape
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


# How the taps of a line lie, by how much has to be done.
_STRAIGHT, _PICKED, _MIXED = 0, 1, 2


@njit(nogil=True, cache=True)
def _form(first, weights):
    """STRAIGHT: pixels as they follow each other; PICKED: single pixels; MIXED: sums of pixels."""
    form = _STRAIGHT
    for x in range(first.size):
        if weights[x, 0] != 256:
            return _MIXED
        if first[x] != first[0] + x:
            form = _PICKED
    return form


@njit(nogil=True, cache=True)
def _mix_columns(line, zero, first, weights, form, values):
    """Grey values, float32, of an output row from a mixed one."""
    if form == _STRAIGHT:
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


@njit(nogil=True, cache=True)
def _sampled(plane, c, r, inside, border, total, values):
    """Grey values, float32, of an output row: the mean of its samples."""
    count, width = c.shape
    total[:] = 0
    for i in range(count):
        for g in range(inside.shape[1]):
            for x in range(g * warp_lines.GROUP, min((g + 1) * warp_lines.GROUP, width)):
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


@njit(nogil=True, cache=True)
def _shade(values, flat, k, nodes, parts):
    """Multiply a row of grey values by the illumination's factors."""
    for x in range(nodes.shape[1]):
        i, j = nodes[0, x], nodes[1, x]
        upper = _shaded(flat[k, j, i], flat[k, j, i + 1], parts[0, x])
        lower = _shaded(flat[k, j + 1, i], flat[k, j + 1, i + 1], parts[0, x])
        values[x] *= _shaded(upper, lower, parts[1, x])


@njit(nogil=True, cache=True)
def _tone(values, width, table, k, shift):
    for x in range(width):
        values[x] = _toned(values[x], table, k, shift)


_prepare, _add_noise = make_prepare(blur_plane16, _transposed), make_add_noise(65535)
_finish, _finish_near = make_finish(warp_lines.SIZES16, True), make_finish(warp_lines.SIZES16, False)
_BYTES = tuple(warp_lines.SIZES16.values())


@njit(nogil=True, cache=True)
def _augment(
    stack, shape, out, out_shape, out_strides, kind, direct, a, x_first_basis, x_basis, y_first_basis, y_basis
):
    """What :func:`augment_site16` says; ``stack`` and ``out`` are addresses, ``kind`` a place in :data:`KINDS16`."""
    m, sampling, order, fill, center, scale = a.matrix, a.sampling, a.order, a.fill, a.center, a.scale
    table, box, erase, noise, key, flat, bend = a.table, a.box, a.erase, a.noise, a.key, a.flat, a.bend
    filtering, border = sampling[0], sampling[1]
    channels, height, width = out_shape
    raw = kind == 0
    separable = bend.shape[2] == 0 and ((m[1] == 0 and m[3] == 0) or (m[0] == 0 and m[4] == 0))
    turned = separable and m[0] == 0 and m[4] == 0
    # Output columns run along the lines of the plane that is read, which for turned maps is the transposed one.
    rows, columns = (shape[1], shape[0]) if turned else (shape[0], shape[1])
    if turned:
        x_first, x_weights = warp.taps(m[5], m[3], width, filtering)
        y_first, y_weights = warp.taps(m[2], m[1], height, filtering)
    else:
        x_first, x_weights = warp.taps(m[2], m[0], width, filtering)
        y_first, y_weights = warp.taps(m[5], m[4], height, filtering)
    # Columns and rows of the output that lie outside of the source.
    lost, lost_rows = np.zeros(width, np.bool_), np.zeros(height, np.bool_)
    left = right = 0
    if separable:
        for x in range(width):
            c, r = _place(m, np.int64(x), np.int64(0), 0, 0, 0, filtering)
            lost[x] = _outside(r if turned else c, columns)
            if border != warp.REFLECT:
                # Beyond a whole row of taps nothing changes any more.
                x_first[x] = min(max(x_first[x], -x_weights.shape[1]), columns)
            left = max(left, -np.int64(x_first[x]))
            right = max(right, np.int64(x_first[x]) + x_weights.shape[1] - columns)
        for y in range(height):
            c, r = _place(m, np.int64(0), np.int64(y), 0, 0, 0, filtering)
            lost_rows[y] = _outside(c if turned else r, rows)
    form = _form(x_first, x_weights)
    within = form == _STRAIGHT and x_first[0] >= 0 and x_first[0] + width <= columns
    some_lost = not separable or lost.any()
    line = np.zeros(left + columns + right, np.int32)
    steps = _u((width + warp_lines.GROUP - 1) // warp_lines.GROUP)
    values, finished = np.zeros(steps * warp_lines.GROUP, np.float32), np.zeros(steps * warp_lines.GROUP, np.float32)
    origin, buffer = _u(values.ctypes.data), _u(finished.ctypes.data)
    plane_pitch, pitch, pixel_pitch = _u(out_strides[0]), _u(out_strides[1]), _u(out_strides[2])

    # Contiguous planes are made one by one. Interleaved channels go row by row, so that a line of memory is
    # completed while it is in the cache; so do maps whose positions take long to find and serve all channels.
    by_planes = direct and separable and flat.shape[0] == 0
    outer, inner = (channels, 1) if by_planes else (height, channels)
    slots = 1 if by_planes else channels
    prepared = np.empty((slots, rows, columns) if turned else (slots, 0, 0), np.uint16)
    blurred = np.empty((slots, shape[0], shape[1]) if a.blur.size > 1 else (slots, 0, 0), np.uint16)
    planes = np.zeros(channels, np.uint64)
    lit = width if flat.shape[0] else 0
    nodes, parts = np.empty((2, lit), np.int32), np.empty((2, lit), np.float32)
    bits = _samples(m, filtering)
    count = 0 if separable else 1 << (2 * bits)
    c, r = np.empty((count, width), np.int32), np.empty((count, width), np.int32)
    total, inside = np.empty(width, np.int64), np.empty((count, np.int64(steps)), np.bool_)
    for o in range(outer):
        if not separable:
            places(
                o, m, bits, filtering, shape, bend, x_first_basis, x_basis, y_first_basis, y_basis, c, r, inside, lost
            )
        if flat.shape[0]:
            lit_row(o, m, flat.shape[1:], a.shift, nodes, parts)
        for i in range(inner):
            k, y0, y1 = (o, 0, height) if by_planes else (i, o, o + 1)
            if y0 == 0 and order[k] >= 0:
                slot = 0 if by_planes else k
                source = carray(_shorts(stack + _u(2 * order[k] * shape[0] * shape[1])), shape)
                planes[k] = _prepare(source, a.blur, blurred[slot], turned, prepared[slot])
            for y in range(y0, y1):
                m_k, s_k = center[k], scale[k]
                start = np.uint32((k * height + y) * width)
                if order[k] < 0:
                    values[:] = 0
                    m_k, s_k = np.float32(0), np.float32(1)
                else:
                    plane = carray(_shorts(planes[k]), (rows, columns))
                    if separable and within and y_weights[y, 0] == 256:
                        _take_row(plane, _reach(np.int64(y_first[y]), rows, border), x_first[0], width, values)
                    elif separable:
                        _mix_rows(plane, y, y_first, y_weights, border, line, left, right)
                        _mix_columns(line, left, x_first, x_weights, form, values)
                    else:
                        _sampled(plane, c, r, inside, border, total, values)
                    if flat.shape[0]:
                        _shade(values, flat, k, nodes, parts)
                    if noise.shape[0]:
                        _add_noise(values, width, start, noise, k, key)
                    if border == warp.CONSTANT:
                        if lost_rows[y]:
                            values[:] = fill[k]
                        if some_lost:
                            for x in range(width):
                                values[x] = fill[k] if lost[x] else values[x]
                    if not raw and table.shape[0]:
                        _tone(values, width, table, k, a.steps[k])
                        m_k, s_k = np.float32(0), np.float32(1)
                    if box[0] <= y < box[1] and erase[0] == 0 and erase[1] == 0 and not raw:
                        # What the normalisation makes zero of.
                        values[box[2] : box[3]] = m_k
                    elif box[0] <= y < box[1]:
                        if not raw:
                            for x in range(width):
                                values[x] = (values[x] - m_k) * s_k
                            m_k, s_k = np.float32(0), np.float32(1)
                        erase_part(values, box[2], box[3], start, erase, key)
                if raw:
                    for x in range(width):
                        values[x] = min(max(values[x], np.float32(0)), np.float32(65535))
                goal = out + _u(k) * plane_pitch + _u(y) * pitch
                if direct:
                    _finish(kind, origin, goal, steps, m_k, s_k)
                else:
                    _finish_near(kind, origin, buffer, steps, m_k, s_k)
                    scatter(_BYTES[kind], buffer, goal, _u(width), pixel_pitch)
    if direct:
        fused_lines.fence()
    # Arrays whose addresses alone are used above would be freed before, if nothing used them here.
    return values.size + finished.size + prepared.size + blurred.size


def check16(a: Augmentation, source: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """As :func:`rxrx_kernels.augment.site.check`, with the tables of 16-bit pixels."""
    channels = shape[0]
    if len(a.table) and (a.table.shape != (channels, tone.TABLE16) or a.table.dtype != np.float32):
        raise ValueError(f"table must be ({channels}, {tone.TABLE16}) float32, got {a.table.dtype}{a.table.shape}")
    if len(a.table) and not (len(a.steps) and 0 <= a.steps.min() <= a.steps.max() <= 4):
        raise ValueError(f"steps must be {channels} numbers from 0 to 4, got {a.steps}")
    augment.check(a._replace(table=np.zeros((0, tone.TABLE), np.float32)), source, shape)


_KINDS = {np.dtype(np.float32): "float32", np.dtype(np.float16): "float16", np.dtype(np.uint16): "bfloat16"}
_NO_BASIS = np.zeros(0, np.int32), np.zeros((0, 4), np.int32)


def augment_site16(stack, out, augmentation: Augmentation, raw: bool = False) -> None:
    """Augment one site of 16-bit pixels. Releases the GIL.

    Parameters
    ----------
    stack : (C', H, W) uint16
        The decoded channels; contiguous, or a copy is made.
    out : (C, H', W') float32, float16 or uint16
        Written in full, with any strides; fastest where rows are contiguous, aligned to 16 pixels and a multiple of 16
        pixels long. uint16 stands for the bits of bfloat16, unless ``raw``.
    augmentation : Augmentation
        As for 8-bit pixels, but ``table`` is (C, 4096) or (0, ...), and ``steps`` (C,), 0 to 4, says how wide its bins
        are, see :func:`rxrx_kernels.augment.photometric.make_toned16`.
    raw : bool
        ``out`` is uint16 and gets grey values, rounded and not normalised.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit: compiled code does not check bounds, so this is checked first.
    """
    a = augmentation
    if stack.ndim != 3 or out.ndim != 3 or stack.dtype != np.uint16:
        raise ValueError(
            f"stack must be (C, H, W) uint16, got {stack.dtype}{stack.shape}, and out (C, H, W), got {out.shape}"
        )
    kind = "uint16" if raw and out.dtype == np.uint16 else None if raw else _KINDS.get(out.dtype)
    if kind is None:
        raise ValueError(f"out must be float32, float16 or uint16 (raw: uint16), got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable")
    check16(a, stack.shape, out.shape)
    height, width = out.shape[1:]
    stack = np.ascontiguousarray(stack)
    nodes = a.bend.shape[2]
    x_basis, y_basis = (warp.basis(n, nodes) if nodes else _NO_BASIS for n in (width, height))
    _augment(
        _u(stack.ctypes.data),
        stack.shape[1:],
        _u(out.ctypes.data),
        out.shape,
        out.strides,
        KINDS16.index(kind),
        augment.is_direct(out, warp_lines.SIZES16[kind]),
        augment.writeable(a._replace(table=np.ascontiguousarray(a.table))),
        *x_basis,
        *y_basis,
    )
