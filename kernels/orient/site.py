"""Turn, flip, normalise and cast a stack of channels, writing each output pixel once.

The arithmetic of one pixel is two plain functions, :func:`source` (where it comes from) and :func:`normalise` (what
becomes of it). Both are compiled twice: here for the CPU, in ``rxrx_kernels.cuda.orient`` for the GPU. Contiguous
planes, which is what a loader has, take the form of :mod:`rxrx_kernels.orient.rows`, tested to give the same bits.

Geometry is an element of the dihedral group of the square as a code from 0 to 7, three bits::

    bit 0   mirror left-right    (the source column counts from the right)
    bit 1   mirror top-bottom    (the source row counts from the bottom)
    bit 2   transpose            (rows and columns of the output are exchanged before the mirrors apply)

so that ``out[y, x] = in[r, c]`` with ``(r, c) = (x, y) if code & 4 else (y, x)``, then ``c -> W - 1 - c`` if
``code & 1`` and ``r -> H - 1 - r`` if ``code & 2``. All eight turns and flips of a square are among them:
``numpy.rot90(image, k)`` is code ``ROT90[k]``.

The value is ``(float32(in) - center) * scale`` in float32: a subtraction, rounded, then a multiplication, rounded.
A compiler cannot contract that order into a fused multiply-add, so the CPU and every GPU give the same bits.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload
from rxrx_kernels.orient import rows as fused_lines

__all__ = ["MIRROR_X", "MIRROR_Y", "ROT90", "TRANSPOSE", "compose", "normalise", "orient_site", "source"]

#: Bits of a geometry code.
MIRROR_X, MIRROR_Y, TRANSPOSE = 1, 2, 4
#: Geometry codes of ``numpy.rot90(image, k)`` (anticlockwise) for k = 0, 1, 2, 3.
ROT90 = (0, 5, 3, 6)

# Output rows that the transposing loop gathers at once: one source row then gives 64 neighbouring bytes, a cache line.
_STRIP = 64


def source(code, y, x, rows, columns):
    """Return the source pixel ``(r, c)`` of output pixel ``(y, x)``; ``rows`` and ``columns`` are the source's."""
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
    """Return the code that does the work of ``first`` and then of ``second``.

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


@intrinsic
def _half_bits(typing, value):
    """Return a float32 as the bits of the nearest float16, ties to even: Numba has no float16 on the CPU, LLVM does."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


def _finish(out, value, center, scale):
    """Return the output value of a pixel, by the kind of the output; uint16 holds the bits of float16."""


@overload(_finish, inline="always")
def _finish_by_kind(out, value, center, scale):
    if out.dtype == types.uint8:
        return lambda out, value, center, scale: value
    if out.dtype == types.float32:
        return lambda out, value, center, scale: _normalise(value, center, scale)
    return lambda out, value, center, scale: _half_bits(_normalise(value, center, scale))


# What a kernel is closed over is pickled into the name that Numba's cache knows it by. A number is the same in every
# process; a function is not, and would be compiled and stored anew by each.


def _make_plane_kernel(code: int):
    """Make a loop over one plane with the geometry as a constant, which is what lets the compiler vectorise it."""
    # Indices are unsigned, because a signed one would be tested for Python's wrap-around on every pixel, and the source
    # row is taken out of the inner loops, which the compiler does not see by itself.

    def straight(plane, out, center, scale):
        height, width = out.shape
        for y in range(height):
            r, _ = _source(code, y, 0, height, width)
            line, target = plane[np.uint64(r)], out[y]
            for x in range(width):
                _, c = _source(code, y, x, height, width)
                target[x] = _finish(out, line[np.uint64(c)], center, scale)

    def transposing(plane, out, center, scale):
        height, width = out.shape
        strip = np.empty((_STRIP, width), np.uint8)
        for c0 in range(0, height, _STRIP):
            depth = min(_STRIP, height - c0)
            for x in range(width):
                r, _ = _source(code, 0, x, width, height)
                line = plane[np.uint64(r)]
                for j in range(depth):
                    strip[j, x] = line[np.uint64(c0 + j)]
            for j in range(depth):
                # A mirror is its own inverse: the output row that column c0 + j goes to is the one it comes from.
                _, y = _source(code, c0 + j, 0, width, height)
                line, target = strip[j], out[np.uint64(y)]
                for x in range(width):
                    target[x] = _finish(out, line[x], center, scale)

    kernel = transposing if code & 4 else straight
    # Numba keeps one cache index per qualified name, and writes index and code in two steps. Processes that compile
    # several kernels of one name at once could store one kernel's code under another's key.
    kernel.__qualname__ = f"{kernel.__qualname__}_{code}"
    return njit(nogil=True, cache=True)(kernel)


_k0, _k1, _k2, _k3, _k4, _k5, _k6, _k7 = (_make_plane_kernel(code) for code in range(8))


@njit(nogil=True, cache=True)
def _fuse_any(stack, out, code, center, scale):
    """All channels of a site, with any strides."""
    for k in range(stack.shape[0]):
        plane, target, m, s = stack[k], out[k], center[k], scale[k]
        if code == 0:
            _k0(plane, target, m, s)
        elif code == 1:
            _k1(plane, target, m, s)
        elif code == 2:
            _k2(plane, target, m, s)
        elif code == 3:
            _k3(plane, target, m, s)
        elif code == 4:
            _k4(plane, target, m, s)
        elif code == 5:
            _k5(plane, target, m, s)
        elif code == 6:
            _k6(plane, target, m, s)
        else:
            _k7(plane, target, m, s)


def orient_site(stack, out, code, center, scale):
    """Turn, flip, normalise and cast one site on the CPU. Releases the GIL.

    Parameters
    ----------
    stack : (C, H, W) uint8
        The decoded channels, with any strides.
    out : (C, H', W') float32, float16 or uint8
        Written in full, with any strides. ``(H', W')`` is ``(W, H)`` for transposing codes, else ``(H, W)``.
        With float16 the float32 value is rounded once, to nearest, ties to even. With uint8 the pixels are moved and
        not normalised.
    code : int
        Geometry, 0 to 7.
    center, scale : (C,) float32
        None for uint8 output.

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
    if out.dtype not in fused_lines.LIKE:
        raise ValueError(f"out must be float32, float16 or uint8, got {out.dtype}")
    if out.dtype == np.uint8:
        center = scale = np.zeros(channels, np.float32)
    for name, row in (("center", center), ("scale", scale)):
        if row.shape != (channels,) or row.dtype != np.float32:
            raise ValueError(f"{name} must be ({channels},) float32, got {row.dtype}{row.shape}")
    if fused_lines.fits(stack, out):
        fused_lines.fuse_lines(
            fused_lines.LIKE[out.dtype],
            np.uint64(stack.ctypes.data),
            (np.uint64(stack.strides[0]), np.uint64(stack.strides[1])),
            np.uint64(out.ctypes.data),
            (np.uint64(out.strides[0]), np.uint64(out.strides[1])),
            stack.shape,
            int(code),
            center,
            scale,
            fused_lines.strip(rows),
        )
        return
    # Read-only, as DALI's arrays are: Numba compiles a function of its own for either kind.
    stack = stack.view()
    stack.flags.writeable = False
    _fuse_any(stack, out.view(np.uint16) if out.dtype == np.float16 else out, int(code), center, scale)
