"""What the loops for 8-bit and for 16-bit pixels do alike to a row: :mod:`rxrx_kernels.augment.loop`, ``augment16``.

The loops themselves stay apart, although they look alike: an array that a loop hands to an inlined function is counted
as a reference, which waits for all stores on their way past the cache. With the lines about erasing alone shared so,
a plain site took 2.5 times as long.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from rxrx_kernels.augment import photometric as tone
from rxrx_kernels.augment import resample as warp_lines
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.noise import NORMAL, scramble

__all__ = ["erase_part", "fma", "lit_row", "make_add_noise", "make_finish", "make_prepare", "places", "scatter"]


@intrinsic
def fma(typing, a, b, c):
    """``a * b + c`` in float32, rounded once."""

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


_inline = njit(inline="always")
_place, _outside, _node, _scramble = (_inline(f) for f in (warp.place, warp.outside, tone.node, scramble))
_u = np.uint64


def make_prepare(blur_plane, transposed):
    """``prepare(plane, blur, blurred, turned, prepared)``: one channel, blurred and transposed where that is asked for.

    ``blurred`` and ``prepared`` are scratch memory; returns the address of the result.
    """

    @njit(nogil=True, cache=True)
    def prepare(plane, blur, blurred, turned, prepared):
        if blur.size > 1:
            blur_plane(plane, blur, blurred)
            if turned:
                transposed(blurred, prepared)
                return _u(prepared.ctypes.data)
            return _u(blurred.ctypes.data)
        if turned:
            transposed(plane, prepared)
            return _u(prepared.ctypes.data)
        return _u(plane.ctypes.data)

    return prepare


@njit(nogil=True, cache=True)
def lit_row(y, m, shape, shift, nodes, parts):
    """Where the pixels of an output row lie in the illumination's grid: nodes (2, W) int32, parts (2, W) float32."""
    for x in range(nodes.shape[1]):
        c, r = _place(m, np.int64(x), np.int64(y), 0, 0, 0, warp.BILINEAR)
        nodes[0, x], parts[0, x] = _node(c, shape[1], shift)
        nodes[1, x], parts[1, x] = _node(r, shape[0], shift)


@njit(nogil=True, cache=True)
def places(y, m, bits, kind, shape, bend, x_first, x_basis, y_first, y_basis, c, r, inside, lost):
    """Source positions of an output row's samples, for maps that mix the axes or are bent.

    ``c`` and ``r`` are (samples, W) int32, in 1/256 of a pixel; ``inside`` (samples, groups) says where all of 16
    pixels and their neighbours lie within the source; ``lost`` (W,) which pixels lie outside of it.
    """
    width, nodes, side = c.shape[1], bend.shape[2], 1 << bits
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
                    column[axis, i] += np.int64(bend[axis, y_first[y] + j, i]) * y_basis[y, j]
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
            for x in range(g * warp_lines.GROUP, (g + 1) * warp_lines.GROUP):
                if x < width:
                    within &= (c[i, x] >= 0) & (c[i, x] < last_column) & (r[i, x] >= 0) & (r[i, x] < last_row)
                else:
                    within = False
            inside[i, g] = within


def make_add_noise(most):
    """``add_noise(values, width, start, noise, k, key)``: a camera's noise, in grey values from 0 to ``most``."""
    noisy = _inline(tone.make_noisy(fma, most))

    @njit(nogil=True, cache=True)
    def add_noise(values, width, start, noise, k, key):
        low, high, sigma, shot = key[0], key[1], noise[k, 0], noise[k, 1]
        for x in range(width):
            normal = NORMAL[_scramble(np.uint32(start + np.uint32(x)), low, high)]
            values[x] = noisy(values[x], normal, sigma, shot)

    return add_noise


@njit(nogil=True, cache=True)
def erase_part(line, x0, x1, start, erase, key):
    """Pixels ``x0`` to ``x1`` of a row become a constant, ``erase[0]``, with normal noise of deviation ``erase[1]``."""
    # Another key than the camera's noise has.
    low, high = key[0], np.uint32(key[1] ^ np.uint32(0x5BD1E995))
    for x in range(x0, x1):
        line[x] = erase[0]
        if erase[1] != 0:
            line[x] = fma(NORMAL[_scramble(np.uint32(start + np.uint32(x)), low, high)], erase[1], erase[0])


def make_finish(sizes, passing):
    """``finish(kind, source, target, steps, center, scale)``: a row of float32 to one of four kinds of output.

    ``sizes`` are :data:`rxrx_kernels.augment.resample.SIZES` or ``SIZES16``, and ``kind`` a place in them.
    """
    first, second, third, fourth = (warp_lines.finish16(kind, passing) for kind in sizes)
    one, two, three, four = (_u(warp_lines.GROUP * size) for size in sizes.values())

    @njit(nogil=True, cache=True)
    def finish(kind, source, target, steps, center, scale):
        if kind == 0:
            for g in range(steps):
                first(source + _u(64) * g, target + one * g, center, scale)
        elif kind == 1:
            for g in range(steps):
                second(source + _u(64) * g, target + two * g, center, scale)
        elif kind == 2:
            for g in range(steps):
                third(source + _u(64) * g, target + three * g, center, scale)
        else:
            for g in range(steps):
                fourth(source + _u(64) * g, target + four * g, center, scale)

    return finish


_copy1, _copy2, _copy4 = (warp_lines.copy_pixel(kind) for kind in ("uint8", "float16", "float32"))


@njit(nogil=True, cache=True)
def scatter(size, source, target, count, pitch):
    """Finished pixels of 1, 2 or 4 bytes to places that lie ``pitch`` bytes apart."""
    if size == 1:
        for x in range(count):
            _copy1(source + x, target + pitch * x)
    elif size == 2:
        for x in range(count):
            _copy2(source + _u(2) * x, target + pitch * x)
    else:
        for x in range(count):
            _copy4(source + _u(4) * x, target + pitch * x)
