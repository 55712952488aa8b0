"""What becomes of a sampled grey value: illumination, camera noise, a table.

One function a pixel, made here from the fused multiply-add of a device and compiled for it. Every operation rounds
once, in the order written, and a product that is added to something is written as a fused multiply-add, because a
compiler for GPUs would make one of it anyway: so all devices give the same bits.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["TABLE", "TABLE16", "make_noisy", "make_shaded", "make_toned", "make_toned16", "node"]

#: Entries of a table: one a grey value, and the last one again, so that the highest has a neighbour.
TABLE = 257
#: Entries of a table for 16-bit grey values: one a bin of :mod:`rxrx_kernels.histogram.uint16`.
TABLE16 = 4096


def node(position, nodes, shift):
    """Where a position lies in an illumination field's grid.

    ``position`` is in 1/256 of a pixel; ``nodes`` lie ``1 << shift`` pixels apart. Returns the node before it and the
    part of the way to the next one, float32.
    """
    bits = shift + 8
    position = min(max(position, 0), (nodes - 1) << bits)
    before = min(position >> bits, nodes - 2)
    return before, np.float32(position - (before << bits)) * (np.float32(1) / np.float32(1 << bits))


def make_shaded(fma):
    """``shaded(low, high, part)``: linear interpolation, ``low + part * (high - low)``."""

    def shaded(low, high, part):
        return fma(part, high - low, low)

    return shaded


def make_noisy(fma, most=255):
    """``noisy(value, normal, sigma, shot)``: a grey value with noise, within what a camera can give, 0 to ``most``."""
    most = np.float32(most)

    def noisy(value, normal, sigma, shot):
        deviation = np.float32(math.sqrt(fma(shot, max(value, np.float32(0)), sigma * sigma)))
        return min(max(fma(normal, deviation, value), np.float32(0)), most)

    return noisy


def make_toned(fma):
    """``toned(value, table, k)``: a grey value through row k of (C, 257) float32, linear between its entries."""

    def toned(value, table, k):
        value = min(max(value, np.float32(0)), np.float32(255))
        i = np.int32(value)
        return fma(value - np.float32(i), table[k, i + 1] - table[k, i], table[k, i])

    return toned


def make_toned16(fma):
    """``toned(value, table, k, shift)``: a grey value through row k of (C, 4096) float32.

    Entries belong to the middles of bins ``1 << shift`` grey values wide. Between them the table is linear, and it goes
    on as it begins and ends in the outer halves of the first and the last bin; beyond, grey values are clipped.
    """

    def toned(value, table, k, shift):
        value = min(max(value, np.float32(0)), np.float32((TABLE16 << shift) - 1))
        step = np.float32(1) / np.float32(1 << shift)
        # A bin's middle lies (1 - step) / 2 bins beyond its beginning.
        place = fma(value, step, np.float32(0.5) * step - np.float32(0.5))
        i = min(max(np.int32(place), np.int32(0)), np.int32(TABLE16 - 2))
        return fma(place - np.float32(i), table[k, i + 1] - table[k, i], table[k, i])

    return toned
