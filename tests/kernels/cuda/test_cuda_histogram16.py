"""Histograms of 16-bit pixels on CUDA: on Numba's simulator against the CPU's, compiled to PTX, and on a GPU."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from rxrx_kernels.histogram.uint16 import BINS16, Histogram, histogram16

needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed (extra ptx, cuda12 or cuda13)"
)

# The simulator is chosen by an environment variable before numba is imported, so it runs in a process of its own.
ON_THE_SIMULATOR = """
import numpy as np
from rxrx_kernels.cuda import histogram16 as kernels
from rxrx_kernels.histogram.uint16 import BINS16, Histogram, histogram16
rng = np.random.default_rng(0)
# More pixels than a block adds up; channels of each width of bins, one of a single value, and the extremes.
stack = np.stack([rng.integers(low, high, (3, 130, 131)) for low, high in ((0, 4096), (9, 9000))]).astype(np.uint16)
stack[0, 1], stack[1, 2], stack[1, 0, 5, 5], stack[1, 1, 0, 0] = 777, rng.integers(0, 65536, (130, 131)), 65535, 16384
counts, sums = np.zeros((2, 3, BINS16), np.int32), np.zeros((2, 3, 2), np.uint64)
ends = np.empty((2, 3, 2), np.int32)
ends[:] = kernels.EXTREMES
kernels.histogram16_batch(stack, counts, sums, ends)
found = kernels.as_histogram(counts, sums, ends, 130 * 131)
wanted = Histogram.stack([histogram16(site) for site in stack])
for name, mine, theirs in zip(Histogram._fields, found, wanted):
    assert mine.dtype == theirs.dtype and mine.shape == theirs.shape and (mine == theirs).all(), name
assert found.shift.tolist() == [[0, 0, 0], [4, 3, 4]]
try:
    kernels.histogram16_batch(stack, counts, sums.astype(np.int64), ends)
    raise AssertionError("sums of another type were taken")
except ValueError as error:
    assert "sums must be uint64" in str(error)
print("simulated")
"""


@needs_numba_cuda
def test_on_the_simulator():
    """Counts, widths of bins, sums and extremes are the CPU's, bit for bit; other dtypes are refused."""
    run = subprocess.run(
        [sys.executable, "-c", ON_THE_SIMULATOR], env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "simulated"


def test_the_largest_sums_fit():
    """The sum of squares of 2^31 white pixels needs 63 bits, and is split as on the CPU."""
    from rxrx_kernels.cuda import histogram16 as kernels

    pixels, white = 1 << 31, 65535
    sums = np.array([[[pixels * white, pixels * white**2]]], np.uint64)
    found = kernels.as_histogram(np.zeros((1, 1, BINS16), np.int32), sums, np.full((1, 1, 2), white), pixels)
    mean, std = found.mean_std()
    assert mean == white
    assert std == 0
    assert found.shift == 4


@needs_numba_cuda
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_kernels_compile_to_ptx(capability):
    """The kernels compile for both architectures, with integers alone."""
    from rxrx_kernels.cuda import histogram16

    compiled = histogram16.ptx(capability)
    assert set(compiled) == {"extremes", "count16"}
    for name, text in compiled.items():
        assert f".target sm_{capability[0]}{capability[1]}" in text
        assert ".f64" not in text, name
        assert ".f32" not in text, name
    assert "min.s32" in compiled["extremes"]
    assert "atom" in compiled["extremes"]


@pytest.mark.gpu
@pytest.mark.parametrize("top", [1, 4096, 4097, 30000, 65536])
def test_gpu_equals_cpu(top):
    """Whole sites give the CPU's numbers, whatever the order in which blocks add up."""
    from rxrx_kernels.cuda import histogram16 as kernels

    stack = np.random.default_rng(top).integers(0, top, (4, 6, 512, 512)).astype(np.uint16)
    on_gpu = torch.from_numpy(stack).cuda()
    wanted = Histogram.stack([histogram16(site) for site in stack])
    for _ in range(2):
        counts = torch.zeros((4, 6, BINS16), dtype=torch.int32, device="cuda")
        sums = torch.zeros((4, 6, 2), dtype=torch.int64, device="cuda").view(torch.uint64)
        ends = torch.tensor(kernels.EXTREMES, dtype=torch.int32, device="cuda").repeat(4, 6, 1)
        kernels.histogram16_batch(on_gpu, counts, sums, ends)
        torch.cuda.synchronize()
        found = kernels.as_histogram(counts.cpu().numpy(), sums.cpu().numpy(), ends.cpu().numpy(), 512 * 512)
        for mine, theirs in zip(found, wanted):
            np.testing.assert_array_equal(mine, theirs)
