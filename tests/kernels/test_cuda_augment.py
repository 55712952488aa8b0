"""The augmentation of a batch on CUDA: on Numba's simulator against the CPU kernel, and compiled to PTX."""

import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from augment_model import augmentation
from rxrx_kernels.augment_tables import stack_augmentations
from rxrx_kernels.blur import gaussian

needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed (extra ptx, cuda12 or cuda13)"
)

# The simulator is chosen by an environment variable before numba is imported, so it runs in a process of its own.
ON_THE_SIMULATOR = """
import warnings
import numpy as np
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
from rxrx_kernels import cuda_augment, warp
from rxrx_kernels.augment import augment_site, plain
from rxrx_kernels.augment_tables import stack_augmentations
from rxrx_kernels.blur import gaussian

# NumPy says so where unsigned numbers wrap around, which the hash means.
warnings.simplefilter("ignore")
rng, f = np.random.default_rng(0), np.float32
c, s = np.cos(0.6), np.sin(0.6)
several = lambda *values: np.array(values)
noise, table = rng.uniform(0, 3, (2, 2)).astype(f), rng.normal(size=(2, 257)).astype(f)
flat, bend = rng.uniform(0.5, 2, (2, 3, 4)).astype(f), rng.integers(-900, 900, (2, 5, 5)).astype(np.int32)


def turn(zoom, shift):
    return warp.fixed(np.c_[zoom * np.array([[c, -s], [s, c]]), [3.3, shift]])


base = plain(2, rng.uniform(0, 255, 2), rng.uniform(0.1, 2, 2))._replace(
    key=rng.integers(0, 2**32, 2, dtype=np.uint32), box=several(3, 10, 4, 20), fill=f([7.5, 255])
)
changes = [
    dict(),
    dict(matrix=warp.fixed([[0, -1, 20], [1.02, 0, 0]]), sampling=several(1, 0)),
    dict(matrix=warp.fixed([[-1.9, 0, 40.3], [0, 2.7, -2]]), sampling=several(2, 2), noise=noise),
    dict(matrix=turn(1, -4), sampling=several(1, 0), order=several(1, -1), table=table),
    dict(matrix=turn(2.1, -9), sampling=several(2, 0), flat=flat, shift=3, erase=f([0.5, 2])),
    dict(sampling=several(1, 1), bend=bend, blur=gaussian(1.0), noise=noise, flat=flat[:, :2].copy(), shift=2),
    dict(matrix=warp.fixed([[0, 1.7, -3], [-2.2, 0, 30]]), sampling=several(0, 0), flat=flat, shift=3, noise=noise,
         table=table, erase=f([9, 0])),
    dict(matrix=turn(1, 0)[[1, 0, 2, 4, 3, 5]], sampling=several(0, 2), blur=gaussian(2), bend=bend[:, 1:, 1:].copy()),
]
goal = 13, 34
for dtype, chosen in ((np.float32, range(8)), (np.float16, [1]), (np.uint16, [2]), (np.uint8, [6])):
    cases = [base._replace(**changes[i]) for i in chosen]
    stack = rng.integers(0, 256, (len(cases), 2, 29, 23), dtype=np.uint8)
    # Interleaved channels but for one dtype; "on the device", because the simulator copies only contiguous arrays.
    out = np.zeros((len(cases), *goal, 2), dtype).transpose(0, 3, 1, 2)
    out = np.zeros(out.shape, dtype) if dtype == np.float16 else out
    cuda_augment.augment_batch(stack, FakeCUDAArray(out), stack_augmentations(cases, stack.shape[1:], goal))
    for b, a in enumerate(cases):
        expected = np.zeros((2, *goal), dtype)
        augment_site(stack[b], expected, a)
        bits = f"u{expected.itemsize}"
        assert (np.ascontiguousarray(out[b]).view(bits) == expected.view(bits)).all(), (dtype, chosen[b])
exact = [(1 + 2**-12, 1 + 2**-12, -1), (16777215, 1 / 3, 0.1), (3, 5, 2**-40)]
for a, b, d in exact:
    wide = np.longdouble(f(a)) * np.longdouble(f(b)) + np.longdouble(f(d))
    assert cuda_augment._exact_fma(f(a), f(b), f(d)) == f(wide)
print("simulated")
"""


@needs_numba_cuda
def test_launcher_on_the_simulator():
    """Bit-equal to the CPU kernel: maps of every kind, every operation, every dtype, both memory formats."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    run = subprocess.run(
        [sys.executable, "-c", ON_THE_SIMULATOR], env=environment, capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "simulated"


@needs_numba_cuda
def test_kernels_compile_to_ptx():
    """For an H100, without double precision, and no multiplication and addition became one that is not meant to."""
    from rxrx_kernels import cuda_augment

    compiled = cuda_augment.ptx((9, 0), ("float32", "blur"))
    assert set(compiled) == {"float32", "blur_rows", "blur_columns"}
    for name, text in compiled.items():
        assert ".target sm_90" in text and ".f64" not in text, name
        assert not re.search(r"mad\.(rn\.)?f32", text), name
    # Light 3, noise 2 (variance, value), table 1, eraser 1.
    assert compiled["float32"].count("fma.rn.f32") == 7


def test_tables_are_packed_into_one_block():
    """Every field lies in the block at its offset, aligned, and comes back as it was."""
    cases = [augmentation(2), augmentation(2, blur=gaussian(1), flat=np.ones((2, 3, 3)), bend=np.ones((2, 4, 4)))]
    tables = stack_augmentations(cases, (3, 20, 30), (16, 24))
    block, layout = tables.packed()
    assert [entry[0] for entry in layout] == list(tables._fields)
    for (_, offset, shape, dtype), array in zip(layout, tables):
        assert offset % 256 == 0
        got = block[offset : offset + array.nbytes].view(dtype).reshape(shape)
        np.testing.assert_array_equal(got, array)
    # Without weights no blur, and without a user no table.
    assert stack_augmentations(cases[:1], (3, 20, 30), (16, 24)).blur.shape[0] == 0
    with pytest.raises(ValueError, match="order"):
        stack_augmentations([augmentation(2, order=[0, 3])], (3, 20, 30), (16, 24))
