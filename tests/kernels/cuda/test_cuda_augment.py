"""The augmentation of a batch on CUDA: on Numba's simulator against the CPU kernel, and compiled to PTX."""

import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from augment_model import augmentation
from rxrx_kernels.augment.blur import gaussian
from rxrx_kernels.augment.tables import stack_augmentations

needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed (extra ptx, cuda12 or cuda13)"
)

# The simulator is chosen by an environment variable before numba is imported, so it runs in a process of its own.
ON_THE_SIMULATOR = """
import warnings
import numpy as np
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
from rxrx_kernels.augment import warp
from rxrx_kernels.cuda import augment as cuda_augment
from rxrx_kernels.cuda import pixel as cuda_pixel
from rxrx_kernels.augment.site import augment_site, plain
from rxrx_kernels.augment.tables import stack_augmentations
from rxrx_kernels.augment.blur import gaussian

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
    dict(matrix=turn(1, -4), sampling=several(1, 0), order=several(1, -1), lut=table),
    dict(matrix=turn(2.1, -9), sampling=several(2, 0), flat=flat, flat_log2=3, erase=f([0.5, 2])),
    dict(sampling=several(1, 1), displacement=bend, blur=gaussian(1.0), noise=noise, flat=flat[:, :2].copy(),
         flat_log2=2),
    dict(matrix=warp.fixed([[0, 1.7, -3], [-2.2, 0, 30]]), sampling=several(0, 0), flat=flat, flat_log2=3, noise=noise,
         lut=table, erase=f([9, 0])),
    dict(matrix=turn(1, 0)[[1, 0, 2, 4, 3, 5]], sampling=several(0, 2), blur=gaussian(2),
         displacement=bend[:, 1:, 1:].copy()),
]
goal = 13, 34
runs = [(8, np.float32, False, range(8)), (8, np.float16, False, [1]), (8, np.uint16, False, [2]),
        (8, np.uint8, False, [6]), (16, np.float32, False, range(8)), (16, np.float16, False, [3]),
        (16, np.uint16, False, [5]), (16, np.uint16, True, [6])]
for bits, dtype, raw, chosen in runs:
    cases = [base._replace(**changes[i]) for i in chosen]
    if bits == 16:
        tall = rng.normal(size=(2, 4096)).astype(f)
        cases = [a._replace(lut=tall, lut_log2=several(4, 3)) if len(a.lut) else a for a in cases]
        cases = [a._replace(noise=a.noise * f(300)) for a in cases]
    stack = rng.integers(0, 1 << bits, (len(cases), 2, 29, 23), dtype=f"uint{bits}")
    # Interleaved channels but for one dtype; "on the device", because the simulator copies only contiguous arrays.
    out = np.zeros((len(cases), *goal, 2), dtype).transpose(0, 3, 1, 2)
    out = np.zeros(out.shape, dtype) if dtype == np.float16 else out
    tables = stack_augmentations(cases, stack.shape[1:], goal, bits)
    scratch = FakeCUDAArray(np.full(cuda_augment.blur_bytes(stack.shape, bits), 77, np.uint8)) if raw else None
    options = dict(raw=raw, scratch=scratch)
    cuda_augment.augment_batch(stack, FakeCUDAArray(out), tables, work=tables.work(), **options)
    expected = [np.zeros((2, *goal), dtype) for _ in cases]
    for b, a in enumerate(cases):
        augment_site(stack[b], expected[b], a, raw)
        unsigned = f"u{expected[b].itemsize}"
        same = np.ascontiguousarray(out[b]).view(unsigned) == expected[b].view(unsigned)
        assert same.all(), (bits, dtype, raw, chosen[b])
# The leaner kernels, each on what it is for, and everything on what the leanest is for.
spread = dict(erase=f([0.5, 2]))
for work, chosen, other in ((0, [0, 2], dict(noise=base.noise)), (1, [3], dict(lut=base.lut)), (2, [6], spread)):
    cases = [base._replace(**{**changes[i], **other}) for i in chosen]
    stack = rng.integers(0, 256, (len(cases), 2, 29, 23), dtype=np.uint8)
    tables = stack_augmentations(cases, stack.shape[1:], goal)
    assert tables.work() == work, (work, tables.work())
    for asked in {work, 3} if work == 0 else {work}:
        out = np.zeros((len(cases), 2, *goal), f)
        cuda_augment.augment_batch(stack, out, tables, work=asked)
        for b, a in enumerate(cases):
            expected = np.zeros((2, *goal), f)
            augment_site(stack[b], expected, a)
            assert out[b].tobytes() == expected.tobytes(), (work, asked, chosen[b])
# Blurred in memory that is given.
case = base._replace(blur=gaussian(1.5))
for bits, dtype in ((8, np.uint8), (16, np.uint16)):
    stack = rng.integers(0, 1 << bits, (1, 2, 12, 9), dtype=dtype)
    out, scratch = np.zeros((1, 2, 12, 9), f), np.full(cuda_augment.blur_bytes(stack.shape, bits) + 5, 7, np.uint8)
    tables = stack_augmentations([case._replace(box=several(0, 0, 0, 0))], stack.shape[1:], (12, 9), bits)
    cuda_augment.augment_batch(stack, out, tables, work=tables.work(), scratch=FakeCUDAArray(scratch))
    expected = np.zeros((2, 12, 9), f)
    augment_site(stack[0], expected, case._replace(box=several(0, 0, 0, 0)))
    assert out[0].tobytes() == expected.tobytes() and (scratch[-5:] == 7).all() and (scratch[:-5] != 7).any()
    try:
        cuda_augment.augment_batch(stack, out, tables, scratch=FakeCUDAArray(scratch[:9]))
        raise AssertionError("too little scratch was taken")
    except ValueError as error:
        assert "scratch must be" in str(error)
for wrong, name in (((np.zeros((1, 2, 4, 4), f), out), "float32"), ((stack, np.zeros(out.shape)), "float64")):
    try:
        cuda_augment.augment_batch(*wrong, tables)
        raise AssertionError("wrong dtypes were taken")
    except ValueError as error:
        assert name in str(error)
exact = [(1 + 2**-12, 1 + 2**-12, -1), (16777215, 1 / 3, 0.1), (3, 5, 2**-40)]
for a, b, d in exact:
    wide = np.longdouble(f(a)) * np.longdouble(f(b)) + np.longdouble(f(d))
    assert cuda_pixel._exact_fma(f(a), f(b), f(d)) == f(wide)
print("simulated")
"""


@pytest.mark.slow(20)
@needs_numba_cuda
def test_launcher_on_the_simulator():
    """Bit-equal to the CPU kernel: maps of every kind, every operation, every dtype, both memory formats."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    run = subprocess.run(
        [sys.executable, "-c", ON_THE_SIMULATOR], env=environment, capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "simulated"


# Fused multiply-adds that are meant: light 3, noise 2 (variance, value), table 1 (16 bits: 2), eraser 1; and with 16
# bits one that changes nothing, because its product is by 1/2 and exact: where the first bin's middle lies.
FUSED = {"8 float32 0": 0, "8 float32 3": 7, "16 float32 0": 0, "16 float32 3": 9}
_EXACT = r"fma\.rn\.f32\s+%f\d+, %f\d+, 0f3F000000, 0fBF000000"


@needs_numba_cuda
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_kernels_compile_to_ptx(capability):
    """For both architectures, without double precision; no multiplication and addition became one unless meant."""
    from rxrx_kernels.cuda import augment as cuda_augment

    cases = [(bits, "float32", work) for bits in (8, 16) for work in (0, 3)] if capability == (9, 0) else []
    cases += [(8, "raw", 0), (8, "bfloat16", 0), (16, "raw", 0), (16, "float16", 0), "blur"]
    compiled = cuda_augment.ptx(capability, cases)
    assert {"blur_rows", "blur_columns", "blur_rows16", "blur_columns16"} < set(compiled)
    assert len(compiled) == len(cases) + 3
    for name, text in compiled.items():
        assert f".target sm_{capability[0]}{capability[1]}" in text and ".f64" not in text, name
        assert not re.search(r"mad\.(rn\.)?f32", text), name
        assert text.count("fma.rn.f32") == FUSED.get(name, 0), name
    if capability == (9, 0):
        assert len(re.findall(_EXACT, compiled["16 float32 3"])) == 1
        # What is left out of a kernel leaves no code, and every division is of 32 bits.
        assert len(compiled["8 float32 0"].splitlines()) < 0.7 * len(compiled["8 float32 3"].splitlines())
        assert not re.search(r"(rem|div)\.[su]64", compiled["8 float32 0"])


def test_tables_are_packed_into_one_block():
    """Every field lies in the block at its offset, aligned, and comes back as it was."""
    cases = [
        augmentation(2),
        augmentation(2, blur=gaussian(1), flat=np.ones((2, 3, 3)), displacement=np.ones((2, 4, 4))),
    ]
    tables = stack_augmentations(cases, (3, 20, 30), (16, 24))
    block, layout = tables.packed()
    assert [entry[0] for entry in layout] == list(tables._fields)
    for (_, offset, shape, dtype), array in zip(layout, tables):
        assert offset % 256 == 0
        got = block[offset : offset + array.nbytes].view(dtype).reshape(shape)
        np.testing.assert_array_equal(got, array)
    # Without weights no blur, and without a user no table; but nothing is empty, which has no address on a GPU.
    lean = stack_augmentations(cases[:1], (3, 20, 30), (16, 24))
    assert lean.blur.shape == (1, 1)
    assert lean.lut.shape == (1, 1, 1)
    assert all(array.size for array in lean)
    with pytest.raises(ValueError, match="order"):
        stack_augmentations([augmentation(2, order=[0, 3])], (3, 20, 30), (16, 24))
