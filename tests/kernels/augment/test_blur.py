"""The blur in integers against SciPy's correlation in integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rxrx_kernels.augment.blur import MAX_SIGMA, blur_plane, gaussian
from scipy import ndimage


@given(st.integers(1, 90), st.integers(1, 90), st.floats(0, MAX_SIGMA), st.integers(0, 2**32 - 1))
def test_blur_is_scipys(rows, columns, sigma, seed):
    """Both passes exact, one rounding, mirrored borders, also where the kernel is wider than the image."""
    plane = np.random.default_rng(seed).integers(0, 256, (rows, columns), dtype=np.uint8)
    weights, out = gaussian(sigma), np.empty((rows, columns), np.uint8)
    total = plane.astype(np.int64)
    for axis in (0, 1):
        total = ndimage.correlate1d(total, weights.astype(np.int64), axis, mode="mirror")
    blur_plane(plane, weights, out)
    np.testing.assert_array_equal(out, (total + 2**15) >> 16)


@pytest.mark.parametrize("sigma", [0.5, 1, 2, 5])
def test_blur_is_nearly_a_gaussian(sigma):
    """Within two grey values of SciPy's own Gaussian filter cut off at the same place."""
    plane = np.random.default_rng(0).integers(0, 256, (80, 70), dtype=np.uint8)
    out = np.empty_like(plane)
    blur_plane(plane, gaussian(sigma), out)
    radius = int(np.ceil(3 * sigma))
    expected = ndimage.gaussian_filter(plane.astype(float), sigma, mode="mirror", radius=radius)
    assert np.abs(out - expected).max() < 2


@given(st.floats(0, MAX_SIGMA))
def test_weights(sigma):
    """Odd in number, symmetric, none below 0, with the sum of 256 exactly; sigma 0 leaves a plane as it is."""
    weights = gaussian(sigma)
    assert weights.size % 2 == 1
    assert weights.sum() == 256
    assert weights.min() >= 0
    assert weights.dtype == np.int32
    np.testing.assert_array_equal(weights, weights[::-1])
    middle = weights.size // 2
    # Falling from the middle, and nowhere far from the heights, or the sharp image would show through.
    assert (np.diff(weights[middle:]) <= 0).all()
    heights = np.exp(-0.5 * (np.arange(-middle, middle + 1) / max(sigma, 0.05)) ** 2)
    assert np.abs(weights - 256 * heights / heights.sum()).max() <= 2
    assert gaussian(0).tolist() == [256]


@pytest.mark.parametrize("sigma", [-0.1, MAX_SIGMA + 0.1, np.nan])
def test_sigma_out_of_range(sigma):
    """A deviation that the weights can't express is refused."""
    with pytest.raises(ValueError, match="sigma"):
        gaussian(sigma)
