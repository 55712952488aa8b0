"""The fused kernel against NumPy."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import aligned
from rxrx_kernels.orient import rows as fused_lines
from rxrx_kernels.orient.site import ROT90, compose, orient_site, source


def reference(stack, code):
    """The geometry in NumPy's own words: mirrors on the source, then a transposition."""
    if code & 1:
        stack = stack[:, :, ::-1]
    if code & 2:
        stack = stack[:, ::-1]
    return stack.transpose(0, 2, 1) if code & 4 else stack


stacks = st.tuples(st.integers(1, 6), st.integers(1, 150), st.integers(1, 150), st.integers(0, 2**32 - 1)).map(
    lambda t: np.random.default_rng(t[3]).integers(0, 256, t[:3], dtype=np.uint8)
)


@settings(max_examples=60, deadline=None)
@given(stacks, st.integers(0, 7))
def test_raw_pixels_are_moved_exactly(stack, code):
    """uint8 in, uint8 out: only the place changes, for every geometry and any shape."""
    expected = reference(stack, code)
    out = np.full(expected.shape, 99, np.uint8)
    orient_site(stack, out, code, None, None)
    np.testing.assert_array_equal(out, expected)


@settings(max_examples=60, deadline=None)
@given(stacks, st.integers(0, 7), st.integers(0, 2**32 - 1))
def test_normalised_pixels_match_float64(stack, code, seed):
    """Two roundings of the float64 value, bit-equal to the documented float32 order of operations, and its float16."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(0, 255, len(stack)).astype(np.float32)
    scale = rng.uniform(1e-3, 10, len(stack)).astype(np.float32)
    moved = reference(stack, code)
    out = np.empty(moved.shape, np.float32)
    orient_site(stack, out, code, center, scale)
    m, s = center[:, None, None], scale[:, None, None]
    np.testing.assert_array_equal(out, (moved.astype(np.float32) - m) * s)
    half = np.empty(moved.shape, np.float16)
    orient_site(stack, half, code, center, scale)
    np.testing.assert_array_equal(half, out.astype(np.float16))
    exact = (moved.astype(np.float64) - m) * s.astype(np.float64)
    np.testing.assert_allclose(out, exact, rtol=2**-22, atol=0)


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 14), st.integers(1, 14)),
    st.integers(0, 7),
    st.sampled_from([np.uint8, np.float16, np.float32]),
    st.integers(0, 40),
    st.integers(0, 2**32 - 1),
)
def test_line_kernels_are_the_pixel_kernels(steps, code, dtype, gap, seed):
    """Sixteen pixels at once, for any multiple of sixteen, any row pitch: the same bits, and no byte beside them."""
    rng = np.random.default_rng(seed)
    channels, height, width = steps[0], 16 * steps[1], 16 * steps[2]
    stack = rng.integers(0, 256, (channels, height, width + gap), dtype=np.uint8)[:, :, gap // 2 : gap // 2 + width]
    center = rng.uniform(0, 255, channels).astype(np.float32)
    scale = rng.uniform(-10, 10, channels).astype(np.float32)
    moved = reference(stack, code)
    out, around = aligned(moved.shape, dtype)
    assert fused_lines.fits(stack, out)
    orient_site(stack, out, code, center, scale)
    expected = moved if dtype == np.uint8 else (moved.astype(np.float32) - center[:, None, None]) * scale[:, None, None]
    np.testing.assert_array_equal(out, expected.astype(dtype))
    assert all((side == 0xAB).all() for side in around)
    # The same through the kernel for any strides, which a shifted output needs.
    shifted = np.empty(out.nbytes + 1, np.uint8)[1:].view(np.uint8)[: out.nbytes]
    if dtype == np.uint8:
        shifted = shifted.reshape(out.shape)
        assert not fused_lines.fits(stack, shifted)
        orient_site(stack, shifted, code, None, None)
        np.testing.assert_array_equal(shifted, out)


@settings(max_examples=20, deadline=None)
@given(stacks, st.integers(0, 7))
def test_strides_do_not_matter(stack, code):
    """A channels-last source and a channels-last output give the same pixels as contiguous ones."""
    center, scale = np.zeros(len(stack), np.float32), np.ones(len(stack), np.float32)
    expected = reference(stack, code).astype(np.float32)
    source_view = np.ascontiguousarray(stack.transpose(1, 2, 0)).transpose(2, 0, 1)
    memory = np.empty((*expected.shape[1:], len(stack)), np.float32)
    orient_site(source_view, memory.transpose(2, 0, 1), code, center, scale)
    np.testing.assert_array_equal(memory.transpose(2, 0, 1), expected)


@pytest.mark.parametrize("turns", range(4))
def test_turns_are_numpys(turns):
    """ROT90[k] is numpy.rot90 k times."""
    stack = np.arange(2 * 5 * 5, dtype=np.uint8).reshape(2, 5, 5)
    out = np.empty_like(stack)
    orient_site(stack, out, ROT90[turns], None, None)
    np.testing.assert_array_equal(out, np.rot90(stack, turns, (1, 2)))


@pytest.mark.parametrize("first", range(8))
@pytest.mark.parametrize("second", range(8))
def test_compose_is_one_after_the_other(first, second):
    """compose(a, b) moves pixels as a and then b do."""
    stack = np.arange(36, dtype=np.uint8).reshape(1, 6, 6)
    np.testing.assert_array_equal(reference(stack, compose(first, second)), reference(reference(stack, first), second))


def test_four_turns_and_two_flips_are_the_identity():
    """The group's laws hold on the codes themselves."""
    code = 0
    for _ in range(4):
        code = compose(code, ROT90[1])
    assert code == 0
    assert all(compose(flip, flip) == 0 for flip in (1, 2, 4))


@pytest.mark.parametrize("code", range(8))
def test_source_is_the_reference(code):
    """The pixel function that both launchers compile says where each pixel comes from."""
    image = np.arange(4 * 7).reshape(4, 7)
    expected = reference(image[None], code)[0]
    for y in range(expected.shape[0]):
        for x in range(expected.shape[1]):
            assert image[source(code, y, x, 4, 7)] == expected[y, x]


@pytest.mark.parametrize(
    ("shape", "out", "code", "rows"),
    [
        ((2, 4, 5), (2, 4, 5), 4, 2),
        ((2, 4, 5), (2, 5, 4), 0, 2),
        ((2, 4, 5), (3, 4, 5), 0, 2),
        ((2, 4, 5), (2, 4, 5), 8, 2),
        ((2, 4, 5), (2, 4, 5), 0, 3),
    ],
)
def test_what_does_not_fit_is_refused(shape, out, code, rows):
    """Compiled code has no bounds checks, so shapes are checked before it."""
    row = np.ones(rows, np.float32)
    with pytest.raises(ValueError, match=r"out|code|center"):
        orient_site(np.zeros(shape, np.uint8), np.zeros(out, np.float32), code, row, row)
    with pytest.raises(ValueError, match="stack"):
        orient_site(np.zeros(shape, np.uint16), np.zeros(shape, np.float32), 0, row[:2], row[:2])


@pytest.mark.slow(9)
def test_a_second_process_compiles_nothing():
    """What one process has compiled, the next one loads: Numba stores nothing more, for any output and layout."""
    script = """
import os
import subprocess
import sys

import numpy as np
from rxrx_kernels.orient.site import orient_site
stack, row = np.zeros((2, 16, 16), np.uint8), np.ones(2, np.float32)
for kind in (np.uint8, np.float16, np.float32):
    for code in (0, 4):
        orient_site(stack, np.empty((2, 16, 16), kind), code, row, row)
        orient_site(stack, np.empty((16, 16, 2), kind).transpose(2, 0, 1), code, row, row)
"""
    environment = os.environ | {"NUMBA_DEBUG_CACHE": "1"}
    told = [
        subprocess.run(
            [sys.executable, "-P", "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        for _ in range(2)
    ]
    assert "data loaded" in told[1].stdout
    assert "data saved" not in told[1].stdout
