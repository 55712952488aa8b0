"""The augmentations of :mod:`rxrx_kernels.augment.site` for a batch on the GPU: the same bits from the same functions.

The arithmetic of a pixel is in :mod:`rxrx_kernels.cuda.pixel`; this module launches it. The host works out what a whole
row or column shares (:mod:`rxrx_kernels.augment.tables`), which leaves a GPU with some 40 operations a pixel of a
separable map: about what it can do in the time that the pixel takes to be written.

A warp of 32 threads runs along output rows where those lie along source rows, and along output columns where an image
is turned by 45 to 135 degrees: its reads then fall into few cache lines. Turned pixels pass through shared memory, so
that writes are along rows for both.

There is a kernel for each depth of pixels, kind of output, and kind of work (:meth:`Tables.work`), compiled when it is
first wanted: by ptxas for sm_90, what the presets ask for takes 72 registers a thread, and everything together 96.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import config, cuda, float32, types
from rxrx_kernels.augment import tables as at
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.tables import EXTRAS, WARPED, Tables
from rxrx_kernels.cuda.arrays import inline, on_device
from rxrx_kernels.cuda.orient import check_blocks
from rxrx_kernels.cuda.pixel import bfloat16_bits, make_finished, make_grey, reach

__all__ = ["KINDS", "augment_batch", "blur_bytes", "ptx"]

TILE = 32
# One column more than a tile has, so that reading a column does not queue at one memory bank.
_TILE_SHAPE = (TILE, TILE + 1)
# 256 threads, four pixels each. The simulator's threads are the system's, and slow to start.
ROWS = 2 if config.ENABLE_CUDASIM else 8

#: Kinds of output by the bits of a stored pixel. "raw" is grey values, of the stored dtype.
KINDS = ("raw", "float32", "float16", "bfloat16")


@inline
def _as_is(value):
    return value


@inline
def _byte(value):
    return np.uint8(min(max(value, np.float32(0)), np.float32(255)) + np.float32(0.5))


@inline
def _short(value):
    return np.uint16(min(max(value, np.float32(0)), np.float32(65535)) + np.float32(0.5))


@functools.cache
def _source(bits: int, kind: str, work: int):
    """Make the kernel: one block writes one 32 x 32 tile of one channel of one site."""
    cast = {"raw": _byte if bits == 8 else _short, "bfloat16": bfloat16_bits}.get(kind, _as_is)
    grey = make_grey(bits, bool(work & WARPED))
    finished = make_finished(bits, bool(work & EXTRAS), kind == "raw")

    def kernel(stack, out, t):
        tile = cuda.shared.array(_TILE_SHAPE, float32)
        channels, height, width = np.uint32(out.shape[1]), np.uint32(out.shape[2]), np.uint32(out.shape[3])
        # Unsigned: a signed place would be looked at for being negative at every access, which takes registers too.
        b = np.uint32(np.uint32(cuda.blockIdx.z) // channels)
        k = np.uint32(np.uint32(cuda.blockIdx.z) - b * channels)
        x0, y0 = np.uint32(cuda.blockIdx.x * TILE), np.uint32(cuda.blockIdx.y * TILE)
        tx, ty = np.uint32(cuda.threadIdx.x), np.uint32(cuda.threadIdx.y)
        down, channel = t.switches[b, at.DOWN] != 0, t.order[b, k]
        j = ty
        while j < TILE:
            dy, dx = (tx, j) if down else (j, tx)
            y, x = np.uint32(y0 + dy), np.uint32(x0 + dx)
            if y < height and x < width:
                value = np.float32(0)
                if channel >= 0:
                    value = grey(stack[b, np.uint32(channel)], b, y, x, t)
                    number = np.uint32((k * height + y) * width + x)
                    value = finished(value, b, k, y, x, number, t)
                if down:
                    tile[dy, dx] = value
                else:
                    out[b, k, y, x] = cast(value)
            j = np.uint32(j + np.uint32(ROWS))
        if down:
            cuda.syncthreads()
            j = ty
            while j < TILE:
                y, x = np.uint32(y0 + j), np.uint32(x0 + tx)
                if y < height and x < width:
                    out[b, k, y, x] = cast(tile[j, tx])
                j = np.uint32(j + np.uint32(ROWS))

    return kernel


def _blur(source, target, weights, sizes, along):
    """One pass of the blur: rows of pixels to sums, then columns of sums to pixels."""
    n = cuda.blockIdx.z // target.shape[1]
    k = cuda.blockIdx.z - n * target.shape[1]
    x = cuda.blockIdx.x * TILE + cuda.threadIdx.x
    y = cuda.blockIdx.y * ROWS + cuda.threadIdx.y
    rows, columns = target.shape[2], target.shape[3]
    if y < rows and x < columns:
        radius, total = sizes[n] // 2, np.int64(0 if along else 1 << 15)
        for j in range(sizes[n]):
            if along:
                total += np.int64(source[n, k, y, reach(x + j - radius, columns, warp.REFLECT)]) * weights[n, j]
            else:
                total += np.int64(source[n, k, reach(y + j - radius, rows, warp.REFLECT), x]) * weights[n, j]
        target[n, k, y, x] = total if along else total >> 16


_blur_kernel = cuda.jit(_blur)
# Sums of pixels times weights, by the bits of a pixel.
_SUMS = {8: np.uint16, 16: np.uint32}


@functools.cache
def _kernel(bits: int, kind: str, work: int):
    return cuda.jit(_source(bits, kind, work))


def blur_bytes(shape: tuple[int, ...], bits: int = 8) -> int:
    """Bytes of memory on the device that blurring a stack takes beside it."""
    return int(np.prod(shape, dtype=np.int64)) * (bits // 8) * 3


def augment_batch(stack, out, tables: Tables, stream=0, *, work=WARPED | EXTRAS, raw=False, scratch=None) -> None:
    """Augment a batch on the GPU as :func:`rxrx_kernels.augment.site.augment_site` does a site.

    Parameters
    ----------
    stack : (B, C', H, W) uint8 or uint16, on the device, any strides
    out : (B, C, H', W') float32, float16, uint16 (bits of bfloat16) or, for raw pixels, as ``stack``; any strides
        On the device.
    tables : Tables
        What :func:`rxrx_kernels.augment.tables.stack_augmentations` gives for these shapes, its arrays on the device.
    stream : numba.cuda stream or 0
        ``numba.cuda.external_stream(pointer)`` joins a stream of CuPy or torch.
    work : int
        The tables' :meth:`Tables.work`, told while they were on the host; everything, if it is not known.
    raw : bool
        With 16-bit pixels: ``out`` is uint16 and gets grey values, not bfloat16.
    scratch : (N,) uint8, on the device, optional
        At least :func:`blur_bytes`, which the blur may write to in the stream's order; else it is allocated.
    """
    stack, out = on_device(stack), on_device(out)
    tables = Tables(*map(on_device, tables))
    batch, sources, _rows, _columns = stack.shape
    _, channels, height, width = out.shape
    bits, kind = _told(stack, out, raw)
    if tuple(tables.switches.shape[:1]) != (batch,) or tuple(tables.order.shape) != (batch, channels):
        raise ValueError(f"tables are for {tuple(tables.order.shape)} sites and channels, out is {tuple(out.shape)}")
    if tables.column_first.shape[1] < max(height, width):
        raise ValueError(f"tables are for smaller images than out, {height} x {width}")
    if out.shape[0] != batch:
        raise ValueError(f"out has {out.shape[0]} sites and stack {batch}")
    if 0 in tuple(out.shape):
        return
    check_blocks(batch * max(channels, sources))
    if tables.blur.shape[1] > 1:
        stack = _blurred(stack, tables, bits, stream, scratch)
    grid = (-(-width // TILE), -(-height // TILE), batch * channels)
    _kernel(bits, kind, int(work))[grid, (TILE, ROWS), stream](stack, out, tables)


def _told(stack, out, raw) -> tuple[int, str]:
    """Bits of a stored pixel, and the kind of output."""
    bits = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}.get(np.dtype(stack.dtype))
    kinds = {np.dtype(np.float32): "float32", np.dtype(np.float16): "float16", np.dtype(np.uint16): "bfloat16"}
    kind = kinds.get(np.dtype(out.dtype))
    if out.dtype == np.uint8 or raw:
        kind = "raw" if out.dtype == stack.dtype else None
    if bits is None or kind is None:
        raise ValueError(
            "stack must be uint8 or uint16, and out float32, float16, uint16 (bits of bfloat16) or raw as stack, got "
            f"{stack.dtype} and {out.dtype}"
        )
    return bits, kind


def _blurred(stack, tables, bits, stream, scratch):
    """Blur the stack into scratch memory. Sites without blur have one weight, and pass through as they are."""
    batch, sources, rows, columns = shape = tuple(stack.shape)
    kinds = _SUMS[bits], stack.dtype
    if scratch is None:
        sums, blurred = (cuda.device_array(shape, kind, stream=stream) for kind in kinds)
    else:
        scratch, size = on_device(scratch), blur_bytes(shape, bits)
        if scratch.shape[0] < size or scratch.dtype != np.uint8:
            raise ValueError(f"scratch must be ({size},) uint8 or more, got {scratch.dtype}{tuple(scratch.shape)}")
        # Two thirds are of the sums, whose items are the larger ones.
        cut = size // 3 * 2
        parts = scratch[:cut], scratch[cut:size]
        sums, blurred = (part.view(kind).reshape(shape) for part, kind in zip(parts, kinds))
    grid = (-(-columns // TILE), -(-rows // ROWS), batch * sources)
    _blur_kernel[grid, (TILE, ROWS), stream](stack, sums, tables.blur, tables.blur_sizes, True)
    _blur_kernel[grid, (TILE, ROWS), stream](sums, blurred, tables.blur, tables.blur_sizes, False)
    return blurred


#: What :func:`ptx` compiles by default: (bits, kind of output, work), and the blur.
EVERY = tuple((bits, kind, work) for bits in (8, 16) for kind in KINDS for work in range(4))


def ptx(compute_capability: tuple[int, int], cases=(*EVERY, "blur")) -> dict[str, str]:
    """Compile kernels, by (bits, kind, work) or "blur", to PTX for a compute capability such as (9, 0). Needs no GPU.

    Returns
    -------
    dict of str to str
        Kernel name, such as "8 float32 0" or "blur_rows", to PTX text.
    """
    kinds = {"raw8": types.uint8, "raw16": types.uint16, "bfloat16": types.uint16}
    pixels = {8: types.uint8, 16: types.uint16}
    tables = types.NamedTuple([types.Array(kind, ndim, "C") for kind, ndim in Tables.kinds()], Tables)
    texts = {}
    for bits, kind, work in (case for case in cases if case != "blur"):
        out = kinds.get(f"raw{bits}" if kind == "raw" else kind) or getattr(types, kind)
        signature = types.void(types.Array(pixels[bits], 4, "A"), types.Array(out, 4, "A"), tables)
        text = cuda.compile_ptx(_source(bits, kind, work), signature, cc=compute_capability)[0]
        texts[f"{bits} {kind} {work}"] = text
    row, weights = types.Array(types.int32, 1, "C"), types.Array(types.int32, 2, "C")
    for bits, pixel in pixels.items() if "blur" in cases else ():
        stack, blurred = types.Array(pixel, 4, "A"), types.Array(pixel, 4, "C")
        sums = types.Array(getattr(types, np.dtype(_SUMS[bits]).name), 4, "C")
        passes = (("rows", stack, sums), ("columns", sums, blurred))
        for name, source, target in passes:
            signature = types.void(source, target, weights, row, types.boolean)
            text = cuda.compile_ptx(_blur, signature, cc=compute_capability)[0]
            texts[f"blur_{name}" + ("16" if bits == 16 else "")] = text
    return texts
