"""The compiled loop of :mod:`rxrx_kernels.augment.site`: row by row, in a line that stays in the L1 cache.

One function serves every kind of output and every operation, because compiling it takes seconds. Rows go by addresses
and whole arrays: a slice would be counted as a reference, and counting waits for all stores that are on their way past
the cache, which took more than half of the time.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic
from rxrx_kernels.augment import gather as warp_gather
from rxrx_kernels.augment import photometric as tone
from rxrx_kernels.augment import resample as warp_lines
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.blur import blur_plane
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

__all__ = ["KINDS", "augment_lines"]

#: Kinds of output, in the order of their numbers.
KINDS = tuple(warp_lines.SIZES)


@intrinsic
def _bytes(typing, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(types.uint64), generate


_inline = njit(inline="always")
_reach = _inline(warp.reach)
_sample = njit(nogil=True, cache=True)(warp.make_sample(_reach))
_samples = _inline(warp.samples)
_shaded, _toned = (_inline(make(fma)) for make in (tone.make_shaded, tone.make_toned))
_u = np.uint64


@njit(inline="always")
def _no_blend16(plane, pitch, columns, rows, total):
    """In place of instructions that this processor does not have."""


@njit(inline="always")
def _no_toned16(line, table):
    """In place of instructions that this processor does not have."""


_blend16 = warp_gather.blend16 if warp_gather.VECTORS else _no_blend16
_toned16 = warp_gather.toned16 if warp_gather.VECTORS else _no_toned16

# Lines carry this many spare pixels at either end, which a register may read and which nothing depends on. They also
# keep the lines of a transposed plane, whose length is a power of 2, from falling on the same few cache sets.
_SPARE = 64


@njit(nogil=True, cache=True)
def _transposed(plane, out):
    """``out[x, y] = plane[y, x]``; rows of ``out`` may be longer than columns of ``plane``."""
    rows, columns = plane.shape
    whole_rows, whole_columns = rows - rows % 8, columns - columns % 8
    source, pitch = _u(plane.ctypes.data), _u(plane.strides[0])
    target, target_pitch = _u(out.ctypes.data), _u(out.strides[0])
    # A strip of 64 columns: one cache line of each source row.
    for x0 in range(_u(0), _u(whole_columns), _u(64)):
        for y in range(_u(0), _u(whole_rows), _u(8)):
            for x in range(x0, min(x0 + _u(64), _u(whole_columns)), _u(8)):
                fused_lines.turn_block(source + y * pitch + x, pitch, target + x * target_pitch + y, target_pitch)
    for x in range(columns):
        for y in range(whole_rows if x < whole_columns else 0, rows):
            out[x, y] = plane[y, x]


@njit(inline="always")
def _pad(line, columns, start, stop, border):
    """Pixels ``start`` to ``stop`` of a mixed row, outside of the image; ``line`` is the address of its first pixel."""
    for i in range(start, stop):
        at = _reach(i, columns, border)
        warp_lines.put_short(line + _u(2 * i), warp_lines.get_short(line + _u(2 * at)))


@njit(inline="always")
def _mixed(plane, rows, columns, pitch, line, first, weights, width, border):
    """One row of the output between rows of the source: taps along the column. All but counts are addresses."""
    for j in range(0, width, 2):
        wa, wb = warp_lines.get_short(weights + _u(2 * j)), warp_lines.get_short(weights + _u(2 * j + 2))
        a, b = _reach(first + j, rows, border), _reach(first + j + 1, rows, border)
        warp_lines.mix_rows(plane + _u(a) * pitch, plane + _u(b) * pitch, wa, wb, line, _u(columns), j > 0)


@njit(nogil=True, cache=True)
def _shade(line, flat, k, nodes, parts, separable, turned, near, known):
    """Multiply a row of grey values by the illumination's factors: between columns first, then between rows.

    Where rows and columns keep apart, what neighbouring pixels share is made once: ``near`` (C, 2, N) float32 are the
    factors on the two rows of nodes about an output row, which serve all rows until the next node, ``known`` (C,);
    for a turned map, whose output row stays in a column of the source, those at all nodes of that column.
    """
    width = nodes.shape[1]
    if turned:
        i, part = nodes[0, 0], parts[0, 0]
        for j in range(flat.shape[1]):
            near[k, 0, j] = _shaded(flat[k, j, i], flat[k, j, i + 1], part)
        for x in range(width):
            j = nodes[1, x]
            line[x] *= _shaded(near[k, 0, j], near[k, 0, j + 1], parts[1, x])
    elif separable:
        j = nodes[1, 0]
        if known[k] != j:
            known[k] = j
            for x in range(width):
                i = nodes[0, x]
                near[k, 0, x] = _shaded(flat[k, j, i], flat[k, j, i + 1], parts[0, x])
                near[k, 1, x] = _shaded(flat[k, j + 1, i], flat[k, j + 1, i + 1], parts[0, x])
        part = parts[1, 0]
        for x in range(width):
            line[x] *= _shaded(near[k, 0, x], near[k, 1, x], part)
    else:
        for x in range(width):
            i, j = nodes[0, x], nodes[1, x]
            upper = _shaded(flat[k, j, i], flat[k, j, i + 1], parts[0, x])
            lower = _shaded(flat[k, j + 1, i], flat[k, j + 1, i + 1], parts[0, x])
            line[x] *= _shaded(upper, lower, parts[1, x])


@njit(nogil=True, cache=True)
def _tone(line, table, k, vectors):
    """Grey values through a table; ``line`` is a multiple of 16 long."""
    if vectors:
        start, entries = _u(line.ctypes.data), _u(table.ctypes.data) + _u(k * table.strides[0])
        for g in range(_u(line.size // warp_lines.GROUP)):
            _toned16(start + _u(64) * g, entries)
    else:
        for x in range(line.size):
            line[x] = _toned(line[x], table, k)


@njit(nogil=True, cache=True)
def _sampled(plane, c, r, inside, lost, border, total, line, vectors):
    """Grey values, float32, of an output row: the mean of its samples; any, where a constant takes their place."""
    count, width = c.shape
    pitch, origin = np.int64(plane.shape[1]), _u(plane.ctypes.data)
    total[:] = 0
    sums = _u(total.ctypes.data)
    for i in range(count):
        columns, rows = _u(c.ctypes.data + i * c.strides[0]), _u(r.ctypes.data + i * r.strides[0])
        for g in range(inside.shape[1]):
            x0 = g * warp_lines.GROUP
            if inside[i, g] and vectors:
                at = _u(4 * x0)
                _blend16(origin, _u(pitch), columns + at, rows + at, sums + at)
            elif inside[i, g]:
                for j in range(warp_lines.GROUP):
                    x = x0 + j
                    wx, wy = c[i, x] & np.int32(255), r[i, x] & np.int32(255)
                    at = origin + _u(np.int64(r[i, x] >> 8) * pitch + np.int64(c[i, x] >> 8))
                    top, low = warp_lines.get_int(at), warp_lines.get_int(at + _u(pitch))
                    mixed_top = np.int32((top & 255) * (256 - wx) + ((top >> 8) & 255) * wx)
                    mixed_low = np.int32((low & 255) * (256 - wx) + ((low >> 8) & 255) * wx)
                    total[x] += np.int32(mixed_top * (256 - wy) + mixed_low * wy)
            else:
                for x in range(x0, min(x0 + warp_lines.GROUP, width)):
                    if border == warp.CONSTANT and lost[x]:
                        continue
                    total[x] += np.int32(_sample(plane, np.int64(c[i, x]), np.int64(r[i, x]), border))
    # Up to 16 values of 24 bits are summed exactly, and rounded once.
    part = np.float32(2.0**-16 / count)
    for x in range(width):
        line[x] = np.float32(total[x]) * part


@njit(inline="always")
def _plane(stack, channel, shape):
    """A channel of contiguous pixels at an address."""
    return carray(_bytes(stack + _u(channel * shape[0] * shape[1])), shape)


_prepare, _add_noise = make_prepare(blur_plane, _transposed), make_add_noise(255)
_finish, _finish_near = make_finish(warp_lines.SIZES, True), make_finish(warp_lines.SIZES, False)
_BYTES = tuple(warp_lines.SIZES.values())
_RAW = KINDS.index("uint8")


@njit(inline="always")
def _no_groups(line, bases, lanes, pairs, count, halves, target):
    """In place of instructions that this processor does not have."""


_groups = warp_lines.groups if warp_lines.VECTORS else _no_groups


@njit(nogil=True, cache=True)
def augment_lines(
    stack, shape, out, out_shape, out_strides, kind, direct, vectors, a, x_first_basis, x_basis, y_first_basis, y_basis
):
    """What :func:`rxrx_kernels.augment.site.augment_site` says; ``stack`` and ``out`` are addresses. Releases the GIL.

    ``kind`` is a place in :data:`KINDS`. ``direct`` means that rows of ``out`` are contiguous, aligned to 16 pixels and
    a multiple of 16 long, so that they are written past the cache.
    """
    m, sampling, order, fill, center, scale = a.matrix, a.sampling, a.order, a.fill, a.center, a.scale
    table, box, erase, noise, key, flat, shift = a.table, a.box, a.erase, a.noise, a.key, a.flat, a.shift
    bend, blur = a.bend, a.blur
    filtering, border = sampling[0], sampling[1]
    channels, height, width = out_shape
    raw = kind == _RAW
    separable = bend.shape[2] == 0 and ((m[1] == 0 and m[3] == 0) or (m[0] == 0 and m[4] == 0))
    turned = separable and m[0] == 0 and m[4] == 0
    rows, columns = (shape[1], shape[0]) if turned else shape
    # Output columns run along the lines of the plane that is read, which for turned maps is the transposed one.
    if turned:
        x_first, x_weights = warp.taps(m[5], m[3], width, filtering)
        y_first, y_weights = warp.taps(m[2], m[1], height, filtering)
    else:
        x_first, x_weights = warp.taps(m[2], m[0], width, filtering)
        y_first, y_weights = warp.taps(m[5], m[4], height, filtering)
    # Rows and columns of the output that lie within the source.
    top, bottom, first, end = 0, height, 0, width
    if separable and border == warp.CONSTANT:
        first, end = (
            warp.span(m[5], m[3], width, columns, filtering)
            if turned
            else warp.span(m[2], m[0], width, columns, filtering)
        )
        top, bottom = (
            warp.span(m[2], m[1], height, rows, filtering) if turned else warp.span(m[5], m[4], height, rows, filtering)
        )
    left = right = 0
    if separable:
        for x in range(width):
            if border != warp.REFLECT:
                # Beyond a whole row of taps nothing changes any more.
                x_first[x] = min(max(x_first[x], -x_weights.shape[1]), columns)
            left = max(left, -np.int64(x_first[x]))
            right = max(right, np.int64(x_first[x]) + x_weights.shape[1] - columns)
    grouped, bases, lanes, pairs = warp_lines.grouped(x_first, x_weights)
    grouped = grouped and vectors

    zero = left + _SPARE
    line = np.zeros(zero + columns + right + _SPARE, np.int16)
    mixed = _u(line.ctypes.data + 2 * zero)
    steps = _u((width + warp_lines.GROUP - 1) // warp_lines.GROUP)
    values, finished = np.zeros(steps * warp_lines.GROUP, np.float32), np.zeros(steps * warp_lines.GROUP, np.float32)
    origin, buffer = _u(values.ctypes.data), _u(finished.ctypes.data)
    y_weight, y_taps = _u(y_weights.ctypes.data), y_weights.shape[1]
    plane_pitch, pitch, pixel_pitch = _u(out_strides[0]), _u(out_strides[1]), _u(out_strides[2])
    base, lane, pair = _u(bases.ctypes.data), _u(lanes.ctypes.data), _u(pairs.ctypes.data)
    halves = _u(bases.shape[1])

    # Contiguous planes are made one by one. Interleaved channels go row by row, so that a line of memory is
    # completed while it is in the cache; so do maps whose positions take long to find and serve all channels.
    by_planes = direct and separable and flat.shape[0] == 0
    outer, inner = (channels, 1) if by_planes else (height, channels)
    slots = 1 if by_planes else channels
    prepared = np.empty((slots, rows, columns + _SPARE) if turned else (slots, 0, 0), np.uint8)
    blurred = np.empty((slots, shape[0], shape[1]) if blur.size > 1 else (slots, 0, 0), np.uint8)
    planes = np.zeros(channels, np.uint64)
    line_pitch = _u(columns + _SPARE if turned else columns)
    lit = width if flat.shape[0] else 0
    nodes, parts = np.empty((2, lit), np.int32), np.empty((2, lit), np.float32)
    near, known = np.empty((channels, 2, max(lit, flat.shape[1])), np.float32), np.full(channels, -1)
    bits = _samples(m, filtering)
    count = 0 if separable else 1 << (2 * bits)
    c, r = np.empty((count, width), np.int32), np.empty((count, width), np.int32)
    total = np.empty(width, np.int32)
    inside, lost = np.empty((count, np.int64(steps)), np.bool_), np.empty(width, np.bool_)
    for o in range(outer):
        if not separable:
            places(
                o, m, bits, filtering, shape, bend, x_first_basis, x_basis, y_first_basis, y_basis, c, r, inside, lost
            )
        if flat.shape[0]:
            lit_row(o, m, flat.shape[1:], shift, nodes, parts)
        for i in range(inner):
            k, y0, y1 = (o, 0, height) if by_planes else (i, o, o + 1)
            if y0 == 0 and order[k] >= 0:
                slot = 0 if by_planes else k
                source = _plane(stack, order[k], shape)
                planes[k] = _prepare(source, blur, blurred[slot], turned, prepared[slot])
            plane = planes[k]
            for y in range(y0, y1):
                m_k, s_k = center[k], scale[k]
                start = np.uint32((k * height + y) * width)
                if order[k] < 0:
                    values[:] = 0
                    m_k, s_k = np.float32(0), np.float32(1)
                else:
                    if separable:
                        weights = y_weight + _u(2 * y * y_taps)
                        _mixed(plane, rows, columns, line_pitch, mixed, y_first[y], weights, y_taps, border)
                        _pad(mixed, columns, -left, 0, border)
                        _pad(mixed, columns, columns, columns + right, border)
                        if grouped:
                            _groups(mixed, base, lane, pair, steps, halves, origin)
                        else:
                            warp_lines.plain_row(mixed, x_first, x_weights, values)
                    else:
                        source = carray(_bytes(plane), shape)
                        _sampled(source, c, r, inside, lost, border, total, values, vectors)
                    if flat.shape[0]:
                        _shade(values, flat, k, nodes, parts, separable, turned, near, known)
                    if noise.shape[0]:
                        _add_noise(values, width, start, noise, k, key)
                    if border == warp.CONSTANT:
                        if y < top or y >= bottom:
                            values[:] = fill[k]
                        values[:first] = fill[k]
                        values[end:] = fill[k]
                        if not separable:
                            for x in range(width):
                                values[x] = fill[k] if lost[x] else values[x]
                    if not raw and table.shape[0]:
                        _tone(values, table, k, vectors)
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
                        values[x] = min(max(values[x], np.float32(0)), np.float32(255))
                goal = out + _u(k) * plane_pitch + _u(y) * pitch
                if direct:
                    _finish(kind, origin, goal, steps, m_k, s_k)
                else:
                    _finish_near(kind, origin, buffer, steps, m_k, s_k)
                    scatter(_BYTES[kind], buffer, goal, _u(width), pixel_pitch)
    if direct:
        fused_lines.fence()
    # Arrays whose addresses alone are used above would be freed before, if nothing used them here.
    return (
        line.size + y_weights.size + bases.size + lanes.size + pairs.size + prepared.size + blurred.size + finished.size
    )
