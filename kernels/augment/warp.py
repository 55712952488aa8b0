"""Where an output pixel comes from when an image is cropped, resized, shifted, turned by any angle or deformed.

A geometry is an affine map from output to source, both in pixels with the first pixel's centre at 0::

    c = m[0] * x + m[1] * y + m[2]          r = m[3] * x + m[4] * y + m[5]

written with 32 fractional bits, so that every device computes the same integers. Positions are rounded to 1/256 of a
pixel, and interpolation weights are multiples of 1/256: a sum of products of a pixel and two weights then fits the 24
bits of a float32's significand. It is exact, in any order, with or without fused multiply-adds, one axis after the
other or both at once. That is why CPU and GPU agree to the bit.

Where the map exchanges or mirrors axes but does not mix them, it is *separable*: a table of :func:`taps` an axis says
everything. The functions of one pixel (:func:`reach`, :func:`place`, :func:`make_sample`'s)
are compiled for the CPU and for the GPU.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from rxrx_kernels.orient.site import MIRROR_X, MIRROR_Y, TRANSPOSE

__all__ = ["ANTIALIAS", "BILINEAR", "BORDERS", "CONSTANT", "EDGE", "FILTERS", "FRACTION", "NEAREST", "REFLECT"]
__all__ += ["as_code", "basis", "fixed", "is_separable", "is_transposed", "make_sample", "outside", "place", "reach"]
__all__ += ["samples", "source_steps", "span", "taps"]

#: Fractional bits of a map's coefficients.
FRACTION = 32
_ONE = 1 << FRACTION
# 1/256 of a pixel, and half of it.
_Q = FRACTION - 8
_HALF_Q = 1 << (_Q - 1)
# A millionth of a pixel, which takes "nearest" to the later of two pixels equally far, as its rule has it, although the
# last bit of a step such as 4/3 was rounded away.
_TIE = 1 << (FRACTION - 20)

#: Filters. ANTIALIAS is bilinear, and a triangle as wide as the step where an image shrinks (Pillow's BILINEAR).
NEAREST, BILINEAR, ANTIALIAS = 0, 1, 2
FILTERS = {"nearest": NEAREST, "bilinear": BILINEAR, "antialias": ANTIALIAS}

#: What lies outside of the source: a constant, its nearest pixel, or its mirror image about the outermost pixel. Pixels
#: are areas: up to half a pixel beyond its outermost centres is inside, and is interpolated with the nearest pixel, so
#: that resizing makes no seam.
CONSTANT, EDGE, REFLECT = 0, 1, 2
BORDERS = {"constant": CONSTANT, "edge": EDGE, "reflect": REFLECT}


def fixed(matrix: np.ndarray) -> np.ndarray:
    """Coefficients as int64 with :data:`FRACTION` fractional bits.

    Parameters
    ----------
    matrix : (..., 2, 3) float64
        Rows give the source column and the source row of an output pixel (x, y, 1).

    Returns
    -------
    (..., 6) int64

    Raises
    ------
    ValueError
        If a coefficient is not finite, or lies beyond a million pixels.
    """
    matrix = np.asarray(matrix, np.float64)
    if not (np.abs(matrix) < 2.0**20).all():
        raise ValueError("a geometry's coefficients must be finite and below 2^20 pixels")
    return np.rint(matrix * _ONE).astype(np.int64).reshape(*matrix.shape[:-2], 6)


def is_separable(m, nodes=0):
    """Whether the map (6,) int64 keeps rows and columns apart: its angle is a multiple of 90 degrees.

    With ``nodes`` control points of an elastic deformation no map does.
    """
    return nodes == 0 and ((m[1] == 0 and m[3] == 0) or (m[0] == 0 and m[4] == 0))


def is_transposed(m):
    """Whether a separable map exchanges rows and columns: output rows then run along source columns."""
    return m[0] == 0 and m[4] == 0


def source_steps(m, transposed):
    """Return the steps of a separable map along the source's columns and along its rows.

    The source column is ``m[2] + steps[0] * u`` and the source row ``m[5] + steps[1] * v``, where (u, v) is the output
    pixel (x, y), or (y, x) if the map is ``transposed`` (:func:`is_transposed`).
    """
    return (m[1], m[3]) if transposed else (m[0], m[4])


def as_code(m: np.ndarray, shape: tuple[int, int], out_shape: tuple[int, int]) -> int:
    """Return the code, 0 to 7, of :mod:`rxrx_kernels.orient.site` that does what the map does; -1 if none does.

    Parameters
    ----------
    m : (6,) int64
    shape, out_shape : (height, width)
        Of the source and of the output.
    """
    if not is_separable(m):
        return -1
    code = TRANSPOSE if is_transposed(m) else 0
    if tuple(out_shape) != (tuple(shape[::-1]) if code else tuple(shape)):
        return -1
    across, down = source_steps(m, code == TRANSPOSE)
    for mirror, step, start, size in ((MIRROR_X, across, m[2], shape[1]), (MIRROR_Y, down, m[5], shape[0])):
        if step == -_ONE and start == (size - 1) << FRACTION:
            code |= mirror
        elif step != _ONE or start != 0:
            return -1
    return code


def reach(i, size, border):
    """Return the pixel that stands for pixel ``i`` of a line of ``size``."""
    if 0 <= i < size:
        return i
    if border != REFLECT or size == 1:
        return 0 if i < 0 else size - 1
    period = 2 * (size - 1)
    # A mirror about the first pixel changes nothing, and 32 bits without a sign are the quickest to divide.
    i = np.int64(np.uint32(abs(i)) % np.uint32(period))
    return period - i if i >= size else i


def outside(q, size):
    """Whether a position, in 1/256 of a pixel, lies outside of a line of ``size`` pixels."""
    return q < -128 or q >= size * 256 - 128


_reach, _outside = njit(inline="always")(reach), njit(inline="always")(outside)


@njit(nogil=True, cache=True)
def _width(step, kind):
    """Taps a pixel: even, because kernels take them in pairs."""
    if kind != ANTIALIAS or abs(step) <= _ONE:
        return 2
    count = (2 * abs(step) + _ONE - 1) >> FRACTION
    return count + (count & 1)


@njit(nogil=True, cache=True)
def taps(start, step, count, kind):
    """Which source pixels of a line make each output pixel, and with which weights.

    Parameters
    ----------
    start, step : int64
        Output pixel i lies at ``start + i * step`` of the source line, with :data:`FRACTION` fractional bits.
    count : int
        Output pixels, N.
    kind : int
        NEAREST, BILINEAR or ANTIALIAS.

    Returns
    -------
    first : (N,) int32
        First source pixel, which may lie outside of the line.
    weights : (N, T) int16
        Of pixels ``first .. first + T - 1``, in 1/256; each row sums to exactly 256. T is even.
    """
    width = _width(step, kind)
    first, weights = np.empty(count, np.int32), np.zeros((count, width), np.int16)
    reached = abs(step)
    for i in range(count):
        position = start + i * step
        if kind == NEAREST:
            first[i] = (position + (_ONE >> 1) + _TIE) >> FRACTION
            weights[i, 0] = 256
        elif width == 2:
            q = (position + _HALF_Q) >> _Q
            first[i] = q >> 8
            weights[i, 1] = q & 255
            weights[i, 0] = 256 - weights[i, 1]
        else:
            low = ((position - reached) >> FRACTION) + 1
            first[i] = low
            total = np.int64(0)
            for j in range(width):
                total += _triangle(low + j, position, reached)
            # Rounding the running sums and not the weights makes these sum to 256 whatever they are.
            seen, given = np.int64(0), np.int64(0)
            for j in range(width):
                seen += _triangle(low + j, position, reached)
                due = (512 * seen + total) // (2 * total)
                weights[i, j] = due - given
                given = due
    return first, weights


@njit(inline="always")
def _triangle(pixel, position, reached):
    """Height of a triangle about ``position`` at a pixel, in 2^-16 of a pixel."""
    return max((reached - abs((np.int64(pixel) << FRACTION) - position)) >> 16, np.int64(0))


def samples(m, kind):
    """Bits of the number of samples an axis that an output pixel is the mean of: 0, 1 or 2.

    With ANTIALIAS a pixel that covers more than one source pixel is the mean of 2 x 2 or 4 x 4 samples spread over it;
    beyond 4 x 4 an image that is both turned and shrunk more than fourfold is not fully smoothed.
    """
    if kind != ANTIALIAS:
        return 0
    reached = max(abs(m[0]) + abs(m[1]), abs(m[3]) + abs(m[4]))
    return 0 if reached <= 3 * _ONE // 2 else 1 if reached <= 3 * _ONE else 2


def place(m, x, y, bits, i, j, kind):
    """Source position (column, row) of sample (i, j) of output pixel (x, y), in 1/256 of a pixel."""
    # Nearest is floor(position + 1/2), and the floor of a floor is the same: rounding could reach the next pixel.
    half = _TIE if kind == NEAREST else _HALF_Q
    # Samples lie at odd multiples of 1 / (2 * side) about the pixel's centre.
    a, b = 2 * i + 1 - (1 << bits), 2 * j + 1 - (1 << bits)
    c = (m[0] * x + m[1] * y + m[2] + ((m[0] * a + m[1] * b) >> (bits + 1)) + half) >> _Q
    r = (m[3] * x + m[4] * y + m[5] + ((m[3] * a + m[4] * b) >> (bits + 1)) + half) >> _Q
    return c, r


@njit(nogil=True, cache=True)
def span(start, step, count, size, kind):
    """First of the ``count`` output pixels of :func:`taps` that lies inside of a line, and the one after the last."""
    half = _TIE if kind == NEAREST else _HALF_Q
    first, end = 0, count
    while first < end and _outside((start + first * step + half) >> _Q, size):
        first += 1
    while end > first and _outside((start + (end - 1) * step + half) >> _Q, size):
        end -= 1
    return first, end


def make_sample(reach, kind=np.int32):
    """``sample(plane, c, r, border)`` on a compiled :func:`reach`; ``kind`` holds its value: uint32 for 16 bits."""

    def sample(plane, c, r, border):
        """Bilinear value, in 1/65536 of a grey value, at (c, r) in 1/256 of a pixel."""
        rows, columns = plane.shape
        wx, wy = c & 255, r & 255
        c, r = c >> 8, r >> 8
        left, right = reach(c, columns, border), reach(c + 1, columns, border)
        upper, lower = reach(r, rows, border), reach(r + 1, rows, border)
        top = np.int64(plane[upper, left]) * (256 - wx) + np.int64(plane[upper, right]) * wx
        low = np.int64(plane[lower, left]) * (256 - wx) + np.int64(plane[lower, right]) * wx
        return kind(top * (256 - wy) + low * wy)

    # One cache index a name: see rxrx_kernels.orient.site.
    sample.__qualname__ = f"{sample.__qualname__}_{kind.__name__}"
    return sample


def basis(count: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform cubic B-splines over ``nodes`` control points, at the centres of ``count`` pixels.

    (Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal Processing Magazine 1999, eq. 4.) The
    outermost points lie half a spacing outside of the image, so that every pixel has four.

    Returns
    -------
    first : (count,) int32
        First of the four control points.
    weights : (count, 4) int32
        In 1/1024; each row sums to exactly 1024.
    """
    if nodes < 4:
        raise ValueError(f"a cubic spline needs at least 4 control points, got {nodes}")
    place = (np.arange(count) + 0.5) / count * (nodes - 3)
    first = np.minimum(place.astype(np.int32), nodes - 4)
    t = place - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], -1) / 6
    weights = np.rint(weights * 1024).astype(np.int32)
    # A control point's own weight, the largest, takes what rounding left, so that an even displacement stays even.
    weights[np.arange(count), weights.argmax(-1)] += 1024 - weights.sum(-1, dtype=np.int32)
    return first.astype(np.int32), weights
