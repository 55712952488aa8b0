"""Histograms and their statistics against NumPy on the pixels themselves."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rxrx_kernels.histogram import uint8 as moments

stacks = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=40))


@settings(max_examples=60, deadline=None)
@given(stacks)
def test_histogram_counts_every_pixel(stack):
    """As numpy.bincount, channel by channel, also for odd widths and any strides."""
    expected = np.stack([np.bincount(plane.ravel(), minlength=256) for plane in stack])
    np.testing.assert_array_equal(moments.histogram(stack), expected)
    np.testing.assert_array_equal(moments.histogram(stack[:, ::-1, ::-1]), expected)


@settings(max_examples=60, deadline=None)
@given(stacks, st.floats(0, 1))
def test_statistics_are_those_of_the_pixels(stack, q):
    """Mean, std, any quantile and MAD from 256 counts equal NumPy's from the pixels."""
    counts = moments.histogram(stack)
    pixels = stack.reshape(len(stack), -1).astype(np.float64)
    mean, std = moments.mean_std(counts)
    np.testing.assert_allclose(mean, pixels.mean(1), rtol=1e-13)
    np.testing.assert_allclose(std, pixels.std(1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.quantile(counts, q), np.quantile(pixels, q, axis=1), rtol=1e-9, atol=1e-9)
    deviation = np.abs(pixels - np.median(pixels, axis=1, keepdims=True))
    np.testing.assert_array_equal(moments.mad(counts), np.median(deviation, axis=1))


def test_counts_add_up():
    """Statistics of parts added are those of the whole, bit for bit, in any order."""
    parts = np.random.default_rng(0).integers(0, 256, (5, 3, 17, 19), dtype=np.uint8)
    counts = [moments.histogram(part) for part in parts]
    whole = moments.histogram(np.concatenate(list(parts.transpose(0, 1, 2, 3)), axis=1))
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3]):
        total = sum(counts[i] for i in order)
        np.testing.assert_array_equal(total, whole)
        assert (np.array(moments.mean_std(total)) == np.array(moments.mean_std(whole))).all()


def test_a_plate_of_pixels_does_not_overflow():
    """The counts of the whole data set in one histogram still give an exact mean and deviation."""
    counts = np.zeros(256, np.int64)
    counts[[0, 255]] = 125_510 * 512 * 512 // 2
    mean, std = moments.mean_std(counts)
    assert (mean, std) == (127.5, 127.5)
    counts[:] = 0
    counts[200] = 125_510 * 512 * 512
    assert moments.mean_std(counts) == (200.0, 0.0)


def test_nothing_counted_is_nan():
    """An empty histogram has no statistics, and says so without a warning."""
    counts = np.zeros((2, 256), np.int64)
    for value in (*moments.mean_std(counts), moments.quantile(counts, 0.5), moments.mad(counts)):
        assert np.isnan(value).all()
