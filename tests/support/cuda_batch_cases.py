"""The batch kernels of CUDA against the CPU's, case by case: ``python cuda_batch_cases.py CASE``.

On the simulator at sizes that it can do in seconds, on a GPU at larger ones, and there under compute-sanitizer.
"""

import sys
import warnings

import numpy as np
import torch
from numba import config
from rxrx_kernels.augment import blur, warp
from rxrx_kernels.augment.photometric import LUT8, LUT16
from rxrx_kernels.augment.site import augment_site, plain
from rxrx_kernels.augment.tables import stack_augmentations
from rxrx_kernels.cuda import augment as cuda_augment
from rxrx_kernels.cuda import histogram16 as cuda_moments16
from rxrx_kernels.cuda import orient as kernels
from rxrx_kernels.histogram import uint8 as moments
from rxrx_kernels.histogram.uint16 import BINS16, Histogram, histogram16
from rxrx_kernels.orient.site import orient_site

SIMULATED = bool(config.ENABLE_CUDASIM)
DEVICE = "cpu" if SIMULATED else "cuda"
SITES, SIDE = (2, 9) if SIMULATED else (8, 70)
rng, f32 = np.random.default_rng(0), np.float32
KINDS = {np.float32: torch.float32, np.float16: torch.float16, np.uint8: torch.uint8, np.uint16: torch.int16}


def given(array):
    """An array on the device, for a launcher."""
    if SIMULATED:
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        return FakeCUDAArray(array)
    from numba import cuda

    return cuda.to_device(array)


class Output:
    """Memory of (B, C, H, W) that a kernel writes, contiguous or with the channels last, in the midst of more of it."""

    def __init__(self, shape, dtype, last):
        batch, channels, height, width = shape
        size = (batch + 2, height, width, channels) if last else (batch + 2, channels, height, width)
        self.whole = torch.full(size, 77, dtype=KINDS[dtype], device=DEVICE)
        part = self.whole[1:-1]
        self.part, self.dtype = part.permute(0, 3, 1, 2) if last else part, dtype

    def given(self):
        """What the launcher gets."""
        if SIMULATED:
            return given(self.part.numpy().view(self.dtype))
        from numba import cuda

        return cuda.as_cuda_array(self.part).view(self.dtype)

    def read(self):
        """What was written, and nothing around it."""
        assert (self.whole[0] == 77).all() and (self.whole[-1] == 77).all(), "written outside of the output"
        return self.part.contiguous().cpu().numpy().view(self.dtype)


def same(found, wanted, what):
    kind = f"u{wanted.itemsize}"
    assert np.array_equal(np.ascontiguousarray(found).view(kind), wanted.view(kind)), what


def fused():
    """Every code, kind of output and memory format, 8 and 16 bits."""
    shape = (8, 2, SIDE, SIDE)
    center, scale = rng.uniform(0.1, 255, (2, 8, 2)).astype(f32)
    codes = np.arange(8, dtype=np.uint8)
    tables = [given(table) for table in (codes, center, scale)]
    for pixel in (np.uint8, np.uint16):
        stack = rng.integers(0, np.iinfo(pixel).max + 1, shape, dtype=pixel)
        for dtype, last in ((np.float32, False), (np.float16, True), (pixel, False), (pixel, True)):
            out = Output(shape, dtype, last)
            kernels.orient_batch(given(stack), out.given(), *tables)
            found = out.read()
            for b in range(8):
                turned = stack[b].transpose(0, 2, 1) if b & 4 else stack[b]
                # The mirrors are of the source: of a transposed image, rows and columns change parts.
                turned = turned[:, :: -1 if b & (1 if b & 4 else 2) else 1, :: -1 if b & (2 if b & 4 else 1) else 1]
                if dtype is pixel:
                    same(found[b], np.ascontiguousarray(turned), (pixel, last, b))
                    continue
                wanted = ((turned.astype(f32) - center[b, :, None, None]) * scale[b, :, None, None]).astype(dtype)
                same(found[b], np.ascontiguousarray(wanted), (pixel, dtype, b))
                if pixel is np.uint8:
                    again = np.empty(shape[1:], dtype)
                    orient_site(stack[b], again, b, center[b], scale[b])
                    same(again, np.ascontiguousarray(wanted), b)


def histograms():
    """Of 8 and of 16 bits; not square, and more pixels than a block counts."""
    shape = (2, 2, 17, 33) if SIMULATED else (2, 3, 301, 277)
    stack = rng.integers(0, 256, shape, dtype=np.uint8)
    counts = given(np.zeros((*shape[:2], moments.BINS), np.int32))
    kernels.histogram_batch(given(stack), counts)
    same(counts.copy_to_host().astype(np.int64), np.stack([moments.histogram(site) for site in stack]), "counts")
    deep = stack.astype(np.uint16)
    deep[0, 0] *= 17
    deep[1] = rng.integers(0, 65536, shape[1:])
    extremes = np.empty((*shape[:2], 2), np.int32)
    extremes[:] = cuda_moments16.EXTREMES
    zeros = np.zeros((*shape[:2], BINS16), np.int32), np.zeros((*shape[:2], 2), np.uint64), extremes
    parts = [given(part) for part in zeros]
    cuda_moments16.histogram16_batch(given(deep), *parts)
    found = cuda_moments16.as_histogram(*(part.copy_to_host() for part in parts), shape[2] * shape[3])
    for mine, theirs in zip(found, Histogram.stack([histogram16(site) for site in deep])):
        same(mine, theirs, "16 bits")


def augmentation(number: int, bits: int):
    """The number-th mixture of operations."""
    rng = np.random.default_rng(number)
    matrix = np.column_stack([rng.normal(0, 1, (2, 2)), rng.normal(SIDE / 2, SIDE / 2, 2)])
    if number % 2 == 0:
        matrix[0, 1] = matrix[1, 0] = 0
    if number % 4 == 2:
        matrix[:, :2] = matrix[:, 1::-1]
    a = plain(3, rng.uniform(0, 255, 3), rng.uniform(0.01, 2, 3))._replace(
        matrix=warp.fixed(matrix), sampling=np.array([number % 3, number // 3 % 3]), order=np.array([2, -1, 0]),
        fill=rng.uniform(0, 255, 3).astype(f32), key=rng.integers(0, 2**32, 2, dtype=np.uint32),
    )  # fmt: skip
    changes = [
        dict(blur=blur.gaussian(1.3)), dict(flat=rng.uniform(0.5, 1.5, (3, 5, 6)).astype(f32), flat_log2=4),
        dict(displacement=rng.integers(-2000, 2000, (2, 6, 6)).astype(np.int32)), dict(noise=np.full((3, 2), 3, f32)),
        dict(box=np.array([1, 7, 2, 8]), erase=np.array([0.5 * (number & 1), number & 2], f32)),
        dict(lut=rng.normal(size=(3, LUT8 if bits == 8 else LUT16)).astype(f32),
             lut_log2=np.array([4, 0, 3]) if bits == 16 else a.lut_log2),
    ]  # fmt: skip
    for change, chosen in zip(changes, rng.random(len(changes)) < (0.4, 0.3, 0.2, 0.3, 0.5, 0.3)):
        a = a._replace(**change) if chosen else a
    return a


def augmented(bits: int):
    """Mixtures of every operation, in each kind of output, by the leanest kernel that is enough and the whole one."""
    raw = np.uint8 if bits == 8 else np.uint16
    # float32, float16, the bits of bfloat16, and grey values.
    kinds = ((np.float32, False), (np.float16, False), (np.uint16, False), (raw, True))
    for turn in range(4 if SIMULATED else 8):
        cases = [augmentation(SITES * turn + i, bits) for i in range(SITES)]
        if turn % 4 == 0:
            none = {
                name: getattr(plain(3), name) for name in ("displacement", "flat", "noise", "lut", "erase", "matrix")
            }
            cases = [a._replace(**none) for a in cases]
        stack = rng.integers(0, 1 << bits, (SITES, 3, SIDE + 4, SIDE - 3)).astype(f"uint{bits}")
        goal, (dtype, is_raw) = (SIDE - 1, SIDE + 6), kinds[turn % len(kinds)]
        tables = stack_augmentations(cases, stack.shape[1:], goal, bits)
        on_device = type(tables)(*map(given, tables))
        for work in {tables.work(), 3}:
            out = Output((SITES, 3, *goal), dtype, turn % 2 == 1)
            cuda_augment.augment_batch(
                given(stack), out.given(), on_device, work=work, raw=is_raw and bits == 16,
                scratch=given(np.empty(cuda_augment.blur_bytes(stack.shape, bits), np.uint8)) if turn % 2 else None,
            )  # fmt: skip
            found = out.read()
            for b, a in enumerate(cases):
                wanted = np.zeros((3, *goal), dtype)
                augment_site(stack[b], wanted, a, is_raw)
                same(found[b], wanted, (turn, work, dtype, b))


def augmented_8():
    augmented(8)


def augmented_16():
    augmented(16)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    globals()[sys.argv[1]]()
    print(f"{sys.argv[1]}: done")
