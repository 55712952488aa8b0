"""CUDA launchers: on Numba's simulator, compiled to PTX, and on a GPU where there is one."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from rxrx_kernels import moments
from rxrx_kernels.fused import fuse_site

needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed (extra ptx, cuda12 or cuda13)"
)

# The simulator is chosen by an environment variable before numba is imported, so it runs in a process of its own.
ON_THE_SIMULATOR = """
import numpy as np
from numba import config
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
assert config.ENABLE_CUDASIM
from rxrx_kernels import cuda, fused, moments
rng = np.random.default_rng(0)
# 36 is more than a tile and not a multiple of one.
stack = rng.integers(0, 256, (8, 2, 36, 36), dtype=np.uint8)
codes = np.arange(8, dtype=np.uint8)
center, scale = rng.uniform(0, 255, (2, 8, 2)).astype(np.float32)
for layout in ("NCHW", "NHWC"):
    out, raw = np.zeros(stack.shape, np.float32), np.zeros(stack.shape, np.uint8)
    if layout == "NHWC":
        out, raw = (np.zeros((8, 36, 36, 2), a.dtype).transpose(0, 3, 1, 2) for a in (out, raw))
    # Already "on the device", because the simulator copies only contiguous host arrays.
    cuda.fuse_batch(stack, FakeCUDAArray(out), codes, center, scale)
    if layout == "NHWC":
        cuda.fuse_batch(stack, FakeCUDAArray(raw), codes, center, scale)
    for b in range(8):
        expected, moved = np.empty((2, 36, 36), np.float32), np.empty((2, 36, 36), np.uint8)
        fused.fuse_site(stack[b], expected, b, center[b], scale[b])
        fused.fuse_site(stack[b], moved, b, None, None)
        assert (out[b] == expected).all(), (layout, b)
        assert layout == "NCHW" or (raw[b] == moved).all(), b
# Not square, and more pixels than one block counts.
wide = rng.integers(0, 256, (1, 1, 83, 199), dtype=np.uint8)
counts = np.zeros((1, 1, 256), np.int32)
cuda.histogram_batch(wide, counts)
assert (counts[0] == moments.histogram(wide[0])).all()
cuda.histogram_batch(wide, counts)
assert (counts[0] == 2 * moments.histogram(wide[0])).all()
print("simulated")
"""


@needs_numba_cuda
def test_launchers_on_the_simulator():
    """Bit-equal to the CPU kernels for all geometries, both memory formats, raw and normalised; counts add up."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    run = subprocess.run(
        [sys.executable, "-c", ON_THE_SIMULATOR], env=environment, capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "simulated"


@needs_numba_cuda
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_kernels_compile_to_ptx(capability):
    """Every kernel compiles for the architecture without a GPU, in single precision and without contraction."""
    from rxrx_kernels import cuda

    compiled = cuda.ptx(capability)
    assert set(compiled) == {"fuse", "fuse_half", "move", "count"}
    for name, text in compiled.items():
        assert f".target sm_{capability[0]}{capability[1]}" in text
        assert ".f64" not in text and "fma.rn" not in text, name
    assert "cvt.rn.f16.f32" in compiled["fuse_half"]
    assert "sub.rn.f32" in compiled["fuse"] or "sub.f32" in compiled["fuse"]


@pytest.mark.gpu
def test_gpu_equals_cpu():
    """On a real GPU: the same bits as the CPU kernels."""
    from rxrx_kernels import cuda

    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (16, 6, 512, 512), dtype=np.uint8)
    codes = (np.arange(16) % 8).astype(np.uint8)
    center, scale = rng.uniform(0, 255, (2, 16, 6)).astype(np.float32)
    on_gpu = [torch.from_numpy(a).cuda() for a in (stack, codes, center, scale)]
    out = torch.empty(stack.shape, dtype=torch.float32, device="cuda")
    cuda.fuse_batch(on_gpu[0], out, *on_gpu[1:])
    half = torch.empty(stack.shape, dtype=torch.float16, device="cuda")
    cuda.fuse_batch(on_gpu[0], half, *on_gpu[1:])
    counts = torch.zeros((16, 6, 256), dtype=torch.int32, device="cuda")
    cuda.histogram_batch(on_gpu[0], counts)
    torch.cuda.synchronize()
    for b in range(16):
        expected = np.empty((6, 512, 512), np.float32)
        fuse_site(stack[b], expected, int(codes[b]), center[b], scale[b])
        np.testing.assert_array_equal(out[b].cpu().numpy(), expected)
        np.testing.assert_array_equal(half[b].cpu().numpy(), expected.astype(np.float16))
        np.testing.assert_array_equal(counts[b].cpu().numpy(), moments.histogram(stack[b]))
