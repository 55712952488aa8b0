"""Undoing row filters: the same bits as the specification's plain loop, at every size, filter and mix of filters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from png_writer import filtered
from rxrx_kernels.png.unfilter import PADDING, unfilter, workspace


def padded(rows):
    """Add the padding that unfilter needs. It is not zero, since no result may depend on it."""
    return np.concatenate([rows.ravel(), np.full(PADDING, 0xA5, np.uint8)])


def plain(rows, size):
    """Section 9.2 of the specification, one byte at a time."""
    height, width = rows.shape[0], rows.shape[1] - 1
    out = np.zeros((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            a = int(out[y, x - size]) if x >= size else 0
            b = int(out[y - 1, x]) if y else 0
            c = int(out[y - 1, x - size]) if y and x >= size else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            out[y, x] = (int(rows[y, x + 1]) + (0, a, b, (a + b) // 2, paeth)[rows[y, 0]]) & 255
    return out


def random_pixels(shape, dtype, seed, spread=1.0):
    top = np.iinfo(dtype).max
    return (np.random.default_rng(seed).integers(0, top, shape, endpoint=True) * spread).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", range(5))
def test_each_filter_alone(kind, dtype):
    """Random bytes under one filter agree with the plain loop."""
    size = np.dtype(dtype).itemsize
    rows = random_pixels((37, 1 + 45 * size), np.uint8, kind)
    rows[:, 0] = kind
    out = np.empty((37, 45), dtype)
    unfilter(padded(rows), out)
    np.testing.assert_array_equal(out.astype(out.dtype.newbyteorder(">")).view(np.uint8), plain(rows, size))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([np.uint8, np.uint16]),
    st.integers(0, 2**32),
    st.floats(0.01, 1),
)
def test_mixed_filters_at_any_size(height, width, dtype, seed, spread):
    """Undoing the filters gives the pixels back, whatever the filter of each row."""
    pixels = random_pixels((height, width), dtype, seed, spread)
    filters = np.random.default_rng(seed).integers(0, 5, height)
    out = np.empty_like(pixels)
    unfilter(padded(filtered(pixels, filters)), out)
    np.testing.assert_array_equal(out, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("edge", [1, 2, 15, 16, 17, 31, 32, 33, 127, 128, 129, 255, 256, 257])
def test_sizes_about_the_vector(edge, dtype):
    """Sizes one less and one more than a tile, a vector or a group, in both directions."""
    for shape in ((edge, 130), (130, edge), (edge, edge)):
        pixels = random_pixels(shape, dtype, edge)
        out = np.empty_like(pixels)
        unfilter(padded(filtered(pixels, 4)), out)
        np.testing.assert_array_equal(out, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_workspace_serves_image_after_image(dtype):
    """An image leaves nothing in the workspace that changes the next one."""
    size = np.dtype(dtype).itemsize
    work = workspace(70 * size, size)
    for seed, height in enumerate((300, 5, 128, 129, 1, 200)):
        pixels = random_pixels((height, 70), dtype, seed)
        out = np.empty_like(pixels)
        unfilter(padded(filtered(pixels, np.random.default_rng(seed).integers(0, 5, height))), out, work)
        np.testing.assert_array_equal(out, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 127), (130, 128), (130, 129), (257, 300)])
def test_nothing_around_the_arrays_is_written(shape, dtype, monkeypatch):
    """The compiled loops check no bounds: the bytes before and behind each array stay as they were."""
    from rxrx_kernels.png import unfilter as module

    walls = []

    def walled(rows, columns):
        whole = np.full(rows * columns + 8192, 0x5A, np.uint8)
        start = -(whole.ctypes.data + 4096) % 64 + 4096
        walls.append((whole, start, start + rows * columns))
        inner = whole[start : start + rows * columns].reshape(rows, columns)
        inner[:] = 0
        return inner

    monkeypatch.setattr(module, "_aligned_zeros", walled)
    size = np.dtype(dtype).itemsize
    pixels = random_pixels(shape, dtype, 0)
    out = walled(shape[0], shape[1] * size).view(dtype)
    unfilter(padded(filtered(pixels, 4)), out, workspace(shape[1] * size, size))
    np.testing.assert_array_equal(out, pixels)
    assert len(walls) >= 4
    for whole, start, end in walls:
        assert (whole[:start] == 0x5A).all()
        assert (whole[end:] == 0x5A).all()


@pytest.mark.parametrize("row", [0, 7, 130])
def test_an_unknown_filter_is_an_error(row):
    """A filter byte above 4 is refused in any row."""
    rows = filtered(random_pixels((131, 9), np.uint8, 0), 4)
    rows[row, 0] = 5
    with pytest.raises(ValueError, match="unknown filter"):
        unfilter(padded(rows), np.empty((131, 9), np.uint8))


@pytest.mark.parametrize(
    ("data", "out", "work", "reason"),
    [
        (np.zeros(10, np.uint8), np.empty((4, 4), np.uint8), None, "filtered must be"),
        (np.zeros(20 + PADDING, np.int8), np.empty((4, 4), np.uint8), None, "filtered must be"),
        (np.zeros(20 + PADDING, np.uint8), np.empty((4, 4), np.float32), None, "out must be"),
        (np.zeros(20 + PADDING, np.uint8), np.empty((4, 8), np.uint8)[:, ::2], None, "out must be"),
        (np.zeros(20 + PADDING, np.uint8), np.empty((0, 4), np.uint8), None, "out must be"),
        (np.zeros(20 + PADDING, np.uint8), np.empty((4, 4), np.uint8), workspace(700, 1), "another width"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(data, out, work, reason):
    """Shapes and dtypes are checked before the compiled loop, which checks nothing."""
    with pytest.raises(ValueError, match=reason):
        unfilter(data, out, work)
