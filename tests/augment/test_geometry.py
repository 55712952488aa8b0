"""Composed geometry against NumPy's and SciPy's own operations, one after the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rxrx_kernels.augment import site as augment
from rxrx_kernels.augment import warp
from rxrx_kernels.orient.site import orient_site
from scipy import ndimage

from rxrx_fast.augment import geometry


def smooth(size, seed=0):
    """A picture without detail, which resampling twice hardly changes; (size, size) uint8."""
    noise = np.random.default_rng(seed).normal(size=(size, size))
    picture = ndimage.gaussian_filter(noise, size / 12)
    return np.rint(255 * (picture - picture.min()) / np.ptp(picture)).astype(np.uint8)


def warped(picture, matrix, out_shape, border=warp.EDGE):
    out = np.empty((1, *out_shape), np.float32)
    how = augment.plain(1)._replace(matrix=warp.fixed(matrix), sampling=np.array([warp.BILINEAR, border]))
    augment.augment_site(picture[None], out, how)
    return out[0].astype(np.float64)


def stepwise(picture, code, affine, crop, center_crop, out_shape):
    """Centre crop, turn, affine change, crop and resizing, each by itself, in float64 with edges repeated."""
    size = geometry.frame(picture.shape, center_crop)
    y, x = ((whole - part) // 2 for whole, part in zip(picture.shape, size))
    picture = picture[y : y + size[0], x : x + size[1]].astype(np.float64)
    if code & 2:
        picture = picture[::-1]
    if code & 1:
        picture = picture[:, ::-1]
    if code & 4:
        picture = picture.T
    if affine is not None:
        angle, zoom_x, zoom_y, shift_x, shift_y = affine
        # Seen anticlockwise with rows downwards: (row, column) of the output to those of the input.
        cos, sin = np.cos(angle), np.sin(angle)
        inverse = np.diag([1 / zoom_y, 1 / zoom_x]) @ np.array([[cos, sin], [-sin, cos]])
        middle = np.array([size[0] - 1, size[1] - 1]) / 2
        moved = np.rint([shift_y * size[0], shift_x * size[1]])
        offset = middle - inverse @ (middle + moved)
        picture = ndimage.affine_transform(picture, inverse, offset, order=1, mode="nearest")
    if crop is not None:
        rows, columns = (max(int(crop[0] * side), 1) for side in size)
        top = min(int(crop[1] * (size[0] - rows + 1)), size[0] - rows)
        left = min(int(crop[2] * (size[1] - columns + 1)), size[1] - columns)
        picture = picture[top : top + rows, left : left + columns]
    grid = np.meshgrid(*((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(out_shape, picture.shape)), indexing="ij")
    return ndimage.map_coordinates(picture, grid, order=1, mode="nearest")


ZOOM = st.floats(0.8, 1.25)
SHARE = st.floats(0, 0.999)


@given(
    code=st.integers(0, 7),
    affine=st.none() | st.tuples(st.floats(-3, 3), ZOOM, ZOOM, st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    crop=st.none() | st.tuples(st.floats(0.6, 1), SHARE, SHARE),
    center_crop=st.sampled_from([0, 60]),
    out=st.sampled_from([(80, 80), (60, 60), (64, 90)]),
)
def test_one_map_does_what_all_steps_do(code, affine, crop, center_crop, out):
    """On a picture without detail, one resampling and several differ by little; away from edges that steps repeat."""
    picture = smooth(80)
    rows = [None if part is None else np.array([part], np.float64) for part in (affine, crop)]
    matrix = geometry.matrices(np.array([code], np.uint8), *rows, center_crop, picture.shape, out)[0]
    expected = stepwise(picture, code, affine, crop, center_crop, out)
    # Where a step has repeated an edge, one map still sees the pixels beyond it.
    y, x = np.mgrid[: out[0], : out[1]]
    c, r = matrix @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    margin = (80 - (center_crop or 80)) / 2 + 2
    inside = ((c > margin) & (c < 79 - margin) & (r > margin) & (r < 79 - margin)).reshape(out)
    edge = np.zeros(out, bool)
    edge[2:-2, 2:-2] = True
    found = warped(picture, matrix, out)
    assert np.abs(found - expected)[inside & edge].max(initial=0) < 4


@pytest.mark.parametrize("code", range(8))
def test_turns_and_flips_alone_are_exact(code):
    """Their maps are recognised, and give the bits of the kernel that only moves pixels."""
    picture = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    matrix = geometry.matrices(np.array([code], np.uint8), None, None, 0, (48, 48), (48, 48))
    assert warp.as_code(warp.fixed(matrix)[0], (48, 48), (48, 48)) == code
    expected = np.empty((1, 48, 48), np.float32)
    one = np.ones(1, np.float32)
    orient_site(picture[None], expected, code, 0 * one, one)
    np.testing.assert_array_equal(warped(picture, matrix[0], (48, 48)), expected[0])


def test_a_zoom_about_the_centre_of_nothing_is_nothing():
    """No angle, no zoom, no shift and a whole crop leave the identity, to the bit."""
    still = np.array([[0.0, 1.0, 1.0, 0.0, 0.0]])
    whole = np.array([[1.0, 0.5, 0.5]])
    matrix = geometry.matrices(np.zeros(1, np.uint8), still, whole, 0, (30, 50), (30, 50))
    np.testing.assert_array_equal(matrix[0], np.eye(2, 3))


def test_a_centre_crop_takes_the_middle_pixels():
    """WILDS' 256 of 512, here 6 of 10 by 12: whole pixels, nothing interpolated."""
    picture = np.arange(120, dtype=np.uint8).reshape(10, 12)
    assert geometry.frame(picture.shape, 6) == (6, 6)
    assert geometry.frame(picture.shape, 11) == (10, 11)
    matrix = geometry.matrices(np.zeros(1, np.uint8), None, None, 6, (10, 12), (6, 6))
    np.testing.assert_array_equal(warped(picture, matrix[0], (6, 6)), picture[2:8, 3:9])


def test_erased_boxes_follow_the_crop():
    """A box keeps its place in the picture: halves of the side become the whole, what is cut off is lost."""
    erased = np.array([[0.25, 0.5, 0.0, 0.0], [0.0, 0.0, 0.3, 0.9], [0.5, 0.5, 0.9999, 0.9999]])
    np.testing.assert_array_equal(
        geometry.box(erased, None, (100, 200), (100, 200)), [[0, 25, 0, 100], [30, 30, 180, 180], [50, 100, 100, 200]]
    )
    crop = np.array([[0.5, 0.0, 0.0]] * 3)
    np.testing.assert_array_equal(
        geometry.box(erased, crop, (100, 200), (50, 50)), [[0, 25, 0, 50], [30, 30, 50, 50], [50, 50, 50, 50]]
    )
