"""Geometry: tables of taps, borders, codes and splines against exact arithmetic, SciPy and Pillow."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.site import augment_site, plain
from rxrx_kernels.orient.site import orient_site, source
from scipy.interpolate import BSpline

ONE = 1 << warp.FRACTION


def scaled(size, count):
    """Start and step of a resize of ``size`` pixels to ``count``."""
    step = ONE * size // count
    return (step - ONE) // 2, step


def of_code(code, rows, columns):
    """The map of a geometry code: three pixels say where an affine map leads."""
    (r0, c0), (rx, cx), (ry, cy) = (source(code, y, x, rows, columns) for y, x in ((0, 0), (0, 1), (1, 0)))
    return warp.fixed(np.array([[cx - c0, cy - c0, c0], [rx - r0, ry - r0, r0]]))


def test_fixed_rounds_to_the_nearest_and_refuses_the_rest():
    """Coefficients have 32 fractional bits; what is not finite or beyond a million pixels is refused."""
    m = warp.fixed([[1, -0.5, 2.0**-33 * 1.5], [0, 1 / 3, -7]])
    np.testing.assert_array_equal(m, [ONE, -ONE // 2, 1, 0, round(ONE / 3), -7 * ONE])
    assert warp.fixed(np.zeros((5, 2, 3))).shape == (5, 6)
    for bad in (np.nan, np.inf, 2.0**20):
        with pytest.raises(ValueError, match="2\\^20"):
            warp.fixed([[1, 0, bad], [0, 1, 0]])


@pytest.mark.parametrize("code", range(8))
@pytest.mark.parametrize("shape", [(5, 9), (16, 16), (1, 4), (1, 1), (40, 33)])
def test_the_eight_codes(code, shape):
    """A code's map is recognised, moves pixels as ``fused`` does to the bit, and no shifted map is taken for one."""
    rows, columns = shape
    m, size = of_code(code, rows, columns), (columns, rows) if code & 4 else shape
    found = warp.as_code(m, shape, size)
    image = np.arange(rows * columns, dtype=np.uint8).reshape(1, *shape)
    row = np.array([3.5], np.float32)
    expected, out = np.empty((1, *size), np.float32), np.empty((1, *size), np.float32)
    orient_site(image, expected, code, row, row)
    orient_site(image, out, found, row, row)
    np.testing.assert_array_equal(out, expected)
    for kind in warp.FILTERS.values():
        for border in warp.BORDERS.values():
            augment_site(image, out, plain(1, row, row)._replace(matrix=m, sampling=np.array([kind, border])))
            np.testing.assert_array_equal(out, expected)
    assert warp.is_separable(m)
    for i in range(6):
        assert warp.as_code(m + np.eye(6, dtype=np.int64)[i], shape, size) == -1
    assert warp.as_code(m, shape, (size[0] + 1, size[1])) == -1


def test_what_mixes_axes_is_not_separable():
    """A rotation by 30 degrees is neither separable nor one of the eight."""
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    m = warp.fixed([[c, -s, 0], [s, c, 0]])
    assert not warp.is_separable(m)
    assert warp.as_code(m, (8, 8), (8, 8)) == -1


@given(st.integers(-(2**40), 2**40), st.integers(-(2**35), 2**35), st.integers(1, 60))
def test_nearest_is_a_floor(start, step, count):
    """Nearest takes pixel floor(position + 1/2) of the position without rounding, a millionth of a pixel on."""
    first, weights = warp.taps(start, step, count, warp.NEAREST)
    for i in range(count):
        assert first[i] == (Fraction(start + i * step, ONE) + Fraction(1, 2) + Fraction(1, 2**20)).__floor__()
    assert weights.shape == (count, 2)
    assert (weights == [256, 0]).all()


@pytest.mark.parametrize(("size", "count"), [(512, 256), (512, 100), (100, 512), (7, 20), (3, 1), (511, 510)])
def test_nearest_resize_is_pillows(size, count):
    """Resizing by nearest takes the pixels that Pillow takes."""
    line = np.arange(size, dtype=np.float32)[None]
    expected = np.asarray(Image.fromarray(line).resize((count, 1), Image.Resampling.NEAREST))[0]
    m = warp.fixed([[size / count, 0, size / count / 2 - 0.5], [0, 1, 0]])
    first, _ = warp.taps(m[2], m[0], count, warp.NEAREST)
    # Pillow's own positions are float32; where they meet a pixel's edge it may fall to either side.
    edge = (2 * np.arange(count) + 1) * size % (2 * count) == 0
    np.testing.assert_array_equal(first[~edge], expected[~edge])


@given(st.integers(-(2**40), 2**40), st.integers(-(2**35), 2**35), st.integers(1, 60))
def test_bilinear_rounds_positions_to_a_256th(start, step, count):
    """Two taps whose weights are the position rounded to 1/256, ties upwards."""
    first, weights = warp.taps(start, step, count, warp.BILINEAR)
    for i in range(count):
        q = (Fraction(start + i * step, ONE) * 256 + Fraction(1, 2)).__floor__()
        assert 256 * first[i] + weights[i, 1] == q
        assert 0 <= weights[i, 1] < 256
    assert (weights.sum(1) == 256).all()


@given(st.integers(-(2**40), 2**40), st.integers(-(2**36), 2**36), st.integers(1, 12))
def test_antialias_is_a_triangle(start, step, count):
    """Weights are the triangle's heights, each within 1/256, none below 0, with the sum of 256 exactly."""
    first, weights = warp.taps(start, step, count, warp.ANTIALIAS)
    assert weights.shape[1] % 2 == 0
    assert (weights >= 0).all()
    assert (weights.sum(1) == 256).all()
    if abs(step) <= ONE:
        for got, expected in zip((first, weights), warp.taps(start, step, count, warp.BILINEAR)):
            np.testing.assert_array_equal(got, expected)
        return
    pixels = first[:, None] + np.arange(weights.shape[1])
    place = (start + step * np.arange(count, dtype=object))[:, None]
    heights = np.maximum(abs(step) - np.abs(pixels.astype(object) * ONE - place), 0).astype(float)
    # No pixel under the triangle is left out.
    beyond = np.stack([pixels[:, 0] - 1, pixels[:, -1] + 1], 1).astype(object) * ONE
    assert (np.abs(beyond - place) >= abs(step)).all()
    np.testing.assert_allclose(weights, 256 * heights / heights.sum(1, keepdims=True), atol=1.01, rtol=0)


@pytest.mark.parametrize(("size", "goal"), [((64, 64), (32, 32)), ((50, 81), (21, 30)), ((33, 40), (5, 90))])
def test_antialias_is_pillows(size, goal):
    """Resized by ANTIALIAS as by Pillow's BILINEAR, within the rounding of the weights and of Pillow's two passes."""
    image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(goal[::-1], Image.Resampling.BILINEAR)).astype(float)
    (sy, sx), out = (a / b for a, b in zip(size, goal)), np.empty((1, *goal), np.float32)
    m = warp.fixed([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5]])
    augment_site(image[None], out, plain(1)._replace(matrix=m, sampling=np.array([warp.ANTIALIAS, warp.EDGE])))
    taps = sum(warp._width(int(s * ONE), warp.ANTIALIAS) for s in (sx, sy))
    margin = [slice(n // 5, n - n // 5) for n in goal]
    # Pillow leaves out what lies beyond the border, so the outermost pixels differ.
    difference = np.abs(out[0] - expected)[tuple(margin)]
    assert difference.size
    assert difference.max() <= 1 + taps * 0.5
    assert difference.mean() < 0.6


@given(st.integers(-300, 300), st.integers(1, 40))
def test_reach_is_numpys_padding(i, size):
    """Borders continue a line as numpy.pad's modes "edge" and "reflect" do."""
    line = np.arange(size)
    for border, mode in ((warp.EDGE, "edge"), (warp.CONSTANT, "edge"), (warp.REFLECT, "reflect")):
        padded = np.pad(line, 300 if i else 0, mode=mode)
        assert warp.reach(i, size, border) == padded[i + 300 if i else 0]


@given(st.integers(-(2**40), 2**40), st.integers(-(2**35), 2**35), st.integers(0, 60), st.integers(1, 99))
def test_span_is_what_lies_inside(start, step, count, size):
    """The output pixels of a span, and no others, lie within half a pixel of a line's outermost centres."""
    for kind, half in ((warp.NEAREST, 1 << 12), (warp.BILINEAR, 1 << 23)):
        first, end = warp.span(start, step, count, size, kind)
        for i in range(count):
            inside = not warp.outside((start + i * step + half) >> 24, size)
            assert inside == (first <= i < end)


@pytest.mark.parametrize(("count", "nodes"), [(512, 7), (37, 4), (1, 5), (16, 19)])
def test_basis_is_scipys(count, nodes):
    """Cubic splines as SciPy evaluates them, within the rounding of the weights, which sum to exactly 1024."""
    first, weights = warp.basis(count, nodes)
    assert first.min() >= 0
    assert (first + 3).max() < nodes
    assert (weights.sum(1) == 1024).all()
    # Control point i stands at i - 1 on a line from 0 to nodes - 3.
    knots = np.arange(-3, nodes + 1)
    expected = BSpline(knots, np.eye(nodes), 3)((np.arange(count) + 0.5) / count * (nodes - 3))
    got = np.zeros((count, nodes))
    for i in range(4):
        got[np.arange(count), first + i] = weights[:, i] / 1024
    np.testing.assert_allclose(got, expected, atol=2.01 / 1024)


def test_too_few_control_points():
    """A cubic spline has four control points at least."""
    with pytest.raises(ValueError, match="at least 4"):
        warp.basis(10, 3)
