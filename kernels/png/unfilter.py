"""Undo the row filters of a PNG, many rows at a time.

A filtered byte needs its left, upper and upper-left neighbours to be undone first (PNG specification, 3rd edition,
section 9). So neither a row nor a column can be done at once, but an anti-diagonal can: byte ``t - r`` of row ``r``,
for all rows ``r`` of a band, needs bytes ``t - 1 - r`` of rows ``r`` and ``r - 1``, which lie on earlier diagonals.
Each element of a SIMD vector is one row, and every diagonal moves all elements one byte to the right::

    row 0   . . . . . 5 . .          element 0 on diagonal 5: byte 5 of row 0
    row 1   . . . . 5 . . .          element 1 on diagonal 5: byte 4 of row 1
    row 2   . . . 5 . . . .          element 2 on diagonal 5: byte 3 of row 2

The left neighbour is the element's own last result. The upper one is the last result of the element above (the vector
moved by one element). The upper-left one is the upper one of the diagonal before. All three stay in registers.

A band has 16 rows, because every machine moves and transposes 16 bytes in one instruction. On one diagonal, a band
waits for about nine dependent instructions, while the processor could run four at a time. So eight bands are done side
by side. Each is :func:`_lag` diagonals behind the band above it, so the row that it needs is ready. A group of 128 rows
takes three passes through two buffers that stay in the cache::

    filtered --copy--> strip --transpose--> diagonals --undo in place--> diagonals --transpose--> strip --copy--> out

*strip* holds 128 rows, the row above them, and a left margin of zeros: section 9.2 prescribes zeros outside of the
image. *diagonals* holds one vector a diagonal. Each row of the strip is read one byte further left than the row above
it, so a transposition is of plain 16 x 16 tiles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from rxrx_kernels import simd

__all__ = ["PADDING", "Workspace", "undo", "unfilter", "workspace"]

_ROWS = simd.VECTOR_BYTES
_LINE = 64
#: Bytes to the left of a strip's rows: 15 rows are each up to two bytes further left, rounded up to a cache line.
_MARGIN = _LINE
#: Bytes behind the last filtered row that are read and ignored.
PADDING = simd.VECTOR_BYTES

_u = np.uint64
_VECTOR = _u(simd.VECTOR_BYTES)
_BAND = _u(simd.BLOCK_BYTES)
# The last row of a band.
_LAST = _u(simd.BLOCK_BYTES - 1)


class Workspace(NamedTuple):
    """The buffers of one thread for images of one width; see :func:`workspace`."""

    strip: np.ndarray
    diagonals: np.ndarray
    masks: np.ndarray


@njit(nogil=True, cache=True)
def _lag(pixel_bytes: int) -> int:
    """Count the diagonals between a band and the next: 15 rows' offset, and a few for the store to reach the load.

    Even, because :func:`_make_wave` does two diagonals at a time.
    """
    return simd.BLOCK_BYTES * pixel_bytes + 4


def workspace(row_bytes: int, pixel_bytes: int) -> Workspace:
    """Allocate the buffers for images of one width, about 200 KB at 512 pixels of 8 bits.

    Threads must not share them.

    Parameters
    ----------
    row_bytes : int
        Bytes of a row: width times bytes of a pixel.
    pixel_bytes : int
        1 or 2.

    Returns
    -------
    Workspace
        ``strip`` (129, P), ``diagonals`` (D, 128) and ``masks`` (4, 128), all uint8 and zero. The parts outside of the
        image stay zero, and the kernels rely on it.
    """
    walk = _walk(row_bytes, pixel_bytes)
    lag = _lag(pixel_bytes)
    # A copy of a row ends with a whole vector, and a transposition with a whole tile, behind the row's end.
    pitch = _up_to_line(_MARGIN + max(walk, row_bytes + _ROWS))
    return Workspace(
        _aligned_zeros(_ROWS + 1, pitch),
        _aligned_zeros(lag + walk + (simd.BLOCKS - 1) * lag, _ROWS),
        _aligned_zeros(4, _ROWS),
    )


def _up_to_line(size: int) -> int:
    return -(-size // _LINE) * _LINE


def _aligned_zeros(rows: int, columns: int) -> np.ndarray:
    """Allocate (rows, columns) uint8 zeros that begin at a cache line.

    A vector across two cache lines costs twice as much, and NumPy aligns to 16 bytes only.
    """
    whole = np.zeros(rows * columns + _LINE, np.uint8)
    start = -whole.ctypes.data % _LINE
    return whole[start : start + rows * columns].reshape(rows, columns)


@njit(nogil=True, cache=True)
def _walk(row_bytes: int, pixel_bytes: int) -> int:
    """Count a band's diagonals until its last row is through, in whole tiles."""
    return (
        (row_bytes + (simd.BLOCK_BYTES - 1) * pixel_bytes + simd.BLOCK_BYTES - 1) // simd.BLOCK_BYTES * simd.BLOCK_BYTES
    )


@njit(nogil=True, cache=True)
def _read_masks(filtered: np.ndarray, first: int, rows: int, row_bytes: int, masks: np.ndarray) -> int:
    """Fill the masks that say which rows of a group use which neighbours.

    Returns 4 if all rows are of the Paeth filter, 0 if not, -1 if a filter is unknown.
    """
    result = 4
    for r in range(rows):
        kind = filtered[(first + r) * (row_bytes + 1)]
        if kind > 4:
            return -1
        if kind != 4:
            result = 0
        # Sub is the Paeth predictor of (left, 0, 0), Up that of (0, up, 0), and None that of (0, 0, 0).
        masks[0, r] = 255 if kind == 1 or kind >= 3 else 0
        masks[1, r] = 255 if kind >= 2 else 0
        masks[2, r] = 255 if kind == 4 else 0
        masks[3, r] = 255 if kind == 3 else 0
    return result


@njit(nogil=True, inline="always")
def _paeth_step(at, back, above, out, corner):
    """Undo one diagonal of Paeth rows at ``at``: (results, upper neighbours).

    ``above`` is the byte above the first row, and ``back`` bytes before ``at`` lie the rows above the other bands.
    """
    up = simd.shift_elements(simd.load_above(above - _LAST, at - back), out)
    out = simd.add(simd.load(at), simd.paeth(out, up, corner))
    simd.store(at, out)
    return out, up


@njit(nogil=True, inline="always")
def _any_step(at, back, above, out, corner, use_left, use_up, use_corner, use_average):
    """Undo one diagonal of rows of any filter; the masks say what each uses."""
    up = simd.shift_elements(simd.load_above(above - _LAST, at - back), out)
    left, masked = simd.bitwise_and(out, use_left), simd.bitwise_and(up, use_up)
    guess = simd.select(use_average, simd.average(left, masked), simd.paeth(left, masked, corner))
    out = simd.add(simd.load(at), guess)
    simd.store(at, out)
    return out, simd.bitwise_and(up, use_corner)


def _make_wave(pixel_bytes: int):  # type: ignore[no-untyped-def]  # compiled functions have no type of their own
    """Make the loops over the diagonals for pixels of one or two bytes: (all rows Paeth, any filters).

    With two bytes a pixel the neighbours are two diagonals back. So even and odd diagonals are independent, and take
    turns.
    """
    lag = _u(_lag.py_func(pixel_bytes))
    # The row above a band has byte t ready `back` bytes before the band's first row needs it.
    back = _VECTOR * (lag - _u((simd.BLOCK_BYTES - 1) * pixel_bytes))

    def paeth_wave(diagonals: int, above: int, count: int) -> None:
        out0, corner0, out1, corner1 = simd.zeros(), simd.zeros(), simd.zeros(), simd.zeros()
        for k in range(0, count, 2):
            t = _u(k)
            at = diagonals + _VECTOR * t
            if pixel_bytes == 1:
                out0, corner0 = _paeth_step(at, back, above + t, out0, corner0)
                out0, corner0 = _paeth_step(at + _VECTOR, back, above + t + _u(1), out0, corner0)
            else:
                out0, corner0 = _paeth_step(at, back, above + t, out0, corner0)
                out1, corner1 = _paeth_step(at + _VECTOR, back, above + t + _u(1), out1, corner1)

    def any_wave(diagonals: int, above: int, count: int, masks: int) -> None:
        left, up = simd.load(masks), simd.load(masks + _VECTOR)
        corner, mean = simd.load(masks + _u(2) * _VECTOR), simd.load(masks + _u(3) * _VECTOR)
        out0, corner0, out1, corner1 = simd.zeros(), simd.zeros(), simd.zeros(), simd.zeros()
        for k in range(0, count, 2):
            t = _u(k)
            at = diagonals + _VECTOR * t
            if pixel_bytes == 1:
                out0, corner0 = _any_step(at, back, above + t, out0, corner0, left, up, corner, mean)
                out0, corner0 = _any_step(at + _VECTOR, back, above + t + _u(1), out0, corner0, left, up, corner, mean)
            else:
                out0, corner0 = _any_step(at, back, above + t, out0, corner0, left, up, corner, mean)
                out1, corner1 = _any_step(at + _VECTOR, back, above + t + _u(1), out1, corner1, left, up, corner, mean)

    for wave in (paeth_wave, any_wave):
        # One cache index a name: see rxrx_kernels.orient.site.
        wave.__qualname__ = f"{wave.__qualname__}_{8 * pixel_bytes}"
    return njit(nogil=True, cache=True)(paeth_wave), njit(nogil=True, cache=True)(any_wave)


_paeth_wave_8, _any_wave_8 = _make_wave(1)
_paeth_wave_16, _any_wave_16 = _make_wave(2)


@njit(nogil=True, cache=True)
def _fill(strip: int, source: int, row_bytes: int) -> None:
    """Copy a filtered row into the strip, and up to a vector more."""
    for x in range(0, row_bytes, _ROWS):
        simd.store(strip + _u(x), simd.load(source + _u(x)))


@njit(nogil=True, cache=True)
def _empty(strip: np.ndarray, row: int, out: np.ndarray, y: int, pixel_bytes: int) -> None:
    """Copy a row of the strip into the image, and nothing around it: its neighbours may be another thread's."""
    row_bytes = out.shape[1]
    swap = pixel_bytes - 1
    if row_bytes < _ROWS:
        for i in range(row_bytes):
            out[y, i] = strip[row, _MARGIN + (i ^ swap)]
        return
    source = _u(strip.ctypes.data) + _u(row * strip.shape[1] + _MARGIN)
    target = _u(out.ctypes.data) + _u(y * row_bytes)
    for start in range(0, row_bytes, _ROWS):
        # The last vector ends with the row and overlaps the one before.
        x = _u(min(start, row_bytes - _ROWS))
        pixels = simd.load(source + x)
        simd.store(target + x, simd.swap_pairs(pixels) if swap else pixels)


@njit(nogil=True, cache=True)
def undo(
    filtered: np.ndarray,
    out: np.ndarray,
    pixel_bytes: int,
    strip: np.ndarray,
    diagonals: np.ndarray,
    masks: np.ndarray,
) -> bool:
    """Do the work of :func:`unfilter` without its checks, for compiled callers.

    Parameters
    ----------
    filtered : (H * (1 + row bytes) + PADDING,) uint8
    out : (H, row bytes) uint8
        The image's bytes.
    pixel_bytes : int
    strip, diagonals, masks : numpy.ndarray
        A :class:`Workspace`.

    Returns
    -------
    bool
        False if a row is of an unknown filter; what was written is then undefined.
    """
    height, row_bytes = out.shape
    count = _walk(row_bytes, pixel_bytes)
    lag = _lag(pixel_bytes)
    pitch, skewed = _u(strip.shape[1]), _u(strip.shape[1] - pixel_bytes)
    first_row = _u(strip.ctypes.data) + pitch + _u(_MARGIN)
    first_diagonal = _u(diagonals.ctypes.data) + _VECTOR * _u(lag)
    # From a band to the next: in the strip; and from its bytes on one diagonal to the next band's, `lag` later.
    strip_band, diagonal_band = _BAND * pitch, _VECTOR * _u(lag) + _BAND
    strip[0] = 0
    for y in range(0, height, _ROWS):
        rows = min(_ROWS, height - y)
        kind = _read_masks(filtered, y, rows, row_bytes, masks)
        if kind < 0:
            return False
        source = _u(filtered.ctypes.data) + _u(y * (row_bytes + 1) + 1)
        for r in range(rows):
            _fill(first_row + _u(r) * pitch, source + _u(r * (row_bytes + 1)), row_bytes)
        for t in range(0, count, simd.BLOCK_BYTES):
            simd.transpose(
                first_row + _u(t), skewed, strip_band, first_diagonal + _VECTOR * _u(t), _VECTOR, diagonal_band
            )
        walk, above = count + (simd.BLOCKS - 1) * lag, first_row - pitch
        if pixel_bytes == 1:
            if kind == 4:
                _paeth_wave_8(first_diagonal, above, walk)
            else:
                _any_wave_8(first_diagonal, above, walk, _u(masks.ctypes.data))
        else:
            if kind == 4:
                _paeth_wave_16(first_diagonal, above, walk)
            else:
                _any_wave_16(first_diagonal, above, walk, _u(masks.ctypes.data))
        for t in range(0, count, simd.BLOCK_BYTES):
            simd.transpose(
                first_diagonal + _VECTOR * _u(t), _VECTOR, diagonal_band, first_row + _u(t), skewed, strip_band
            )
        for r in range(rows):
            _empty(strip, r + 1, out, y + r, pixel_bytes)
        _fill(above, first_row + _u(_ROWS - 1) * pitch, row_bytes)
    return True


def unfilter(filtered: np.ndarray, out: np.ndarray, work: Workspace | None = None) -> None:
    """Undo the filters of an image's rows (section 9.2). Releases the GIL.

    Parameters
    ----------
    filtered : (H * (1 + W * itemsize) + PADDING,) uint8
        Inflated image data: each row behind the byte that names its filter. The last :data:`PADDING` bytes may hold
        anything.
    out : (H, W) uint8 or uint16
        C-contiguous; written in full. A PNG holds 16-bit samples as big-endian; they are written in this machine's byte
        order.
    work : Workspace, optional
        ``workspace(W * itemsize, itemsize)``, used by one thread at a time. Allocated if missing.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit, or a row is of an unknown filter.
    """
    if out.ndim != 2 or out.dtype not in (np.uint8, np.uint16) or not out.flags.c_contiguous or not out.size:
        raise ValueError(f"out must be (H, W) uint8 or uint16, C-contiguous and not empty, got {out.dtype}{out.shape}")
    size = out.itemsize
    height, row_bytes = out.shape[0], out.shape[1] * size
    if (
        filtered.shape != (height * (1 + row_bytes) + PADDING,)
        or filtered.dtype != np.uint8
        or not filtered.flags.c_contiguous
    ):
        raise ValueError(
            f"filtered must be ({height * (1 + row_bytes) + PADDING},) uint8 for out {out.shape}, "
            f"got {filtered.dtype}{filtered.shape}"
        )
    needed = workspace(row_bytes, size) if work is None else work
    if work is not None and [a.shape for a in work] != [a.shape for a in workspace(row_bytes, size)]:
        raise ValueError("work is for images of another width")
    if not undo(filtered, out.view(np.uint8), size, *needed):
        raise ValueError("a row has an unknown filter (its filter byte is above 4)")
