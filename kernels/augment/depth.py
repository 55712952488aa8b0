"""What the loop of :mod:`rxrx_kernels.augment.loop` does differently for pixels of 8 and of 16 bits.

Each function here is a name for compiled code. Numba picks its body from :mod:`rxrx_kernels.augment.uint8` or
:mod:`rxrx_kernels.augment.uint16` by the type of ``pixel``, which is ``np.uint8(0)`` or ``np.uint16(0)``, when it
compiles the loop. So one loop serves both depths, and no depth is tested at run time.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload
from rxrx_kernels.augment import uint8, uint16

__all__ = [
    "largest",
    "look_up_row",
    "plane_memory",
    "resample_row",
    "row_form",
    "row_memory",
    "sample_row",
    "transpose",
]


def largest(pixel: int) -> float:
    """Return the greatest grey value, float32."""
    raise NotImplementedError("for compiled code")


def plane_memory(pixel: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Allocate planes of the type of ``pixel``."""
    raise NotImplementedError("for compiled code")


def transpose(plane: np.ndarray, out: np.ndarray) -> None:
    """Write ``out[x, y] = plane[y, x]``; rows of ``out`` may be longer than columns of ``plane``."""
    raise NotImplementedError("for compiled code")


def row_memory(pixel: int, columns: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Allocate what the row functions write to.

    Parameters
    ----------
    pixel : uint8 or uint16
        Its type counts.
    columns : int
        Of a source row with everything beyond its ends that taps reach.
    width : int
        Of an output row.

    Returns
    -------
    line : array
        A source row between rows, for :func:`resample_row`.
    total : (width,) array
        Sums of samples, for :func:`sample_row`.
    """
    raise NotImplementedError("for compiled code")


def row_form(pixel: int, first: np.ndarray, weights: np.ndarray, columns: int, vectors: bool) -> tuple:
    """Return a number for how taps lie, and the tables of SIMD vectors (:func:`rxrx_kernels.augment.resample.grouped`).

    Parameters
    ----------
    pixel : uint8 or uint16
        Its type counts.
    first, weights : arrays
        Taps along a row, of :func:`rxrx_kernels.augment.warp.taps`.
    columns : int
        Of the source.
    vectors : bool
        Use the instructions that this processor may have.
    """
    raise NotImplementedError("for compiled code")


def resample_row(
    pixel: int, plane: int, shape: tuple[int, int], pitch: int, y: int, y_first: np.ndarray, y_weights: np.ndarray,
    border: int, line: np.ndarray, left: int, right: int, form: int, x_first: np.ndarray, x_weights: np.ndarray,
    bases: np.ndarray, lanes: np.ndarray, pairs: np.ndarray, values: np.ndarray,
) -> None:  # fmt: skip
    """Write grey values, float32, of output row ``y`` of a separable map to ``values``.

    Parameters
    ----------
    pixel : uint8 or uint16
        Its type counts.
    plane, pitch : int
        Address of the source plane, and pixels from row to row.
    shape : (rows, columns)
        Of the plane.
    y_first, y_weights, x_first, x_weights : arrays
        Taps, of :func:`rxrx_kernels.augment.warp.taps`, along the plane's columns and along its rows.
    border : int
    line : array
        Of :func:`row_memory`.
    left, right : int
        Pixels beyond a row's ends that taps reach.
    form, bases, lanes, pairs
        Of :func:`row_form`.
    """
    raise NotImplementedError("for compiled code")


def sample_row(
    pixel: int, plane: np.ndarray, c: np.ndarray, r: np.ndarray, inside: np.ndarray, lost: np.ndarray, border: int,
    total: np.ndarray, values: np.ndarray, vectors: bool,
) -> None:  # fmt: skip
    """Write grey values, float32, of an output row to ``values``: the mean of each pixel's samples.

    Parameters
    ----------
    pixel : uint8 or uint16
        Its type counts.
    plane : (H, W) array
    c, r, inside, lost : arrays
        Of :func:`rxrx_kernels.augment.rows.sample_positions`. With the border CONSTANT, lost pixels get any value.
    total : array
        Of :func:`row_memory`.
    """
    raise NotImplementedError("for compiled code")


def look_up_row(
    pixel: int, values: np.ndarray, width: int, table: np.ndarray, k: int, bin_log2: int, vectors: bool
) -> None:
    """Replace grey values by what row ``k`` of the lookup table says; ``values`` is a multiple of 16 long."""
    raise NotImplementedError("for compiled code")


@overload(largest)
def _largest(pixel):
    return (lambda pixel: np.float32(255)) if pixel == types.uint8 else (lambda pixel: np.float32(65535))


def _of(pixel):
    return uint8 if pixel == types.uint8 else uint16


@overload(plane_memory)
def _plane_memory(pixel, shape):
    if pixel == types.uint8:
        return lambda pixel, shape: np.empty(shape, np.uint8)
    return lambda pixel, shape: np.empty(shape, np.uint16)


@overload(transpose)
def _transpose(plane, out):
    return _of(plane.dtype).transpose


@overload(row_memory)
def _row_memory(pixel, columns, width):
    return _of(pixel).row_memory


@overload(row_form)
def _row_form(pixel, first, weights, columns, vectors):
    return _of(pixel).row_form


@overload(resample_row, inline="always")
def _resample_row(
    pixel, plane, shape, pitch, y, y_first, y_weights, border, line, left, right, form, x_first, x_weights, bases,
    lanes, pairs, values,
):  # fmt: skip
    return _of(pixel).resample_row


@overload(sample_row)
def _sample_row(pixel, plane, c, r, inside, lost, border, total, values, vectors):
    return _of(pixel).sample_row


@overload(look_up_row, inline="always")
def _look_up_row(pixel, values, width, table, k, bin_log2, vectors):
    return _of(pixel).look_up_row
