"""Statistics of 16-bit pixels against NumPy and Python's integers on the pixels themselves."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rxrx_kernels.histogram import uint8 as moments
from rxrx_kernels.histogram.uint16 import BINS16, WIDEST, Histogram, coarsened, histogram16

stacks = st.tuples(
    st.integers(1, 4), st.integers(1, 30), st.integers(1, 30), st.integers(0, 16), st.integers(0, 99)
).map(lambda t: np.random.default_rng(t[4]).integers(0, 1 << t[3], t[:3], dtype=np.uint16, endpoint=t[3] < 16))


@settings(max_examples=80)
@given(stacks)
def test_every_pixel_is_in_its_bin(stack):
    """Counts by the narrowest bins that hold each channel; pixels, sum, squares and extremes exact; any strides."""
    for view in (stack, stack[:, ::-1, ::2]):
        found = histogram16(view)
        for k, plane in enumerate(view):
            values = plane.ravel().astype(object)
            shift = int(found.shift[k])
            assert shift == max(0, int(plane.max()).bit_length() - 12)
            expected = np.bincount(plane.ravel() >> shift, minlength=BINS16)
            np.testing.assert_array_equal(found.counts[k], expected)
            n, total, high, low = found.sums[k].tolist()
            assert (n, total, (high << 32) + low) == (len(values), sum(values), sum(v * v for v in values))
            assert (found.least[k], found.most[k]) == (min(values), max(values))


@settings(max_examples=80)
@given(stacks, st.floats(0, 1))
def test_statistics_are_those_of_the_pixels(stack, q):
    """Mean and std as float64 can hold them; quantiles exact below 4096, else within half a bin, the MAD within one."""
    found, pixels = histogram16(stack), stack.reshape(len(stack), -1).astype(np.float64)
    mean, std = found.mean_std()
    np.testing.assert_allclose(mean, pixels.mean(1), rtol=1e-14)
    np.testing.assert_allclose(std, pixels.std(1), rtol=1e-12, atol=1e-9)
    half = ((1 << found.shift) - 1) / 2
    median = np.median(pixels, axis=1, keepdims=True)
    wanted = np.quantile(pixels, q, axis=1)
    assert (np.abs(found.quantile(q) - wanted) <= half + 1e-9 * (1 + wanted)).all()
    assert (np.abs(found.mad() - np.median(np.abs(pixels - median), axis=1)) <= 2 * half).all()


def test_sums_of_any_size_are_exact():
    """A screen of 10^12 pixels at the top of the range: no overflow, and a deviation of exactly one half."""
    n = 10**12
    squares = n // 2 * (65534**2 + 65535**2)
    sums = np.array([n, n // 2 * (65534 + 65535), squares >> 32, squares & 0xFFFFFFFF])
    found = Histogram(np.zeros(BINS16, np.int64), np.array(WIDEST), sums)
    assert tuple(float(part) for part in found.mean_std()) == (65534.5, 0.5)


def test_sums_add_up_to_the_same_bits():
    """Mean and std of parts, added in any order, are the correctly rounded ones of all pixels."""
    parts = np.random.default_rng(0).integers(0, 65536, (5, 2, 9, 11), dtype=np.uint16)
    sums = [histogram16(part).sums for part in parts]
    pixels = parts.transpose(1, 0, 2, 3).reshape(2, -1).astype(object)
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3]):
        added = Histogram(np.zeros((2, BINS16), np.int64), np.full(2, WIDEST), sum(sums[i] for i in order))
        for k in range(2):
            n, total, squares = len(pixels[k]), sum(pixels[k]), sum(v * v for v in pixels[k])
            mean, std = (part[k] for part in added.mean_std())
            assert mean == total / n
            assert std == math.sqrt((n * squares - total**2) / n**2)


def test_wider_bins_are_neighbours_together():
    """Coarsening is the histogram of the shifted pixels, row by row from its own width, and never goes back."""
    rng = np.random.default_rng(1)
    stack = np.stack([rng.integers(0, top, (20, 20), dtype=np.uint16) for top in (4096, 8192, 65535)])
    found = histogram16(stack)
    assert found.shift.tolist() == [0, 1, 4]
    wide = coarsened(found.counts, found.shift, 4)
    for plane, counts in zip(stack, wide):
        np.testing.assert_array_equal(counts, np.bincount(plane.ravel() >> 4, minlength=BINS16))
    assert coarsened(found.counts, np.array([4, 4, 4]), 4) is found.counts
    with pytest.raises(ValueError, match="narrower"):
        coarsened(found.counts, found.shift, 1)


def test_8_bit_counts_are_a_histogram_too():
    """Histogram.of gives the numbers of the 8-bit functions, to the bit."""
    counts = moments.histogram(np.random.default_rng(2).integers(0, 256, (3, 17, 19), dtype=np.uint8))
    found = Histogram.of(counts)
    np.testing.assert_array_equal(found.mean_std(), moments.mean_std(counts))
    np.testing.assert_array_equal(found.quantile(0.3), moments.quantile(counts, 0.3))
    np.testing.assert_array_equal(found.mad(), moments.mad(counts))
    np.testing.assert_array_equal(found.middles()[0], np.arange(256))
    np.testing.assert_array_equal(found.bins(found.middles()), found.middles())


def test_nothing_counted_is_nan():
    """An empty histogram has no statistics, and says so without a warning."""
    empty = Histogram(np.zeros((2, BINS16), np.int64), np.zeros(2, np.int64), np.zeros((2, 4), np.int64))
    for value in (*empty.mean_std(), empty.quantile(0.5), empty.mad()):
        assert np.isnan(value).all()


def test_other_arrays_are_refused():
    """Another depth, another number of axes, no pixels."""
    for stack in (np.zeros((1, 4, 4), np.uint8), np.zeros((4, 4), np.uint16), np.zeros((1, 0, 4), np.uint16)):
        with pytest.raises(ValueError, match="uint16"):
            histogram16(stack)
    sums = moments.block_sums(np.full((1, 40, 40), 65535, np.uint16), 5)
    assert sums.tolist() == [[[65535 * 1024, 65535 * 256], [65535 * 256, 65535 * 64]]]
