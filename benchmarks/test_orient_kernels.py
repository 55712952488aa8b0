"""The fused kernel and the histogram against NumPy and torch doing the same work on one core.

Run with ``make bench``. The floor of the fused kernel is the time to write its output, which is a row of its own.
"""

import numpy as np
import pytest
import torch
from rxrx_kernels.augment.site import augment_site, plain
from rxrx_kernels.histogram import uint8 as moments
from rxrx_kernels.histogram.uint16 import histogram16
from rxrx_kernels.orient.site import ROT90, orient_site

SIZE = 512


@pytest.fixture(scope="module")
def site():
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (6, SIZE, SIZE), dtype=np.uint8)
    return stack, rng.uniform(0, 255, 6).astype(np.float32), rng.uniform(0.01, 1, 6).astype(np.float32)


@pytest.fixture(autouse=True)
def one_core():
    """Torch takes every core by default; the comparison is a core against a core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def on_a_page(shape):
    """Uninitialised float32 memory on a page, as the loader and torch allocate it."""
    block = np.empty(4 * int(np.prod(shape)) + 4096, np.uint8)
    start = -block.ctypes.data % 4096
    return block[start : start + 4 * int(np.prod(shape))].view(np.float32).reshape(shape)


def numpy_site(stack, out, code, center, scale):
    if code & 1:
        stack = stack[:, :, ::-1]
    if code & 2:
        stack = stack[:, ::-1]
    if code & 4:
        stack = stack.transpose(0, 2, 1)
    np.subtract(stack, center[:, None, None], out=out, dtype=np.float32)
    np.multiply(out, scale[:, None, None], out=out)


def torch_site(stack, out, code, center, scale):
    image = torch.from_numpy(stack)
    flips = [axis for bit, axis in ((1, 2), (2, 1)) if code & bit]
    image = image.flip(flips) if flips else image
    image = image.transpose(1, 2) if code & 4 else image
    result = torch.from_numpy(out)
    torch.sub(image.float(), torch.from_numpy(center)[:, None, None], out=result)
    result.mul_(torch.from_numpy(scale)[:, None, None])


@pytest.mark.parametrize("geometry", ["straight", "mirrored", "turned"])
@pytest.mark.parametrize("who", ["rxrx_kernels", "numpy", "torch", "write only (floor)"])
def test_fused_site(benchmark, site, who, geometry):
    """Turn, flip, normalise and cast one site of six 512 x 512 channels."""
    benchmark.group = f"fused, {geometry}"
    stack, center, scale = site
    code = {"straight": 0, "mirrored": 1, "turned": ROT90[1]}[geometry]
    out, expected = on_a_page(stack.shape), np.empty(stack.shape, np.float32)
    if who.startswith("write"):
        benchmark(out.fill, 1.0)
        return
    work = {"rxrx_kernels": orient_site, "numpy": numpy_site, "torch": torch_site}[who]
    benchmark(work, stack, out, code, center, scale)
    orient_site(stack, expected, code, center, scale)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("who", ["rxrx_kernels", "numpy.bincount", "torch.bincount"])
def test_histogram(benchmark, site, who):
    """Count the values of one site of six 512 x 512 channels."""
    benchmark.group = "histogram"
    stack = site[0]
    work = {
        "rxrx_kernels": lambda: moments.histogram(stack),
        "numpy.bincount": lambda: np.stack([np.bincount(plane.ravel(), minlength=256) for plane in stack]),
        "torch.bincount": lambda: torch.stack(
            [torch.bincount(torch.from_numpy(plane).reshape(-1).long(), minlength=256) for plane in stack]
        ),
    }[who]
    np.testing.assert_array_equal(np.asarray(benchmark(work)), moments.histogram(stack))


@pytest.fixture(scope="module")
def deep_site(site):
    """The same site with 16 bits, as a camera of 12 bits fills them."""
    return site[0].astype(np.uint16) * 16, site[1] * 16, site[2] / 16


@pytest.mark.parametrize("who", ["rxrx_kernels", "numpy", "write only (floor)"])
def test_deep_site(benchmark, deep_site, who):
    """Normalise one site of six 512 x 512 channels of 16 bits."""
    benchmark.group = "16 bits, straight"
    stack, center, scale = deep_site
    out, augmentation = on_a_page(stack.shape), plain(6, center, scale)
    if who.startswith("write"):
        benchmark(out.fill, 1.0)
        return
    if who == "numpy":
        benchmark(numpy_site, stack, out, 0, center, scale)
    else:
        benchmark(augment_site, stack, out, augmentation)
    np.testing.assert_array_equal(out, (stack.astype(np.float32) - center[:, None, None]) * scale[:, None, None])


@pytest.mark.parametrize("who", ["rxrx_kernels", "numpy.bincount"])
def test_deep_histogram(benchmark, deep_site, who):
    """Count one site of 16 bits; ours also sums its values and their squares, and finds the extremes."""
    benchmark.group = "16 bits, histogram"
    stack = deep_site[0]
    work = {
        "rxrx_kernels": lambda: histogram16(stack).counts,
        "numpy.bincount": lambda: np.stack([np.bincount(plane.ravel(), minlength=4096) for plane in stack]),
    }[who]
    np.testing.assert_array_equal(np.asarray(benchmark(work)), histogram16(stack).counts)
