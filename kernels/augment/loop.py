"""The compiled loop of :mod:`rxrx_kernels.augment.site`: one output row at a time, in the L1 cache.

One source serves pixels of 8 and of 16 bits, every kind of output and every operation. Numba compiles it once for each
depth, which takes seconds, by the type of ``pixel`` (:mod:`rxrx_kernels.augment.depth`).

Counting a reference waits for all stores that are on their way past the cache, which takes more than half of the time.
So arrays are passed on without their owners (:func:`rxrx_kernels.augment.rows.unowned`), and planes as addresses.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.blur import blur_plane
from rxrx_kernels.augment.depth import (
    largest,
    look_up_row,
    plane_memory,
    resample_row,
    row_form,
    row_memory,
    sample_row,
    transpose,
)
from rxrx_kernels.augment.resample import GROUP
from rxrx_kernels.augment.rows import (
    SPARE,
    add_noise,
    correct_flat_field,
    erase_part,
    flat_nodes,
    pixels_at,
    sample_positions,
    unowned,
)
from rxrx_kernels.augment.store import KINDS, scatter_row, store_row
from rxrx_kernels.orient.rows import fence

__all__ = ["augment_rows"]

_inline = njit(inline="always")
_reach, _samples = _inline(warp.reach), _inline(warp.samples)
_is_separable, _is_transposed, _source_steps = map(_inline, (warp.is_separable, warp.is_transposed, warp.source_steps))
_u = np.uint64
_RAW = KINDS["raw"]


@njit(nogil=True, cache=True)
def _prepare(plane, blur, blurred, transposed, prepared):
    """Blur and transpose one channel where that is asked for; returns the address of the result.

    ``blurred`` and ``prepared`` are memory for it.
    """
    if blur.size > 1:
        blur_plane(plane, blur, blurred)
        if transposed:
            transpose(blurred, prepared)
            return _u(prepared.ctypes.data)
        return _u(blurred.ctypes.data)
    if transposed:
        transpose(plane, prepared)
        return _u(prepared.ctypes.data)
    return _u(plane.ctypes.data)


@njit(nogil=True, cache=True)
def augment_rows(
    pixel, stack, shape, out, out_shape, out_strides, size, kind, direct, vectors, a, x_first_basis, x_basis,
    y_first_basis, y_basis,
):  # fmt: skip
    """Do what :func:`rxrx_kernels.augment.site.augment_site` says. Releases the GIL.

    Parameters
    ----------
    pixel : uint8 or uint16
        Its type is that of the source's pixels.
    stack, out : uint64
        Addresses of the contiguous source and of the output.
    shape : (rows, columns)
        Of the source.
    out_shape, out_strides : (C, H', W')
        Of the output; strides in bytes.
    size, kind : int
        Bytes of an output pixel, and a number of :data:`rxrx_kernels.augment.store.KINDS`.
    direct : bool
        Rows of the output are contiguous, aligned to 16 pixels and a multiple of 16 long, and are written past
        the cache.
    vectors : bool
        Use the instructions that this processor may have.
    a : rxrx_kernels.augment.parameters.Augmentation
    x_first_basis, x_basis, y_first_basis, y_basis : arrays
        Of :func:`rxrx_kernels.augment.warp.basis`, along the output's rows and columns.
    """
    # The caller owns the record's arrays.
    m, order, fill, center, scale = a.matrix, a.order, unowned(a.fill), unowned(a.center), unowned(a.scale)
    box, erase, lut, noise, key = unowned(a.box), unowned(a.erase), unowned(a.lut), unowned(a.noise), unowned(a.key)
    flat, displacement, blur = unowned(a.flat), unowned(a.displacement), unowned(a.blur)
    lut_log2, flat_log2, filtering, border = a.lut_log2, a.flat_log2, a.sampling[0], a.sampling[1]
    channels, height, width = out_shape
    raw = kind == _RAW
    separable = _is_separable(m, displacement.shape[2])
    transposed = separable and _is_transposed(m)
    # Output rows run along the rows of the plane that is read, which for transposed maps is the transposed source.
    rows, columns = (shape[1], shape[0]) if transposed else shape
    column_step, row_step = _source_steps(m, transposed)
    if transposed:
        x_start, x_step, y_start, y_step = m[5], row_step, m[2], column_step
    else:
        x_start, x_step, y_start, y_step = m[2], column_step, m[5], row_step
    x_first, x_weights = warp.taps(x_start, x_step, width, filtering)
    y_first, y_weights = warp.taps(y_start, y_step, height, filtering)
    # Rows and columns of the output that lie within the source.
    top, bottom, first, end = 0, height, 0, width
    if separable and border == warp.CONSTANT:
        first, end = warp.span(x_start, x_step, width, columns, filtering)
        top, bottom = warp.span(y_start, y_step, height, rows, filtering)
    left = right = 0
    if separable:
        for x in range(width):
            if border != warp.REFLECT:
                # Beyond a whole row of taps nothing changes any more.
                x_first[x] = min(max(x_first[x], -x_weights.shape[1]), columns)
            left = max(left, -np.int64(x_first[x]))
            right = max(right, np.int64(x_first[x]) + x_weights.shape[1] - columns)
    form, bases, lanes, pairs = row_form(pixel, x_first, x_weights, columns, vectors)
    line, total = row_memory(pixel, left + columns + right, width)
    owners = x_first, x_weights, y_first, y_weights, bases, lanes, pairs, line, total
    x_first, x_weights, y_first, y_weights = unowned(x_first), unowned(x_weights), unowned(y_first), unowned(y_weights)
    bases, lanes, pairs, line, total = unowned(bases), unowned(lanes), unowned(pairs), unowned(line), unowned(total)
    groups = _u((width + GROUP - 1) // GROUP)
    values, finished = np.zeros(groups * GROUP, np.float32), np.zeros(groups * GROUP, np.float32)
    more_owners = values, finished
    values = unowned(values)
    origin, buffer, size = _u(values.ctypes.data), _u(finished.ctypes.data), _u(size)
    plane_pitch, pitch, pixel_pitch = _u(out_strides[0]), _u(out_strides[1]), _u(out_strides[2])

    # Contiguous planes are made one by one. Interleaved channels go row by row, so that a line of memory is
    # completed while it is in the cache; so do maps whose positions take long to find and serve all channels.
    by_planes = direct and separable and flat.shape[0] == 0
    outer, inner = (channels, 1) if by_planes else (height, channels)
    slots = 1 if by_planes else channels
    prepared = plane_memory(pixel, (slots, rows, columns + SPARE) if transposed else (slots, 0, 0))
    blurred = plane_memory(pixel, (slots, shape[0], shape[1]) if blur.size > 1 else (slots, 0, 0))
    plane_owners = prepared, blurred
    prepared, blurred = unowned(prepared), unowned(blurred)
    planes = np.zeros(channels, np.uint64)
    plane_size, row_pitch = shape[0] * shape[1] * blurred.itemsize, columns + SPARE if transposed else columns
    lit = width if flat.shape[0] else 0
    nodes, parts = np.empty((2, lit), np.int32), np.empty((2, lit), np.float32)
    near, known = np.empty((channels, 2, max(lit, flat.shape[1])), np.float32), np.full(channels, -1)
    bits = _samples(m, filtering)
    count = 0 if separable else 1 << (2 * bits)
    c, r = np.empty((count, width), np.int32), np.empty((count, width), np.int32)
    inside, lost = np.empty((count, np.int64(groups)), np.bool_), np.empty(width, np.bool_)
    place_owners = nodes, parts, near, known, c, r, inside, lost
    nodes, parts, near, known = unowned(nodes), unowned(parts), unowned(near), unowned(known)
    c, r, inside, lost = unowned(c), unowned(r), unowned(inside), unowned(lost)
    for o in range(outer):
        if not separable:
            sample_positions(
                o, m, bits, filtering, shape, displacement, x_first_basis, x_basis, y_first_basis, y_basis, c, r,
                inside, lost,
            )  # fmt: skip
        if flat.shape[0]:
            flat_nodes(o, m, flat.shape[1:], flat_log2, nodes, parts)
        for i in range(inner):
            k, y0, y1 = (o, 0, height) if by_planes else (i, o, o + 1)
            if y0 == 0 and order[k] >= 0:
                slot = 0 if by_planes else k
                source = pixels_at(pixel, stack + _u(order[k] * plane_size), shape)
                planes[k] = _prepare(source, blur, blurred[slot], transposed, prepared[slot])
            plane = planes[k]
            for y in range(y0, y1):
                m_k, s_k = center[k], scale[k]
                start = np.uint32((k * height + y) * width)
                if order[k] < 0:
                    values[:] = 0
                    m_k, s_k = np.float32(0), np.float32(1)
                else:
                    if separable:
                        resample_row(
                            pixel, plane, (rows, columns), row_pitch, y, y_first, y_weights, border, line, left, right,
                            form, x_first, x_weights, bases, lanes, pairs, values,
                        )  # fmt: skip
                    else:
                        source = pixels_at(pixel, plane, shape)
                        sample_row(pixel, source, c, r, inside, lost, border, total, values, vectors)
                    if flat.shape[0]:
                        correct_flat_field(values, flat, k, nodes, parts, separable, transposed, near, known)
                    if noise.shape[0]:
                        add_noise(values, width, start, noise, k, key, largest(pixel))
                    if border == warp.CONSTANT:
                        if y < top or y >= bottom:
                            values[:] = fill[k]
                        values[:first] = fill[k]
                        values[end:] = fill[k]
                        if not separable:
                            for x in range(width):
                                values[x] = fill[k] if lost[x] else values[x]
                    if not raw and lut.shape[0]:
                        bin_log2 = lut_log2[k] if lut_log2.shape[0] else 0
                        look_up_row(pixel, values, width, lut, k, bin_log2, vectors)
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
                        values[x] = min(max(values[x], np.float32(0)), largest(pixel))
                goal = out + _u(k) * plane_pitch + _u(y) * pitch
                if direct:
                    store_row(pixel, kind, True, origin, goal, groups, size, m_k, s_k)
                else:
                    store_row(pixel, kind, False, origin, buffer, groups, size, m_k, s_k)
                    scatter_row(size, buffer, goal, _u(width), pixel_pitch)
    if direct:
        fence()
    # Memory would be freed after the last use of its owner.
    return len(owners), len(more_owners), len(plane_owners), len(place_owners)
