"""Undo the row filters of a PNG, many rows at a time.

A filtered byte needs its left, upper and upper-left neighbours already undone (PNG specification, 3rd edition, section
9), so neither a row nor a column can be done at once. An anti-diagonal can: byte ``t - r`` of row ``r``, for all rows
``r`` of a band, needs bytes ``t - 1 - r`` of rows ``r`` and ``r - 1``, which belong to earlier diagonals. One lane of a
vector register is one row, and a step moves every lane one byte to the right::

    row 0   . . . . . 5 . .          lane 0 of step 5: byte 5 of row 0
    row 1   . . . . 5 . . .          lane 1 of step 5: byte 4 of row 1
    row 2   . . . 5 . . . .          lane 2 of step 5: byte 3 of row 2

The left neighbour is the lane's own last result, the upper one is the last result of the lane above (a shift by one
lane), and the upper-left one is the upper one of the step before, so all three stay in registers.

A band is 16 rows, because shifting and transposing within 16 bytes is one instruction on every machine. A step of one
band waits for about nine instructions in a row while the processor could do four at a time, so eight bands go side by
side, each :func:`_lag` steps behind the one above it, by when the row that it needs is ready. A group of 128 rows is
handled in three passes through two buffers that stay in the cache::

    filtered --copy--> strip --transpose--> steps --wave, in place--> steps --transpose--> strip --copy--> out

*strip* holds 128 rows and the one above them with a margin of zeros at the left: what section 9.2 prescribes beyond the
edge. *steps* holds one vector a step. Reading a row of the strip one byte further left than the row above it is the
skew, so a transposition is of plain 16 x 16 tiles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from rxrx_kernels import simd as lanes

__all__ = ["PADDING", "Workspace", "unfilter", "workspace"]

_ROWS = lanes.LANES
_LINE = 64
#: Bytes at the left of a strip's rows: 15 lanes' skew of two bytes each, rounded up to a cache line.
_MARGIN = _LINE
#: Bytes that may be read, and are ignored, behind the last filtered row.
PADDING = lanes.LANES

_u = np.uint64
_STEP = _u(lanes.LANES)
_BAND = _u(lanes.BAND)


class Workspace(NamedTuple):
    """The buffers of one thread for images of one width; see :func:`workspace`."""

    strip: np.ndarray
    steps: np.ndarray
    masks: np.ndarray


@njit(nogil=True, cache=True)
def _lag(pixel_bytes):
    """Steps between a band and the next: its 15 rows' skew, and a few for the store to settle before it is loaded.

    Even, because :func:`_make_wave` takes two steps at a time.
    """
    return lanes.BAND * pixel_bytes + 4


def workspace(row_bytes: int, pixel_bytes: int) -> Workspace:
    """Buffers for images with rows of ``row_bytes`` bytes, about 200 KB at 512; not to be shared between threads.

    Returns
    -------
    Workspace
        ``strip`` (129, P) and ``steps`` (S, 128) and ``masks`` (4, 128), all uint8 and zero. Outside of the image they
        stay zero in use, which the kernels rely on.
    """
    walk = _walk(row_bytes, pixel_bytes)
    lag = _lag(pixel_bytes)
    # A copy of a row ends with a whole vector, and a transposition with a whole tile, behind the row's end.
    pitch = _up_to_line(_MARGIN + max(walk, row_bytes + _ROWS))
    return Workspace(
        _aligned_zeros(_ROWS + 1, pitch),
        _aligned_zeros(lag + walk + (lanes.BANDS - 1) * lag, _ROWS),
        _aligned_zeros(4, _ROWS),
    )


def _up_to_line(size: int) -> int:
    return -(-size // _LINE) * _LINE


def _aligned_zeros(rows: int, columns: int) -> np.ndarray:
    """On a cache line's edge: a vector across two lines costs twice, and NumPy aligns to 16 bytes only."""
    whole = np.zeros(rows * columns + _LINE, np.uint8)
    start = -whole.ctypes.data % _LINE
    return whole[start : start + rows * columns].reshape(rows, columns)


@njit(nogil=True, cache=True)
def _walk(row_bytes, pixel_bytes):
    """Steps of a band until its last row is through, in whole tiles."""
    return (row_bytes + (lanes.BAND - 1) * pixel_bytes + lanes.BAND - 1) // lanes.BAND * lanes.BAND


@njit(nogil=True, cache=True)
def _read_masks(filtered, first, rows, row_bytes, masks):
    """Which rows of a group use which neighbours: 4 if all are Paeth, 0 if not, -1 if one is of no known filter."""
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


def _make_wave(pixel_bytes):
    """The walk over the diagonals, for pixels of one or two bytes and with or without rows that are not Paeth.

    With two bytes a pixel the neighbours lie two steps back, so even and odd steps are two walks that take turns.
    """
    lag = _u(_lag.py_func(pixel_bytes))
    # The row above a band has its byte t ready `back` steps before the band's first lane takes it up.
    back = _STEP * (lag - _u((lanes.BAND - 1) * pixel_bytes))
    before = _u(lanes.BAND - 1)

    @njit(nogil=True, inline="always")
    def paeth_step(at, above, out, corner):
        up = lanes.shift_down(lanes.load_above(above - before, at - back), out)
        out = lanes.add(lanes.load(at), lanes.paeth(out, up, corner))
        lanes.store(at, out)
        return out, up

    @njit(nogil=True, inline="always")
    def any_step(at, above, out, corner, use_left, use_up, use_corner, use_mean):
        up = lanes.shift_down(lanes.load_above(above - before, at - back), out)
        left, masked = lanes.both(out, use_left), lanes.both(up, use_up)
        guess = lanes.choose(use_mean, lanes.mean(left, masked), lanes.paeth(left, masked, corner))
        out = lanes.add(lanes.load(at), guess)
        lanes.store(at, out)
        return out, lanes.both(up, use_corner)

    @njit(nogil=True, cache=True)
    def paeth_wave(steps, above, count):
        out0, corner0, out1, corner1 = lanes.zeros(), lanes.zeros(), lanes.zeros(), lanes.zeros()
        for k in range(0, count, 2):
            t = _u(k)
            at = steps + _STEP * t
            if pixel_bytes == 1:
                out0, corner0 = paeth_step(at, above + t, out0, corner0)
                out0, corner0 = paeth_step(at + _STEP, above + t + _u(1), out0, corner0)
            else:
                out0, corner0 = paeth_step(at, above + t, out0, corner0)
                out1, corner1 = paeth_step(at + _STEP, above + t + _u(1), out1, corner1)

    @njit(nogil=True, cache=True)
    def any_wave(steps, above, count, masks):
        left, up = lanes.load(masks), lanes.load(masks + _STEP)
        corner, mean = lanes.load(masks + _u(2) * _STEP), lanes.load(masks + _u(3) * _STEP)
        out0, corner0, out1, corner1 = lanes.zeros(), lanes.zeros(), lanes.zeros(), lanes.zeros()
        for k in range(0, count, 2):
            t = _u(k)
            at = steps + _STEP * t
            if pixel_bytes == 1:
                out0, corner0 = any_step(at, above + t, out0, corner0, left, up, corner, mean)
                out0, corner0 = any_step(at + _STEP, above + t + _u(1), out0, corner0, left, up, corner, mean)
            else:
                out0, corner0 = any_step(at, above + t, out0, corner0, left, up, corner, mean)
                out1, corner1 = any_step(at + _STEP, above + t + _u(1), out1, corner1, left, up, corner, mean)

    return paeth_wave, any_wave


_paeth_wave_8, _any_wave_8 = _make_wave(1)
_paeth_wave_16, _any_wave_16 = _make_wave(2)


@njit(nogil=True, cache=True)
def _fill(strip, source, row_bytes):
    """A filtered row into the strip, and up to a vector more."""
    for x in range(0, row_bytes, _ROWS):
        lanes.store(strip + _u(x), lanes.load(source + _u(x)))


@njit(nogil=True, cache=True)
def _empty(strip, row, out, y, pixel_bytes):
    """A row of the strip into the image, whose neighbours in memory may be another thread's."""
    row_bytes = out.shape[1]
    swap = pixel_bytes - 1
    if row_bytes < _ROWS:
        for x in range(row_bytes):
            out[y, x] = strip[row, _MARGIN + (x ^ swap)]
        return
    source = _u(strip.ctypes.data) + _u(row * strip.shape[1] + _MARGIN)
    target = _u(out.ctypes.data) + _u(y * row_bytes)
    for start in range(0, row_bytes, _ROWS):
        # The last vector ends with the row and overlaps the one before.
        x = _u(min(start, row_bytes - _ROWS))
        pixels = lanes.load(source + x)
        lanes.store(target + x, lanes.swapped(pixels) if swap else pixels)


@njit(nogil=True, cache=True)
def undo(filtered, out, pixel_bytes, strip, steps, masks):
    """:func:`unfilter` without its checks, for compiled callers. False if a row is of no known filter."""
    height, row_bytes = out.shape
    count = _walk(row_bytes, pixel_bytes)
    lag = _lag(pixel_bytes)
    pitch, skewed = _u(strip.shape[1]), _u(strip.shape[1] - pixel_bytes)
    first_row = _u(strip.ctypes.data) + pitch + _u(_MARGIN)
    first_step = _u(steps.ctypes.data) + _STEP * _u(lag)
    # From a band to the next: in the strip, and from its lanes at one step to the next one's, `lag` steps later.
    strip_band, step_band = _BAND * pitch, _STEP * _u(lag) + _BAND
    strip[0] = 0
    for y in range(0, height, _ROWS):
        rows = min(_ROWS, height - y)
        kind = _read_masks(filtered, y, rows, row_bytes, masks)
        if kind < 0:
            return False
        source = _u(filtered.ctypes.data) + _u(y * (row_bytes + 1) + 1)
        for r in range(rows):
            _fill(first_row + _u(r) * pitch, source + _u(r * (row_bytes + 1)), row_bytes)
        for t in range(0, count, lanes.BAND):
            lanes.transpose(first_row + _u(t), skewed, strip_band, first_step + _STEP * _u(t), _STEP, step_band)
        walk, above = count + (lanes.BANDS - 1) * lag, first_row - pitch
        if pixel_bytes == 1:
            if kind == 4:
                _paeth_wave_8(first_step, above, walk)
            else:
                _any_wave_8(first_step, above, walk, _u(masks.ctypes.data))
        else:
            if kind == 4:
                _paeth_wave_16(first_step, above, walk)
            else:
                _any_wave_16(first_step, above, walk, _u(masks.ctypes.data))
        for t in range(0, count, lanes.BAND):
            lanes.transpose(first_step + _STEP * _u(t), _STEP, step_band, first_row + _u(t), skewed, strip_band)
        for r in range(rows):
            _empty(strip, r + 1, out, y + r, pixel_bytes)
        _fill(above, first_row + _u(_ROWS - 1) * pitch, row_bytes)
    return True


def unfilter(filtered: np.ndarray, out: np.ndarray, work: Workspace | None = None) -> None:
    """Undo the filters of an image's rows (section 9.2). Releases the GIL.

    Parameters
    ----------
    filtered : (H * (1 + W * itemsize) + PADDING,) uint8
        Inflated image data: each row behind the byte that names its filter. What the last :data:`PADDING` bytes hold
        does not matter.
    out : (H, W) uint8 or uint16
        C-contiguous. Written in full; 16-bit samples, big-endian in a PNG, come out in this machine's order.
    work : Workspace, optional
        ``workspace(W * itemsize, itemsize)``, to be used by one thread at a time.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit, or a row is of no known filter.
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
        raise ValueError("work is of an image of another width")
    if not undo(filtered, out.view(np.uint8), size, *needed):
        raise ValueError("a row is of no known filter (its filter byte is above 4)")
