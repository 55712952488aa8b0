"""Photometric operations on one sampled grey value: flat field, camera noise, lookup table.

Each function is made from a device's fused multiply-add and compiled for that device. Every operation rounds once, in
the order written. A product that is added to something is written as a fused multiply-add, because GPU compilers would
contract it anyway. So all devices give the same bits.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["LUT8", "LUT16", "make_interpolate", "make_look_up8", "make_look_up16", "make_noisy", "node"]

#: Entries of a lookup table for 8-bit pixels: one a grey value, and the last one again as the highest one's neighbour.
LUT8 = 257
#: Entries of a lookup table for 16-bit pixels: one a bin of :mod:`rxrx_kernels.histogram.uint16`.
LUT16 = 4096


def node(position, nodes, spacing_log2):
    """Where a position lies between the nodes of a flat field.

    Parameters
    ----------
    position : int
        In 1/256 of a pixel.
    nodes : int
        Along this axis; they lie ``1 << spacing_log2`` pixels apart.

    Returns
    -------
    before : int
        The node before the position.
    part : float32
        Of the way to the next node, 0 to 1.
    """
    bits = spacing_log2 + 8
    position = min(max(position, 0), (nodes - 1) << bits)
    before = min(position >> bits, nodes - 2)
    return before, np.float32(position - (before << bits)) * (np.float32(1) / np.float32(1 << bits))


def make_interpolate(fma):
    """Return ``interpolate(low, high, part)``: ``low + part * (high - low)``."""

    def interpolate(low, high, part):
        return fma(part, high - low, low)

    return interpolate


def make_noisy(fma):
    """Return ``noisy(value, normal, sigma, shot, largest)``: a grey value with noise, cut to 0 to ``largest``.

    ``normal`` is a standard normal number; the variance is ``sigma^2 + shot * value``.
    """

    def noisy(value, normal, sigma, shot, largest):
        deviation = np.float32(math.sqrt(fma(shot, max(value, np.float32(0)), sigma * sigma)))
        return min(max(fma(normal, deviation, value), np.float32(0)), largest)

    return noisy


def make_look_up8(fma):
    """Return ``look_up(value, table, k, bin_log2)``: a grey value through row k of (C, 257) float32.

    The table is linear between its entries. ``bin_log2`` has no meaning for 8-bit pixels.
    """

    def look_up(value, table, k, bin_log2):
        value = min(max(value, np.float32(0)), np.float32(255))
        i = np.int32(value)
        return fma(value - np.float32(i), table[k, i + 1] - table[k, i], table[k, i])

    return look_up


def make_look_up16(fma):
    """Return ``look_up(value, table, k, bin_log2)``: a grey value through row k of (C, 4096) float32.

    Entries belong to the middles of bins ``1 << bin_log2`` grey values wide. The table is linear between the middles,
    and in the outer halves of the first and the last bin it continues as a straight line. Grey values beyond the bins
    are clipped.
    """

    def look_up(value, table, k, bin_log2):
        value = min(max(value, np.float32(0)), np.float32((LUT16 << bin_log2) - 1))
        step = np.float32(1) / np.float32(1 << bin_log2)
        # A bin's middle lies (1 - step) / 2 bins beyond its beginning.
        place = fma(value, step, np.float32(0.5) * step - np.float32(0.5))
        i = min(max(np.int32(place), np.int32(0)), np.int32(LUT16 - 2))
        return fma(place - np.float32(i), table[k, i + 1] - table[k, i], table[k, i])

    return look_up
