"""Augmenting one site of six 512 x 512 channels on one core, by what is asked for.

Run with ``make bench``. The floor is the time to write the output, plainly and past the cache. Outputs are those of a
batch that is larger than any cache; they are recycled and were written before, as the loader's are.
"""

import numpy as np
import pytest
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.blur import gaussian
from rxrx_kernels.augment.site import augment_site, plain
from rxrx_kernels.orient.site import orient_site

SIZE, CHANNELS, BATCH = 512, 6, 32
RNG = np.random.default_rng(0)
BASE = plain(CHANNELS, RNG.uniform(0, 255, CHANNELS), RNG.uniform(0.01, 1, CHANNELS))


def about_center(a, b, c, d, size=SIZE, zoom=1.0, shift=(0.0, 0.0)):
    """A map [[a, b], [c, d]] about the image's centre, to ``size`` pixels, zoomed and shifted."""
    linear = np.array([[a, b], [c, d]]) * zoom * SIZE / size
    return warp.fixed(np.c_[linear, (SIZE - 1) / 2 - linear.sum(1) * (size - 1) / 2 + shift])


def rotation(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return about_center(c, -s, s, c)


F32 = np.float32
NOISE = np.full((CHANNELS, 2), [2, 0.05], F32)
CASES = {
    "identity": {},
    "scale and shift": {"matrix": about_center(1, 0, 0, 1, zoom=0.93, shift=(20.3, -11.7))},
    "turned": {"matrix": about_center(0, -1, 1, 0)},
    "crop and resize": {"matrix": about_center(1, 0, 0, 1, zoom=0.6, shift=(30, -60))},
    "512 to 256": {"matrix": about_center(1, 0, 0, 1, size=256)},
    "erase": {"box": np.array([100, 300, 150, 400])},
    "rotation": {"matrix": rotation(30)},
    "noise": {"noise": NOISE, "key": np.array([1, 2], np.uint32)},
    "table": {"lut": np.sort(RNG.normal(size=(CHANNELS, 257)).astype(F32))},
    "flat": {"flat": RNG.uniform(0.8, 1.2, (CHANNELS, 9, 9)).astype(F32), "flat_log2": 6},
    "bend": {"displacement": RNG.integers(-1500, 1500, (2, 7, 7)).astype(np.int32)},
    "blur": {"blur": gaussian(1.0)},
}


def outputs(size, dtype):
    """A batch's worth of outputs on pages, each touched."""
    shape = (BATCH, CHANNELS, size, size)
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    block = np.empty(count + 4096, np.uint8)
    start = -block.ctypes.data % 4096
    out = block[start : start + count].view(dtype).reshape(shape)
    out.view(np.uint8)[:] = 1
    return out


@pytest.fixture(scope="module")
def stack():
    return RNG.integers(0, 256, (CHANNELS, SIZE, SIZE), dtype=np.uint8)


def recycled(benchmark, out, work):
    """Time ``work`` over the sites of a batch in turn."""
    number = iter(range(1 << 62))
    benchmark(lambda: work(out[next(number) % BATCH]))


@pytest.mark.parametrize("case", CASES)
def test_operation(benchmark, stack, case):
    """float32, contiguous planes."""
    benchmark.group = "augment"
    out, a = outputs(256 if "256" in case else SIZE, F32), BASE._replace(**CASES[case])
    recycled(benchmark, out, lambda site: augment_site(stack, site, a))
    expected = np.empty(out.shape[1:], F32)
    augment_site(stack, expected, a, vectors=False)
    np.testing.assert_array_equal(out[0], expected)


@pytest.mark.parametrize("layout", ["channels last", "float16", "bfloat16", "uint8"])
def test_layout(benchmark, stack, layout):
    """The identity to other memory formats and dtypes."""
    benchmark.group = "augment, layouts"
    dtype = {"float16": np.float16, "bfloat16": np.uint16, "uint8": np.uint8}.get(layout, F32)
    out = outputs(SIZE, dtype)
    if layout == "channels last":
        out = out.reshape(BATCH, SIZE, SIZE, CHANNELS).transpose(0, 3, 1, 2)
    recycled(benchmark, out, lambda site: augment_site(stack, site, BASE))
    expected = np.empty(out.shape[1:], dtype)
    augment_site(stack, expected, BASE, vectors=False)
    np.testing.assert_array_equal(out[0], expected)


@pytest.mark.parametrize("how", ["plain stores", "past the cache"])
def test_floor(benchmark, stack, how):
    """Writing the float32 output and nothing else; past the cache by the fused kernel, which also reads the pixels."""
    benchmark.group = "augment"
    out = outputs(SIZE, F32)
    center, scale = BASE.center, BASE.scale
    if how == "plain stores":
        recycled(benchmark, out, lambda site: site.fill(1.0))
    else:
        recycled(benchmark, out, lambda site: orient_site(stack, site, 0, center, scale))
    assert (out[0] != out[0, 0, 0, 0]).any() == (how != "plain stores")
