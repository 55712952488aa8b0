"""The one-pass augmentation of a site against a model of what it documents, and against SciPy."""

import numpy as np
import pytest
import torch
from augment_model import augmentation, augmented
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import aligned
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.blur import gaussian
from rxrx_kernels.augment.site import augment_site, plain
from scipy import ndimage

KINDS = (np.float32, np.float16, np.uint16, np.uint8)


def pixels(rng, *shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def run(stack, a, shape, dtype=np.float32, vectors=True):
    """The kernel's output on aligned memory, with a look at the bytes around it."""
    out, around = aligned((len(a.order), *shape), dtype)
    augment_site(stack, out, a, vectors=vectors)
    assert all((side == 0xAB).all() for side in around)
    return out


def cast(values, dtype):
    """float32 as the bits that an output of this dtype holds."""
    if dtype == np.uint16:
        return torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16).view(torch.uint16).numpy()
    return values.astype(dtype)


def draw(rng, shape, goal, separable, kind):
    """A random map that keeps most of the source in view."""
    rows, columns = shape
    height, width = goal
    if separable:
        sx, sy = rng.choice([-1, 1], 2) * rng.choice([0.3, 0.5, 0.97, 1, 1, 1.02, 1.9, 4], 2)
        matrix = np.array([[sx, 0, 0], [0, sy, 0]])
        if rng.random() < 0.4:
            matrix = matrix[::-1]
    else:
        angle, scale = rng.uniform(0, 2 * np.pi), rng.choice([0.5, 1, 1.1, 2.5, 5])
        matrix = scale * np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    center = matrix[:, :2] @ [(width - 1) / 2, (height - 1) / 2]
    matrix[:, 2] = np.array([(columns - 1) / 2, (rows - 1) / 2]) - center + rng.choice([0, 0.5, 3.3, -5.71], 2)
    m = warp.fixed(matrix)
    if separable and kind == warp.ANTIALIAS:
        # The model samples; tables of taps are tested against a triangle in test_warp.py.
        m = np.where(np.abs(m) > 1 << 32, np.sign(m) << 32, m) * [1, 1, 0, 1, 1, 0] + m * [0, 0, 1, 0, 0, 1]
    return m


@settings(max_examples=150)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70)),
    st.tuples(
        st.one_of(st.integers(1, 60), st.sampled_from([16, 32, 64])), st.sampled_from([1, 7, 16, 31, 32, 48, 80])
    ),
    st.sampled_from(sorted(warp.FILTERS.values())),
    st.sampled_from(sorted(warp.BORDERS.values())),
    st.booleans(),
    st.sets(st.sampled_from(["blur", "flat", "noise", "table", "box", "drop", "bend"]), max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_everything_matches_the_model(shape, goal, kind, border, separable, parts, seed):
    """Any shapes, map, filter, border and operations, in every dtype, with and without a processor's instructions."""
    rng = np.random.default_rng(seed)
    stack, channels = pixels(rng, *shape), int(rng.integers(1, 5))
    separable = separable and "bend" not in parts
    nodes, shift = rng.integers(2, 6, 2), int(rng.integers(0, 6))
    key = rng.integers(0, 2**32, 2, dtype=np.uint32)
    a = augmentation(
        channels,
        matrix=draw(rng, shape[1:], goal, separable, kind),
        sampling=[kind, border],
        order=rng.integers(-1 if "drop" in parts else 0, shape[0], channels),
        fill=rng.uniform(0, 255, channels),
        center=rng.uniform(0, 255, channels),
        scale=rng.uniform(0.01, 10, channels),
        lut=rng.normal(size=(channels if "table" in parts else 0, 257)),
        flat=rng.uniform(0.5, 2, (channels, *nodes) if "flat" in parts else (0, 0, 0)),
        flat_log2=shift,
        noise=rng.uniform(0, [9, 2], (channels if "noise" in parts else 0, 2)),
        key=key,
        displacement=rng.integers(-2000, 2000, (2, 5, 5) if "bend" in parts else (2, 0, 0)),
        blur=gaussian(rng.choice([0.4, 1, 3])) if "blur" in parts else np.zeros(0),
    )
    if "box" in parts:
        box = [*np.sort(rng.integers(0, goal[0] + 1, 2)), *np.sort(rng.integers(0, goal[1] + 1, 2))]
        a = a._replace(box=np.array(box), erase=rng.choice([0, 0, 1.5], 2).astype(np.float32))
    expected = augmented(stack, a, *goal, basis=warp.basis)
    for dtype in KINDS:
        right = augmented(stack, a, *goal, raw=True, basis=warp.basis) if dtype == np.uint8 else expected
        for vectors in (True, False):
            np.testing.assert_array_equal(run(stack, a, goal, dtype, vectors), cast(right, dtype))
    # Any strides: interleaved channels, rows upside down.
    memory = np.zeros((*goal, channels), np.float32)
    augment_site(stack, memory.transpose(2, 0, 1)[:, ::-1], a)
    np.testing.assert_array_equal(memory.transpose(2, 0, 1)[:, ::-1], expected)
    # A bend by nothing takes the path of maps that mix the axes.
    if separable and "bend" not in parts:
        bent = a._replace(displacement=np.zeros((2, 4, 4), np.int32))
        np.testing.assert_array_equal(run(stack, bent, goal), expected)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(2, 33, 47), (1, 5, 300), (1, 64, 64)])
def test_four_turns_and_two_flips_are_the_identity(dtype, shape):
    """A quarter turn four times, and a flip twice, bring every byte back."""
    stack = pixels(np.random.default_rng(0), *shape)
    for matrix, times in (([[0, -1, 1], [1, 0, 0]], 4), ([[-1, 0, 1], [0, 1, 0]], 2), ([[1, 0, 0], [0, -1, 1]], 2)):
        image = stack
        for _ in range(times):
            m, size = np.array(matrix, float), image.shape[1:]
            goal = size[::-1] if times == 4 else size
            m[:, 2] *= [size[1] - 1, size[0] - 1]
            out = np.empty((len(stack), *goal), np.uint8)
            augment_site(image, out, plain(len(stack))._replace(matrix=warp.fixed(m)))
            image = out
        np.testing.assert_array_equal(image, stack)
        np.testing.assert_array_equal(run(image, plain(len(stack)), shape[1:], dtype), cast(stack.astype("f4"), dtype))


@settings(max_examples=40)
@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_bilinear_is_scipys(rows, columns, seed, separable, mirrored):
    """map_coordinates of order 1 in float64, within what rounding positions to 1/256 may change."""
    rng = np.random.default_rng(seed)
    stack, goal = pixels(rng, 1, rows, columns), (40, 32)
    m = draw(rng, (rows, columns), goal, separable, warp.BILINEAR)
    border, mode = (warp.REFLECT, "mirror") if mirrored else (warp.EDGE, "nearest")
    a = augmentation(1, matrix=m, sampling=[warp.BILINEAR, border])
    (mx, my, m0), (nx, ny, n0) = (m / 2.0**32).reshape(2, 3)
    y, x = np.mgrid[: goal[0], : goal[1]]
    places = [nx * x + ny * y + n0, mx * x + my * y + m0]
    expected = ndimage.map_coordinates(stack[0].astype(float), places, order=1, mode=mode)
    # Half of 1/256 in each direction, between pixels 255 apart at the most.
    np.testing.assert_allclose(run(stack, a, goal)[0], expected, atol=255 * 2 / 512 + 1e-3)
    nearest = run(stack, augmentation(1, matrix=m, sampling=[warp.NEAREST, border]), goal)[0]
    offset = np.abs(np.array(places) - np.floor(places) - 0.5).min(0)
    exact = ndimage.map_coordinates(stack[0], places, order=0, mode=mode)
    np.testing.assert_array_equal(nearest[offset > 1e-6], exact[offset > 1e-6])


def test_constant_border_has_no_blending():
    """Outside is exactly the constant, up to half a pixel beyond the image is the edge's pixel."""
    stack = pixels(np.random.default_rng(0), 2, 20, 30)
    for shift in (0.25, 0.5, 0.75, 7, 100):
        m = warp.fixed([[1, 0, -shift], [0, 1, shift]])
        a = augmentation(2, matrix=m, fill=[7.25, 300], sampling=[warp.NEAREST, warp.CONSTANT])
        gone = int(np.ceil(shift - 0.5))
        got, shown = run(stack, a, (20, 30)), np.s_[:, : max(20 - int(shift + 0.5), 0), min(gone, 30) :]
        assert (got[0] == 7.25).sum() == 600 - got[0][shown[1:]].size
        assert set(got[0][:, :gone].ravel()) <= {7.25}
        x0, y0 = gone - shift, shift
        taken = stack[:, int(y0 + 0.5) :, int(x0 + 0.5) :][:, : got[shown].shape[1], : got[shown].shape[2]]
        np.testing.assert_array_equal(got[shown], taken)


def test_bend_moves_by_its_splines():
    """An even displacement is a shift to the bit; an uneven one moves a ramp by what the splines say."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8) * 3, (1, 64, 64)).copy()
    a = augmentation(1, sampling=[warp.BILINEAR, warp.EDGE])
    even = np.broadcast_to(np.array([640, -300])[:, None, None], (2, 6, 6))
    shifted = a._replace(matrix=warp.fixed([[1, 0, 2.5], [0, 1, -300 / 256]]))
    stack = pixels(np.random.default_rng(0), 1, 64, 64)
    bent = run(stack, augmentation(1, sampling=a.sampling, displacement=even), (64, 64))
    np.testing.assert_array_equal(bent, run(stack, shifted, (64, 64)))
    bend = np.random.default_rng(1).integers(-1200, 1200, (2, 7, 7))
    moved = run(ramp, augmentation(1, sampling=a.sampling, displacement=bend), (64, 64))[0]
    place = (np.arange(64) + 0.5) / 64 * 4 + 1
    # The control points' cubic spline without a prefilter is what the cardinal basis evaluates.
    weights = ndimage.map_coordinates(
        bend[0] / 256.0, np.meshgrid(place, place, indexing="ij"), order=3, prefilter=False
    )
    columns = np.clip(np.arange(64) + weights, 0, 63)
    np.testing.assert_allclose(moved, 3 * columns, atol=3 * 0.05)


def test_channels_are_shuffled_with_their_tables():
    """Source channels go by ``order``; tables, centres, noise by output channel."""
    rng = np.random.default_rng(0)
    stack, tables = pixels(rng, 4, 16, 32), rng.normal(size=(3, 257)).astype(np.float32)
    a = augmentation(3, order=[2, -1, 0], lut=tables)
    out = run(stack, a, (16, 32))
    np.testing.assert_array_equal(out, [tables[0][stack[2]], np.zeros((16, 32)), tables[2][stack[0]]])
    out = run(stack, augmentation(3, order=[1, 1, 3], center=[1, 2, 3], scale=[1, 2, 4]), (16, 32))
    np.testing.assert_array_equal(out[1], 2 * (stack[1] - np.float32(2)))


def test_tables_are_linear_between_entries():
    """A value between two grey values takes the line between their entries."""
    stack = np.array([[[10, 20]]], np.uint8)
    m = warp.fixed([[0.25, 0, 0], [0, 1, 0]])
    table = np.arange(257, dtype=np.float32)[None] ** 2
    a = augmentation(1, matrix=m, sampling=[warp.BILINEAR, warp.EDGE], lut=table)
    expected = np.interp([10, 12.5, 15, 17.5, 20], np.arange(257), table[0])
    np.testing.assert_array_equal(run(stack, a, (1, 5))[0, 0], expected.astype(np.float32))


def test_illumination_is_bilinear_between_nodes():
    """Factors in float64 by SciPy, within rounding; beyond the last node they stay as they are."""
    rng = np.random.default_rng(0)
    flat = rng.uniform(0.5, 2, (1, 3, 4))
    out = run(np.full((1, 48, 80), 100, np.uint8), augmentation(1, flat=flat, flat_log2=4), (48, 80))
    places = np.mgrid[:48, :80] / 16
    expected = 100 * ndimage.map_coordinates(flat[0], places, order=1, mode="nearest")
    np.testing.assert_allclose(out[0], expected, rtol=1e-6)


def test_erased_pixels():
    """Zero after normalisation, or a value with normal noise of its own about it; the rest is untouched."""
    stack = pixels(np.random.default_rng(0), 2, 200, 300)
    box = [10, 190, 20, 290]
    a = augmentation(2, center=[50, 90], scale=[0.1, 0.2], box=box, key=[5, 6])
    bare = run(stack, a._replace(box=np.zeros(4, np.int64)), (200, 300))
    erased = np.s_[:, 10:190, 20:290]
    for value, spread in ((0, 0), (1.5, 0), (0.5, 2)):
        out = run(stack, a._replace(erase=np.array([value, spread], np.float32)), (200, 300))
        if spread:
            count = out[erased].size
            assert abs(out[erased].mean() - value) < 5 * spread / count**0.5
            assert abs(out[erased].std() / spread - 1) < 5 / (2 * count) ** 0.5
        else:
            assert (out[erased] == value).all()
        out[erased] = bare[erased]
        np.testing.assert_array_equal(out, bare)


def test_read_only_tables_are_taken():
    """Arrays of other libraries may be read-only; the result is the same."""
    stack, a = pixels(np.random.default_rng(0), 2, 20, 32), plain(2)
    for array in a[:-2]:
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    stack.flags.writeable = False
    np.testing.assert_array_equal(run(stack, a, (20, 32)), stack)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("matrix", np.full(6, 1 << 51)),
        ("matrix", np.array([1 << 48, 0, 0, 0, 1, 0])),
        ("matrix", np.zeros(6)),
        ("matrix", np.zeros(5, np.int64)),
        ("sampling", np.array([3, 0])),
        ("sampling", np.array([0, -1])),
        ("order", np.array([0, 2])),
        ("order", np.array([-2, 0])),
        ("order", np.array([0])),
        ("fill", np.zeros(2, np.uint8)),
        ("fill", np.array([0, np.nan], np.float32)),
        ("center", np.zeros(3, np.float32)),
        ("scale", np.zeros(2)),
        ("scale", np.zeros(4, np.float32)[::2]),
        ("lut", np.zeros((1, 257), np.float32)),
        ("lut", np.zeros((2, 256), np.float32)),
        ("box", np.array([0, 9, 0, 4])),
        ("box", np.array([3, 2, 0, 4])),
        ("box", np.array([0, 2, -1, 4])),
        ("erase", np.zeros(1, np.float32)),
        ("noise", np.zeros((1, 2), np.float32)),
        ("noise", np.full((2, 2), -1, np.float32)),
        ("noise", np.full((2, 2), np.nan, np.float32)),
        ("key", np.zeros(2, np.int64)),
        ("flat", np.ones((2, 1, 2), np.float32)),
        ("flat", np.full((2, 2, 2), np.inf, np.float32)),
        ("displacement", np.zeros((2, 3, 3), np.int32)),
        ("displacement", np.zeros((2, 4, 5), np.int32)),
        ("displacement", np.full((2, 4, 4), 1 << 30, np.int32)),
        ("blur", np.array([128, 128], np.int32)),
        ("blur", np.array([1, 2, 1], np.int32)),
        ("blur", np.array([[256]], np.int32)),
    ],
)
def test_what_does_not_fit_is_refused(field, value):
    """Compiled code has no bounds checks, so every table is checked before it."""
    with pytest.raises(ValueError, match=field):
        augment_site(
            np.zeros((2, 8, 9), np.uint8), np.zeros((2, 8, 9), np.float32), plain(2)._replace(**{field: value})
        )


def test_arrays_that_do_not_fit_are_refused():
    """Dtypes, dimensions, empty images, read-only output, nodes too far apart."""
    stack, out = np.zeros((2, 8, 9), np.uint8), np.zeros((2, 8, 9), np.float32)
    fixed = out.copy()
    fixed.flags.writeable = False
    for source, target in (
        (stack.astype(np.int16), out),
        (stack[0], out),
        (stack, out[0]),
        (stack, out.astype(float)),
        (stack, out.astype(">f4")),
        (stack, fixed),
        (stack[:, :0], out),
        (stack, np.zeros((3, 8, 9), np.float32)),
    ):
        with pytest.raises(ValueError, match=r"stack|out|images|order|center|lut"):
            augment_site(source, target, plain(2))
    with pytest.raises(ValueError, match="flat_log2"):
        augment_site(stack, out, augmentation(2, flat=np.ones((2, 2, 2)), flat_log2=17))
