"""Turn, flip, normalise and cast a stack of channels, writing each output pixel once.

The arithmetic of one pixel is two plain functions, :func:`source` (where it comes from) and :func:`normalise` (what
becomes of it). Both are compiled twice: here for the CPU, in ``rxrx_kernels.cuda`` for the GPU.

Geometry is an element of the dihedral group of the square as a code from 0 to 7, three bits::

    bit 0   mirror left-right    (the source column counts from the right)
    bit 1   mirror top-bottom    (the source row counts from the bottom)
    bit 2   transpose            (rows and columns of the output are exchanged before the mirrors apply)

so that ``out[y, x] = in[r, c]`` with ``(r, c) = (x, y) if code & 4 else (y, x)``, then ``c -> W - 1 - c`` if
``code & 1`` and ``r -> H - 1 - r`` if ``code & 2``. All eight turns and flips of a square are among them:
``numpy.rot90(image, k)`` is code ``TURNS[k]``.

The value is ``(float32(in) - center) * scale`` in float32: a subtraction, rounded, then a multiplication, rounded.
A compiler cannot contract that order into a fused multiply-add, so the CPU and every GPU give the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["TURNS", "compose", "fuse_site", "normalise", "source"]

#: Geometry codes of ``numpy.rot90(image, k)`` (anticlockwise) for k = 0, 1, 2, 3.
TURNS = (0, 5, 3, 6)

# Output rows that the transposing loop gathers at once: one source row then gives 64 neighbouring bytes, a cache line.
_STRIP = 64


def source(code, y, x, rows, columns):
    """The source pixel ``(r, c)`` of output pixel ``(y, x)``; ``rows`` and ``columns`` are the source's."""
    if code & 4:
        r, c = x, y
    else:
        r, c = y, x
    if code & 1:
        c = columns - 1 - c
    if code & 2:
        r = rows - 1 - r
    return r, c


def normalise(value, center, scale):
    """``(value - center) * scale`` in float32, one rounding an operation."""
    return (np.float32(value) - center) * scale


def compose(first: int, second: int) -> int:
    """The code that does the work of ``first`` and then of ``second``.

    Both mirrors commute; a transposition carries a left-right mirror into a top-bottom one and back.
    """
    mirrors, turned = first & 3, first & 4
    # out2[y, x] = out1[s2(y, x)] = in[s1(s2(y, x))]: the second's mirrors pass through the first's transposition.
    passing = second & 3
    if turned:
        passing = (passing >> 1) | ((passing & 1) << 1)
    return (turned ^ (second & 4)) | (mirrors ^ passing)


_source = njit(inline="always")(source)
_normalise = njit(inline="always")(normalise)


def _make_plane_kernel(code: int, normalised: bool):
    """A loop over one plane with the geometry as a constant, which is what lets the compiler vectorise it."""

    @njit(inline="always")
    def moved(plane, y, x):
        r, c = _source(code, y, x, plane.shape[0], plane.shape[1])
        # Unsigned, because a signed index would be tested for Python's wrap-around on every pixel.
        return plane[np.uint64(r), np.uint64(c)]

    @njit(inline="always")
    def finished(value, center, scale):
        return _normalise(value, center, scale) if normalised else value

    @njit(nogil=True, cache=True)
    def straight(plane, out, center, scale):
        height, width = out.shape
        for y in range(height):
            for x in range(width):
                out[y, x] = finished(moved(plane, y, x), center, scale)

    @njit(nogil=True, cache=True)
    def transposing(plane, out, center, scale):
        height, width = out.shape
        strip = np.empty((_STRIP, width), np.uint8)
        for y0 in range(0, height, _STRIP):
            depth = min(_STRIP, height - y0)
            for x in range(width):
                for j in range(depth):
                    strip[j, x] = moved(plane, y0 + j, x)
            for j in range(depth):
                for x in range(width):
                    out[y0 + j, x] = finished(strip[j, x], center, scale)

    return transposing if code & 4 else straight


_n0, _n1, _n2, _n3, _n4, _n5, _n6, _n7 = (_make_plane_kernel(code, True) for code in range(8))
_r0, _r1, _r2, _r3, _r4, _r5, _r6, _r7 = (_make_plane_kernel(code, False) for code in range(8))


@njit(nogil=True, cache=True)
def _normalised_site(stack, out, code, center, scale):
    for k in range(stack.shape[0]):
        m, s = center[k], scale[k]
        if code == 0:
            _n0(stack[k], out[k], m, s)
        elif code == 1:
            _n1(stack[k], out[k], m, s)
        elif code == 2:
            _n2(stack[k], out[k], m, s)
        elif code == 3:
            _n3(stack[k], out[k], m, s)
        elif code == 4:
            _n4(stack[k], out[k], m, s)
        elif code == 5:
            _n5(stack[k], out[k], m, s)
        elif code == 6:
            _n6(stack[k], out[k], m, s)
        else:
            _n7(stack[k], out[k], m, s)


@njit(nogil=True, cache=True)
def _raw_site(stack, out, code, center, scale):
    for k in range(stack.shape[0]):
        if code == 0:
            _r0(stack[k], out[k], 0, 0)
        elif code == 1:
            _r1(stack[k], out[k], 0, 0)
        elif code == 2:
            _r2(stack[k], out[k], 0, 0)
        elif code == 3:
            _r3(stack[k], out[k], 0, 0)
        elif code == 4:
            _r4(stack[k], out[k], 0, 0)
        elif code == 5:
            _r5(stack[k], out[k], 0, 0)
        elif code == 6:
            _r6(stack[k], out[k], 0, 0)
        else:
            _r7(stack[k], out[k], 0, 0)


def fuse_site(stack, out, code, center, scale):
    """Turn, flip, normalise and cast one site on the CPU. Releases the GIL.

    Parameters
    ----------
    stack : (C, H, W) uint8
        The decoded channels, with any strides.
    out : (C, H', W') float32 or uint8
        Written in full, with any strides. ``(H', W')`` is ``(W, H)`` for transposing codes, else ``(H, W)``.
        With uint8 the pixels are moved and not normalised.
    code : int
        Geometry, 0 to 7.
    center, scale : (C,) float32
        Ignored for uint8 output.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit: compiled code does not check bounds, so this is checked first.
    """
    if stack.ndim != 3 or out.ndim != 3 or stack.dtype != np.uint8:
        raise ValueError(
            f"stack must be (C, H, W) uint8, got {stack.dtype}{stack.shape}, and out (C, H, W), got {out.shape}"
        )
    channels, rows, columns = stack.shape
    if not 0 <= code <= 7:
        raise ValueError(f"geometry code must be 0 to 7, got {code}")
    if out.shape != ((channels, columns, rows) if code & 4 else (channels, rows, columns)):
        raise ValueError(f"out has shape {out.shape}, but geometry {code} of a stack {stack.shape} does not fit it")
    if out.dtype == np.uint8:
        _raw_site(stack, out, int(code), center, scale)
        return
    if out.dtype != np.float32:
        raise ValueError(f"out must be float32 or uint8, got {out.dtype}")
    for name, row in (("center", center), ("scale", scale)):
        if row.shape != (channels,) or row.dtype != np.float32:
            raise ValueError(f"{name} must be ({channels},) float32, got {row.dtype}{row.shape}")
    _normalised_site(stack, out, int(code), center, scale)
