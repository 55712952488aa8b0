"""The camera's noise: its distribution, and that it is a function of key and pixel alone."""

import numpy as np
import pytest
from augment_model import augmentation, normals
from numba import njit
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.noise import NORMAL, scramble
from rxrx_kernels.augment.site import augment_site
from scipy import stats

SHAPE = (1, 512, 512)


def noisy(value, sigma, shot, key=(1, 2), **fields):
    """A plane of one grey value with noise."""
    out = np.empty(SHAPE, np.float32)
    a = augmentation(1, noise=[[sigma, shot]], key=key, **fields)
    augment_site(np.full(SHAPE, value, np.uint8), out, a)
    return out[0]


def test_normal_numbers():
    """4,096 quantiles of the normal distribution: mean 0, variance 1, third moment 0, fourth nearly 3."""
    assert NORMAL.dtype == np.float32
    assert NORMAL.shape == (4096,)
    assert (np.diff(NORMAL) > 0).all()
    np.testing.assert_array_equal(NORMAL, -NORMAL[::-1])
    assert abs(NORMAL.astype(float).var() - 1) < 1e-6
    np.testing.assert_allclose(NORMAL, stats.norm.ppf((np.arange(4096) + 0.5) / 4096), rtol=4e-4)
    assert abs((NORMAL.astype(float) ** 4).mean() - 3) < 0.05


def test_scramble_is_the_documented_hash():
    """Against Wellons' mixer in NumPy's 64-bit integers, and each place of the table as often as the others."""
    compiled = njit(scramble)
    words, low, high = np.arange(1 << 16), 0xDEADBEEF, 0x01234567
    got = np.array([compiled(np.uint32(w), np.uint32(low), np.uint32(high)) for w in words])
    np.testing.assert_array_equal(NORMAL[got], normals(1 << 16, low, high))
    counts = np.bincount(got, minlength=4096)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("sigma", "shot"), [(2, 0), (0, 0.5), (3, 0.25), (0, 0)])
def test_mean_and_variance(sigma, shot):
    """Variance sigma^2 + shot * value about the value, each within five standard errors, and normally distributed."""
    difference = noisy(120, sigma, shot) - 120.0
    variance, count = sigma**2 + shot * 120, difference.size
    if variance == 0:
        assert (difference == 0).all()
        return
    assert abs(difference.mean()) < 5 * (variance / count) ** 0.5
    assert abs(difference.var() / variance - 1) < 5 * (2 / count) ** 0.5
    assert stats.kstest(difference.ravel() / variance**0.5, "norm").pvalue > 1e-3


def test_neighbours_are_independent():
    """No correlation between neighbouring pixels, rows, channels, keys, or with the eraser's noise."""
    first = noisy(128, 4, 0) - 128
    others = [np.roll(first, 1, 0), np.roll(first, 1, 1), np.roll(first, 7, 1), np.roll(first, 512 // 2, 1)]
    others += [noisy(128, 4, 0, key) - 128 for key in ((1, 3), (2, 2), (2, 1), (1 ^ 1 << 31, 2), (1, 2 ^ 1 << 31))]
    others += [noisy(128, 0, 0, erase=[0, 1], box=[0, 512, 0, 512])]
    for other in others:
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 5 / first.size**0.5
        # A hash could keep squares in step where the values are not.
        assert abs(np.corrcoef(first.ravel() ** 2, other.ravel() ** 2)[0, 1]) < 5 / first.size**0.5


def test_noise_belongs_to_the_output_pixel():
    """The same key gives the same noise, whatever the geometry, and another channel gives other noise."""
    np.testing.assert_array_equal(noisy(90, 3, 0.1), noisy(90, 3, 0.1))
    flipped = warp.fixed([[-1, 0, 511], [0, 1, 0]])
    np.testing.assert_array_equal(noisy(90, 3, 0.1), noisy(90, 3, 0.1, matrix=flipped))
    out = np.empty((2, 512, 512), np.float32)
    a = augmentation(2, order=[0, 0], noise=[[4, 0]] * 2, key=[1, 2])
    augment_site(np.full(SHAPE, 128, np.uint8), out, a)
    assert abs(np.corrcoef(out[0].ravel(), out[1].ravel())[0, 1]) < 0.01
    np.testing.assert_array_equal(out[0], noisy(128, 4, 0))


def test_a_camera_has_limits():
    """Noise does not leave what eight bits hold."""
    assert noisy(2, 9, 0).min() == 0
    assert noisy(253, 9, 0).max() == 255
