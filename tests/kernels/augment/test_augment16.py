"""Augmentation of 16-bit pixels: against the 8-bit kernels where both can be, and against integers and float64."""

import numpy as np
import pytest
from rxrx_kernels.augment import blur, warp
from rxrx_kernels.augment.loop import augment_rows
from rxrx_kernels.augment.photometric import LUT16
from rxrx_kernels.augment.site import augment_site, plain

F32 = np.float32
BORDERS = (warp.CONSTANT, warp.EDGE, warp.REFLECT)
FILTERS = (warp.NEAREST, warp.BILINEAR, warp.ANTIALIAS)


def pixels(shape=(3, 37, 52), top=65536, seed=0):
    return np.random.default_rng(seed).integers(0, top, shape, dtype=np.uint16)


def random_augmentation(rng, number):
    """Everything but noise and tables, whose ranges differ by depth; every kind of map."""
    matrix = np.column_stack([rng.normal(0, 1, (2, 2)), rng.normal(20, 20, 2)])
    if number % 3 == 0:
        matrix[0, 1] = matrix[1, 0] = 0
    if number % 6 == 1:
        matrix[0, 0] = matrix[1, 1] = 0
    a = plain(3, rng.uniform(0, 255, 3), rng.uniform(0.01, 2, 3))._replace(
        matrix=warp.fixed(matrix),
        sampling=np.array([FILTERS[number % 3], BORDERS[number // 3 % 3]]),
        fill=rng.uniform(0, 255, 3).astype(F32),
        order=np.array([2, -1, 0]),
    )
    if number % 5 == 0:
        a = a._replace(blur=blur.gaussian(1.7))
    if number % 4 == 0:
        a = a._replace(flat=rng.uniform(0.5, 1.5, (3, 5, 6)).astype(F32), flat_log2=4)
    if number % 7 == 0:
        a = a._replace(displacement=rng.integers(-3000, 3000, (2, 6, 6)).astype(np.int32))
    if number % 4 == 1:
        a = a._replace(box=np.array([1, 3, 0, 2]), erase=np.array([0, number % 8 > 4], F32))
    return a


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_pixels_of_8_bits_come_out_as_from_the_8_bit_kernels(dtype):
    """Every operation that both depths have, over 84 random mixtures, in both memory formats: the same bits."""
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (3, 37, 52), dtype=np.uint8)
    for number in range(84):
        a = random_augmentation(rng, number)
        height, width = rng.integers(3, 90, 2)
        if number % 2:
            mine, other = (np.full((height, width, 3), 9, dtype).transpose(2, 0, 1) for _ in range(2))
        else:
            mine, other = (np.full((3, height, width), 9, dtype) for _ in range(2))
        augment_site(stack.astype(np.uint16), mine, a)
        augment_site(stack, other, a)
        assert mine.tobytes() == other.tobytes(), number


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("filtering", FILTERS)
@pytest.mark.parametrize("border", BORDERS)
def test_resizing_is_the_sum_of_the_taps_rounded_once(filtering, border, turned):
    """Full 16-bit range through crops that enlarge, shrink and leave the image: integer sums, then one float32."""
    stack = pixels()
    size = (37, 52)
    for step, start, mirror in ((0.71, 3.4, 1), (2.3, -5.5, 1), (1.0, 30.0, -1), (1.37, 45.2, -1)):
        across, down = mirror * step, step * 0.9
        m = [[0, down, 1.5], [across, 0, start]] if turned else [[across, 0, start], [0, down, 1.5]]
        matrix = warp.fixed(np.array(m))
        out = np.zeros((3, 32, 48), F32)
        augment_site(stack, out, plain(3)._replace(matrix=matrix, sampling=np.array([filtering, border])))
        source = stack.transpose(0, 2, 1) if turned else stack
        along, upright = warp.fixed(np.array([[across, 0, start], [0, down, 1.5]]))[[0, 2, 4, 5]].reshape(2, 2)
        x_first, x_weights = warp.taps(along[1], along[0], 48, filtering)
        y_first, y_weights = warp.taps(upright[1], upright[0], 32, filtering)
        rows, columns = size[::-1] if turned else size
        ys, xs = (
            np.array([[warp.reach(int(f) + j, n, border) for j in range(w.shape[1])] for f in first])
            for first, w, n in ((y_first, y_weights, rows), (x_first, x_weights, columns))
        )
        mixed = (source[:, ys].astype(np.int64) * y_weights[None, :, :, None]).sum(2)
        total = (mixed[:, :, xs] * x_weights.astype(np.int64)).sum(-1)
        expected = total.astype(F32) * F32(2.0**-16)
        if border == warp.CONSTANT:
            for y in range(32):
                for x in range(48):
                    c, r = warp.place(matrix, x, y, 0, 0, 0, filtering)
                    if warp.outside(c, size[1]) or warp.outside(r, size[0]):
                        expected[:, y, x] = 0
        np.testing.assert_array_equal(out, expected)


def test_turned_images_are_bilinear_in_float64():
    """An angle of 20 degrees, in whole samples: float64 at positions of 1/256 pixel, within float32's rounding."""
    stack = pixels()
    angle = np.deg2rad(20)
    matrix = warp.fixed(np.array([[np.cos(angle), -np.sin(angle), 12.3], [np.sin(angle), np.cos(angle), -4.2]]))
    out = np.zeros((3, 30, 30), F32)
    augment_site(stack, out, plain(3)._replace(matrix=matrix, sampling=np.array([warp.BILINEAR, warp.EDGE])))
    y, x = np.mgrid[:30, :30]
    c, r = warp.place(matrix.astype(np.int64), x, y, 0, 0, 0, warp.BILINEAR)
    column, row = np.floor(c / 256).astype(int), np.floor(r / 256).astype(int)
    wx, wy = c / 256 - column, r / 256 - row
    image = stack.astype(np.float64)

    def at(i, j):
        return image[:, np.clip(row + i, 0, 36), np.clip(column + j, 0, 51)]

    expected = (at(0, 0) * (1 - wx) + at(0, 1) * wx) * (1 - wy) + (at(1, 0) * (1 - wx) + at(1, 1) * wx) * wy
    np.testing.assert_allclose(out, expected, rtol=2**-23)


def test_raw_pixels_are_moved_exactly():
    """Mirrors of raw pixels are the same numbers; interpolated ones are rounded to the nearest, not cut at 255."""
    stack = pixels()
    out = np.zeros((3, 37, 52), np.uint16)
    mirror = plain(3)._replace(matrix=warp.fixed(np.array([[-1, 0, 51], [0, 1, 0]])))
    augment_site(stack, out, mirror, raw=True)
    np.testing.assert_array_equal(out, stack[:, :, ::-1])
    half = plain(3)._replace(matrix=warp.fixed(np.array([[1, 0, 0.5], [0, 1, 0]])))
    exact = np.zeros((3, 37, 52), F32)
    augment_site(stack, out, half, raw=True)
    augment_site(stack, exact, half)
    np.testing.assert_array_equal(out, np.floor(exact.astype(np.float64) + 0.5))


def test_noise_has_its_variance_and_the_range_of_16_bits():
    """Read and shot noise about 30,000 have the deviation asked for; at the ends of the range nothing wraps round."""
    noise = np.array([[100.0, 2.0]], F32)
    a = plain(1)._replace(noise=noise, key=np.array([5, 6], np.uint32))
    out = np.zeros((1, 256, 256), F32)
    augment_site(np.full((1, 256, 256), 30000, np.uint16), out, a)
    assert abs(out.mean() - 30000) < 5
    assert abs(out.std() / np.sqrt(100**2 + 2 * 30000) - 1) < 0.02
    for value in (0, 65535):
        augment_site(np.full((1, 256, 256), value, np.uint16), out, a)
        assert out.min() >= 0
        assert out.max() <= 65535
        assert (out == value).mean() > 0.4


@pytest.mark.parametrize("step", [0, 2, 4])
def test_tables_are_linear_between_the_middles_of_bins(step):
    """Against numpy.interp over the bins' middles, going on straight in the outermost half bins, then clipped."""
    stack = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    width = 1 << step
    middles = np.arange(LUT16) * width + (width - 1) / 2
    values = np.cumsum(np.random.default_rng(0).uniform(0, 1, LUT16)).astype(F32)
    out = np.zeros((1, 256, 256), F32)
    augment_site(stack, out, plain(1)._replace(lut=values[None], lut_log2=np.array([step])))
    grey = np.minimum(np.arange(65536), LUT16 * width - 1)
    expected = np.interp(grey, middles, values)
    low, high = grey < middles[0], grey > middles[-1]
    slope = np.diff(values.astype(np.float64)) / width
    expected[low] = values[0] + (grey[low] - middles[0]) * slope[0]
    expected[high] = values[-1] + (grey[high] - middles[-1]) * slope[-1]
    np.testing.assert_allclose(out.ravel(), expected, rtol=3e-7, atol=1e-7)


def test_blur_of_16_bits_is_that_of_float64():
    """White stays 65,535, and everything is the sum of the weights, rounded once, mirrored at the edges."""
    plane, weights = pixels((1, 30, 41))[0], blur.gaussian(2.5)
    out = np.zeros_like(plane)
    blur.blur_plane(plane, weights, out)
    radius = len(weights) // 2
    wide = np.pad(plane.astype(np.int64), radius, mode="reflect")
    rows = sum(int(w) * wide[i : i + 30] for i, w in enumerate(weights))
    both = sum(int(w) * rows[:, i : i + 41] for i, w in enumerate(weights))
    np.testing.assert_array_equal(out, (both + (1 << 15)) >> 16)
    blur.blur_plane(np.full_like(plane, 65535), weights, out)
    assert (out == 65535).all()


def test_read_only_arrays_compile_nothing_new():
    """Tables of other libraries may be read-only: the loop that is there serves them. An output may not be."""
    stack, a = pixels(), plain(3)
    expected, out = np.zeros(stack.shape, F32), np.zeros(stack.shape, F32)
    augment_site(stack, expected, a)
    known = len(augment_rows.signatures)
    for array in (stack, *(part for part in a if isinstance(part, np.ndarray))):
        array.flags.writeable = False
    augment_site(stack, out, a)
    np.testing.assert_array_equal(out, expected)
    assert len(augment_rows.signatures) == known
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        augment_site(stack, out, a)


def test_what_does_not_fit_is_refused():
    """Depths, outputs, tables and widths that compiled code would misread."""
    stack, out = pixels(), np.zeros((3, 37, 52), F32)
    table = np.zeros((3, LUT16), F32)
    for wrong, name in (
        ((stack.astype(np.int16), out, plain(3)), "stack"),
        ((stack, out.astype(np.float64), plain(3)), "out"),
        ((stack, out, plain(3), True), "out"),
        ((stack, out, plain(3)._replace(lut=table)), "lut_log2"),
        ((stack, out, plain(3)._replace(lut=table, lut_log2=np.array([0, 5, 0]))), "lut_log2"),
        ((stack, out, plain(3)._replace(lut=np.zeros((3, 257), F32), lut_log2=np.zeros(3, int))), "lut"),
        ((stack, out, plain(3)._replace(order=np.array([0, 3, 0]))), "order"),
    ):
        with pytest.raises(ValueError, match=name):
            augment_site(*wrong)
