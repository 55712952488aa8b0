"""CUDA launchers: on Numba's simulator, compiled to PTX, and on a GPU where there is one."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from rxrx_kernels.histogram import uint8 as moments
from rxrx_kernels.orient.site import orient_site

needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed (extra ptx, cuda12 or cuda13)"
)

# The simulator is chosen by an environment variable before numba is imported, so it runs in a process of its own.
ON_THE_SIMULATOR = """
import numpy as np
from numba import config
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
assert config.ENABLE_CUDASIM
from rxrx_kernels.augment import warp
from rxrx_kernels.cuda import orient as cuda
from rxrx_kernels.histogram import uint8 as moments
from rxrx_kernels.orient import site as fused
from rxrx_kernels.augment.site import plain
rng = np.random.default_rng(0)
# 36 is more than a tile and not a multiple of one.
wanted = rng.integers(0, 65536, (8, 2, 36, 36), dtype=np.uint16)
stack = wanted.astype(np.uint8)
codes = np.arange(8, dtype=np.uint8)
center, scale = rng.uniform(0, 255, (2, 8, 2)).astype(np.float32)
for layout in ("NCHW", "NHWC"):
    out, raw = np.zeros(stack.shape, np.float32), np.zeros(stack.shape, np.uint8)
    if layout == "NHWC":
        out, raw = (np.zeros((8, 36, 36, 2), a.dtype).transpose(0, 3, 1, 2) for a in (out, raw))
    # Already "on the device", because the simulator copies only contiguous host arrays.
    cuda.orient_batch(stack, FakeCUDAArray(out), codes, center, scale)
    if layout == "NHWC":
        cuda.orient_batch(stack, FakeCUDAArray(raw), codes, center, scale)
    for b in range(8):
        expected, moved = np.empty((2, 36, 36), np.float32), np.empty((2, 36, 36), np.uint8)
        fused.orient_site(stack[b], expected, b, center[b], scale[b])
        fused.orient_site(stack[b], moved, b, None, None)
        assert (out[b] == expected).all(), (layout, b)
        assert layout == "NCHW" or (raw[b] == moved).all(), b
# 16 bits, of a few codes: what the kernel of all augmentations of the CPU makes of a turn and a flip.
chosen = [0, 3, 5]
deep, raw = wanted[chosen], np.zeros((3, 2, 36, 36), np.uint16)
for dtype in (np.float32, np.float16):
    out = np.zeros(deep.shape, dtype)
    cuda.orient_batch(deep, out, codes[chosen], center[chosen], scale[chosen])
    for b, code in enumerate(chosen):
        matrix = {0: [[1, 0, 0], [0, 1, 0]], 3: [[-1, 0, 35], [0, -1, 35]], 5: [[0, -1, 35], [1, 0, 0]]}[code]
        assert warp.as_code(warp.fixed(np.array(matrix)), (36, 36), (36, 36)) == code
        expected = np.zeros((2, 36, 36), dtype)
        augment_site(deep[b], expected, plain(2, center[code], scale[code])._replace(matrix=warp.fixed(matrix)))
        assert out[b].tobytes() == expected.tobytes(), (dtype, code)
cuda.orient_batch(deep, raw, codes[[0, 3, 5]], center, scale)
assert (raw[0] == deep[0]).all() and (raw[1] == deep[1, :, ::-1, ::-1]).all()
for wrong in (np.zeros(stack.shape), np.zeros(stack.shape, np.uint16)):
    try:
        cuda.orient_batch(stack, wrong, codes, center, scale)
        raise AssertionError(f"{wrong.dtype} was taken")
    except ValueError as error:
        assert "out float32, float16 or as stack" in str(error)
# Not square, and more pixels than one block counts.
wide = rng.integers(0, 256, (1, 1, 83, 199), dtype=np.uint8)
counts = np.zeros((1, 1, 256), np.int32)
cuda.histogram_batch(wide, counts)
assert (counts[0] == moments.histogram(wide[0])).all()
cuda.histogram_batch(wide, counts)
assert (counts[0] == 2 * moments.histogram(wide[0])).all()
print("simulated")
"""


@pytest.mark.slow(15)
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
    from rxrx_kernels.cuda import orient as cuda

    compiled = cuda.ptx(capability)
    assert set(compiled) == {"fuse", "fuse_half", "fuse16", "fuse16_half", "move", "move16", "count"}
    for name, text in compiled.items():
        assert f".target sm_{capability[0]}{capability[1]}" in text
        assert ".f64" not in text and "fma.rn" not in text, name
    assert all("cvt.rn.f16.f32" in compiled[name] for name in ("fuse_half", "fuse16_half"))
    assert "sub.rn.f32" in compiled["fuse"] or "sub.f32" in compiled["fuse"]


@needs_numba_cuda
def test_nothing_deprecated_is_used():
    """The modules import, and a kernel compiles, with deprecations taken for errors."""
    code = (
        "from rxrx_kernels.cuda import augment as cuda_augment, deflate, histogram16, orient, png\n"
        "assert len(cuda_augment.ptx((9, 0), [(8, 'float32', 0)])) == 1"
    )
    command = [sys.executable, "-W", "error::DeprecationWarning", "-W", "error::PendingDeprecationWarning", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stderr


class Described:
    """An array of some library, as the CUDA array interface has it."""

    def __init__(self, version, typestr="<f4"):
        self.__cuda_array_interface__ = {"shape": (4,), "typestr": typestr, "data": (4096, False), "version": version}


@needs_numba_cuda
def test_arrays_of_others_become_numbas(monkeypatch):
    """Whatever version of the interface, as Numba's and without a wait; Numba's own and NumPy's stay as they are."""
    from rxrx_kernels.cuda import arrays as cuda_arrays

    taken = []
    monkeypatch.setattr(cuda_arrays.cuda, "as_cuda_array", lambda array, sync: taken.append((array, sync)) or "numba's")
    for version in (2, 3):
        theirs = Described(version)
        assert cuda_arrays.on_device(theirs) == "numba's"
        assert taken.pop() == (theirs, False)
    own, plain = Described(3), np.zeros(3)
    own.__cuda_ndarray__ = True
    assert cuda_arrays.on_device(own) is own
    assert cuda_arrays.on_device(plain) is plain
    assert not taken


@pytest.mark.gpu
@pytest.mark.parametrize("memory", ["contiguous", "channels last", "a part"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.uint16])
def test_gpu_takes_every_kind_of_array(dtype, memory):
    """Torch's tensors of each dtype and memory format, on a stream of their own and on the default one."""
    from numba import cuda as numba_cuda
    from rxrx_kernels.cuda import orient as cuda

    rng = np.random.default_rng(0)
    deep = dtype == torch.uint16
    stack = torch.from_numpy(rng.integers(0, 65536 if deep else 256, (8, 3, 70, 70), np.uint16 if deep else np.uint8))
    codes = torch.arange(8, dtype=torch.uint8).cuda()
    center, scale = (torch.from_numpy(a).cuda() for a in rng.uniform(0.1, 255, (2, 8, 3)).astype(np.float32))
    side = torch.cuda.Stream()
    for stream in (0, numba_cuda.external_stream(side.cuda_stream)):
        made = torch.zeros((8, 70, 70, 6), dtype=dtype, device="cuda")
        out = (made[..., :3] if memory == "a part" else made[..., :3].contiguous()).permute(0, 3, 1, 2)
        out = out.contiguous() if memory == "contiguous" else out
        on_gpu = stack.cuda()
        torch.cuda.synchronize()
        cuda.orient_batch(on_gpu, out, codes, center, scale, stream)
        torch.cuda.synchronize()
        for code in range(8):
            pixels = stack[code].numpy()
            expected = np.zeros((3, 70, 70), out[0].cpu().numpy().dtype)
            if dtype in (torch.uint8, torch.uint16):
                index = [fused_place(code, y, x, 70) for y in range(70) for x in range(70)]
                expected[:] = pixels[:, [r for r, _ in index], [c for _, c in index]].reshape(3, 70, 70)
            else:
                orient_site(pixels, expected, code, center[code].cpu().numpy(), scale[code].cpu().numpy())
            np.testing.assert_array_equal(out[code].cpu().numpy(), expected)
        if memory == "a part":
            assert not made[..., 3:].any()


def fused_place(code, y, x, size):
    from rxrx_kernels.orient import site as fused

    return fused.source(code, y, x, size, size)


@pytest.mark.gpu
def test_gpu_equals_cpu():
    """On a real GPU: the same bits as the CPU kernels."""
    from rxrx_kernels.cuda import orient as cuda

    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (16, 6, 512, 512), dtype=np.uint8)
    codes = (np.arange(16) % 8).astype(np.uint8)
    center, scale = rng.uniform(0, 255, (2, 16, 6)).astype(np.float32)
    on_gpu = [torch.from_numpy(a).cuda() for a in (stack, codes, center, scale)]
    out = torch.empty(stack.shape, dtype=torch.float32, device="cuda")
    cuda.orient_batch(on_gpu[0], out, *on_gpu[1:])
    half = torch.empty(stack.shape, dtype=torch.float16, device="cuda")
    cuda.orient_batch(on_gpu[0], half, *on_gpu[1:])
    counts = torch.zeros((16, 6, 256), dtype=torch.int32, device="cuda")
    cuda.histogram_batch(on_gpu[0], counts)
    torch.cuda.synchronize()
    for b in range(16):
        expected = np.empty((6, 512, 512), np.float32)
        orient_site(stack[b], expected, int(codes[b]), center[b], scale[b])
        np.testing.assert_array_equal(out[b].cpu().numpy(), expected)
        np.testing.assert_array_equal(half[b].cpu().numpy(), expected.astype(np.float16))
        np.testing.assert_array_equal(counts[b].cpu().numpy(), moments.histogram(stack[b]))
