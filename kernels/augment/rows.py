"""Rows of pixels on the CPU: the steps of :mod:`rxrx_kernels.augment.loop` that are the same for both depths."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic
from rxrx_kernels.augment import photometric, warp
from rxrx_kernels.augment.noise import NORMAL, scramble
from rxrx_kernels.augment.resample import GROUP

__all__ = ["SPARE", "add_noise", "correct_flat_field", "erase_part", "flat_nodes", "fma", "pixels_at"]
__all__ += ["sample_positions", "unowned"]

#: Spare pixels at either end of a row between rows, and at the end of each row of a transposed plane. A SIMD vector may
#: read them, and nothing depends on them. They also keep rows whose length is a power of 2 off the same few cache sets.
SPARE = 64


@intrinsic
def fma(typing, a, b, c):
    """Compute ``a * b + c`` in float32, rounded once."""

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@intrinsic
def _pointer(typing, pixel, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[1], context.get_value_type(signature.return_type))

    return types.CPointer(pixel)(pixel, types.uint64), generate


@intrinsic
def unowned(typing, array):
    """Return the same array without its owner, so that no reference is counted when it is passed on.

    Counting waits for all stores that are on their way past the cache. The caller keeps the owner.
    """

    def generate(context, builder, signature, arguments):
        view = context.make_array(array)(context, builder, arguments[0])
        view.meminfo = ir.Constant(view.meminfo.type, None)
        view.parent = ir.Constant(view.parent.type, None)
        return view._getvalue()

    return array(array), generate


_inline = njit(inline="always")
_place, _outside, _node, _scramble = (_inline(f) for f in (warp.place, warp.outside, photometric.node, scramble))
_interpolate, _noisy = _inline(photometric.make_interpolate(fma)), _inline(photometric.make_noisy(fma))
_u = np.uint64


@njit(inline="always")
def pixels_at(pixel, address, shape):
    """Contiguous pixels of the type of ``pixel`` at an address, as an array of this shape."""
    return carray(_pointer(pixel, address), shape)


@njit(nogil=True, cache=True)
def sample_positions(
    y, m, bits, kind, shape, displacement, x_first, x_basis, y_first, y_basis, c, r, inside, lost
):  # fmt: skip
    """Where an output row's samples lie in the source, for maps that mix the axes or deform.

    Parameters
    ----------
    y : int
        The output row.
    m, kind, displacement
        Matrix, filter and displacement of the augmentation.
    bits : int
        Of :func:`rxrx_kernels.augment.warp.samples`.
    shape : (rows, columns)
        Of the source.
    x_first, x_basis, y_first, y_basis : arrays
        Of :func:`rxrx_kernels.augment.warp.basis`, along the output's rows and columns.
    c, r : (samples, W) int32
        Written: source columns and rows in 1/256 of a pixel.
    inside : (samples, groups) bool
        Written: whether all of 16 pixels and their neighbours lie within the source.
    lost : (W,) bool
        Written: which output pixels lie outside of the source.
    """
    width, nodes, side = c.shape[1], displacement.shape[2], 1 << bits
    rows, columns = shape
    for j in range(side):
        for i in range(side):
            for x in range(width):
                column, row = _place(m, np.int64(x), np.int64(y), bits, i, j, kind)
                c[j * side + i, x], r[j * side + i, x] = column, row
    if nodes:
        column = np.zeros((2, nodes), np.int64)
        for i in range(nodes):
            for j in range(4):
                for axis in range(2):
                    column[axis, i] += np.int64(displacement[axis, y_first[y] + j, i]) * y_basis[y, j]
        for x in range(width):
            dx = dy = np.int64(1 << 19)
            for i in range(4):
                dx += column[0, x_first[x] + i] * x_basis[x, i]
                dy += column[1, x_first[x] + i] * x_basis[x, i]
            # Two weights of 1/1024 each.
            for i in range(side * side):
                c[i, x] += dx >> 20
                r[i, x] += dy >> 20
    for x in range(width):
        # The middle of the samples is the pixel's own place, but for half of 1/256 that rounding may add.
        last = side * side - 1
        lost[x] = _outside((c[0, x] + c[last, x] + 1) >> 1, columns) | _outside((r[0, x] + r[last, x] + 1) >> 1, rows)
    if kind == warp.NEAREST:
        for x in range(width):
            c[0, x], r[0, x] = (c[0, x] + 128) & -256, (r[0, x] + 128) & -256
    # Four bytes are read at once, so the last columns count as outside.
    last_column, last_row = np.int32((columns - 4) << 8), np.int32((rows - 1) << 8)
    for i in range(side * side):
        for g in range(inside.shape[1]):
            within = True
            for x in range(g * GROUP, (g + 1) * GROUP):
                if x < width:
                    within &= (c[i, x] >= 0) & (c[i, x] < last_column) & (r[i, x] >= 0) & (r[i, x] < last_row)
                else:
                    within = False
            inside[i, g] = within


@njit(nogil=True, cache=True)
def flat_nodes(y, m, shape, spacing_log2, nodes, parts):
    """Where an output row's pixels lie between the flat field's nodes.

    ``shape`` is the flat field's; ``nodes`` (2, W) int32 and ``parts`` (2, W) float32 are
    written, for columns and rows.
    """
    for x in range(nodes.shape[1]):
        c, r = _place(m, np.int64(x), np.int64(y), 0, 0, 0, warp.BILINEAR)
        nodes[0, x], parts[0, x] = _node(c, shape[1], spacing_log2)
        nodes[1, x], parts[1, x] = _node(r, shape[0], spacing_log2)


@njit(nogil=True, cache=True)
def correct_flat_field(values, flat, k, nodes, parts, separable, transposed, near, known):
    """Multiply an output row by the flat field's factors, interpolated between columns first and then between rows.

    If rows and columns keep apart, factors that neighbouring pixels share are computed once: ``near`` (C, 2, N) float32
    has those on the two rows of nodes about an output row, and serves all output rows until the next node, ``known``
    (C,). An output row of a transposed map stays in one source column, and ``near`` has the factors at its nodes.
    """
    width = nodes.shape[1]
    if separable and transposed:
        i, part = nodes[0, 0], parts[0, 0]
        for j in range(flat.shape[1]):
            near[k, 0, j] = _interpolate(flat[k, j, i], flat[k, j, i + 1], part)
        for x in range(width):
            j = nodes[1, x]
            values[x] *= _interpolate(near[k, 0, j], near[k, 0, j + 1], parts[1, x])
    elif separable:
        j = nodes[1, 0]
        if known[k] != j:
            known[k] = j
            for x in range(width):
                i = nodes[0, x]
                near[k, 0, x] = _interpolate(flat[k, j, i], flat[k, j, i + 1], parts[0, x])
                near[k, 1, x] = _interpolate(flat[k, j + 1, i], flat[k, j + 1, i + 1], parts[0, x])
        part = parts[1, 0]
        for x in range(width):
            values[x] *= _interpolate(near[k, 0, x], near[k, 1, x], part)
    else:
        for x in range(width):
            i, j = nodes[0, x], nodes[1, x]
            upper = _interpolate(flat[k, j, i], flat[k, j, i + 1], parts[0, x])
            lower = _interpolate(flat[k, j + 1, i], flat[k, j + 1, i + 1], parts[0, x])
            values[x] *= _interpolate(upper, lower, parts[1, x])


@njit(nogil=True, cache=True)
def add_noise(values, width, start, noise, k, key, largest):
    """Add a camera's noise to grey values, which stay from 0 to ``largest``; ``start`` is the row's first pixel."""
    low, high, sigma, shot = key[0], key[1], noise[k, 0], noise[k, 1]
    for x in range(width):
        normal = NORMAL[_scramble(np.uint32(start + np.uint32(x)), low, high)]
        values[x] = _noisy(values[x], normal, sigma, shot, largest)


@njit(nogil=True, cache=True)
def erase_part(values, x0, x1, start, erase, key):
    """Set pixels ``x0`` to ``x1`` of a row to ``erase[0]`` with normal noise of deviation ``erase[1]``."""
    # Another key than the camera's noise has.
    low, high = key[0], np.uint32(key[1] ^ np.uint32(0x5BD1E995))
    for x in range(x0, x1):
        values[x] = erase[0]
        if erase[1] != 0:
            values[x] = fma(NORMAL[_scramble(np.uint32(start + np.uint32(x)), low, high)], erase[1], erase[0])
