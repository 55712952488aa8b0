"""CUDA launchers of the kernels whose arithmetic stands in ``fused`` and ``moments``.

Needs ``numba-cuda``. Arrays are anything with ``__cuda_array_interface__`` (CuPy, torch, DALI through DLPack and CuPy);
launches are asynchronous on the given stream. Without a GPU the same code runs on Numba's simulator
(``NUMBA_ENABLE_CUDASIM=1``) and compiles to PTX (:func:`ptx`).
"""

from __future__ import annotations

import numpy as np
from numba import cuda, types, uint8
from rxrx_kernels import fused
from rxrx_kernels.moments import BINS

__all__ = ["fuse_batch", "histogram_batch", "ptx"]

TILE = 32
# One column more than a tile has, so that reading a column does not queue at one memory bank.
_TILE_SHAPE = (TILE, TILE + 1)
# 256 threads, four pixels each.
ROWS = 8
# Pixels a block of the histogram counts; shared-memory counts are merged once a block.
STRETCH = 16384

_source = cuda.jit(device=True, inline=True)(fused.source)
_normalise = cuda.jit(device=True, inline=True)(fused.normalise)


def _fuse(stack, out, codes, center, scale):
    """One block writes one 32 x 32 tile of one channel of one site.

    The tile is read along source rows and written along output rows, so that both are coalesced; for transposing
    geometries it turns over in shared memory.
    """
    tile = cuda.shared.array(_TILE_SHAPE, uint8)
    channels = stack.shape[1]
    b = cuda.blockIdx.z // channels
    k = cuda.blockIdx.z - b * channels
    x0, y0 = cuda.blockIdx.x * TILE, cuda.blockIdx.y * TILE
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    height, width = out.shape[2], out.shape[3]
    code = codes[b]
    for j in range(ty, TILE, ROWS):
        if code & 4:
            dy, dx = tx, j
        else:
            dy, dx = j, tx
        y, x = y0 + dy, x0 + dx
        if y < height and x < width:
            r, c = _source(code, y, x, stack.shape[2], stack.shape[3])
            tile[dy, dx] = stack[b, k, r, c]
    cuda.syncthreads()
    m, s = center[b, k], scale[b, k]
    for j in range(ty, TILE, ROWS):
        y, x = y0 + j, x0 + tx
        if y < height and x < width:
            out[b, k, y, x] = _normalise(tile[j, tx], m, s)


def _move(stack, out, codes, center, scale):
    """As :func:`_fuse` for raw pixels: moved, not normalised."""
    channels = stack.shape[1]
    b = cuda.blockIdx.z // channels
    k = cuda.blockIdx.z - b * channels
    x = cuda.blockIdx.x * TILE + cuda.threadIdx.x
    code = codes[b]
    for j in range(cuda.threadIdx.y, TILE, ROWS):
        y = cuda.blockIdx.y * TILE + j
        if y < out.shape[2] and x < out.shape[3]:
            r, c = _source(code, y, x, stack.shape[2], stack.shape[3])
            out[b, k, y, x] = stack[b, k, r, c]


def _count(stack, counts):
    """One block counts a stretch of one channel in shared memory, then adds its bins to the channel's."""
    local = cuda.shared.array(BINS, types.int32)
    channels, width = stack.shape[1], stack.shape[3]
    b = cuda.blockIdx.y // channels
    k = cuda.blockIdx.y - b * channels
    t = cuda.threadIdx.x
    local[t] = 0
    cuda.syncthreads()
    pixels = stack.shape[2] * width
    first = cuda.blockIdx.x * STRETCH
    for i in range(first + t, min(first + STRETCH, pixels), BINS):
        r = i // width
        cuda.atomic.add(local, stack[b, k, r, i - r * width], 1)
    cuda.syncthreads()
    if local[t]:
        cuda.atomic.add(counts, (b, k, t), local[t])


_fuse_kernel, _move_kernel, _count_kernel = cuda.jit(_fuse), cuda.jit(_move), cuda.jit(_count)


def fuse_batch(stack, out, codes, center, scale, stream=0) -> None:
    """Turn, flip, normalise and cast a batch on the GPU.

    Parameters
    ----------
    stack : (B, C, H, W) uint8, on the device, any strides
    out : (B, C, H', W') float32, float16 or uint8, on the device, any strides
        With uint8 the pixels are moved and not normalised. Transposing codes need H = W.
    codes : (B,) uint8, on the device
        Geometry of each sample, see :mod:`rxrx_kernels.fused`.
    center, scale : (B, C) float32, on the device
    stream : numba.cuda stream or 0
        ``numba.cuda.external_stream(pointer)`` joins a stream of CuPy or torch.
    """
    batch, channels, rows, columns = stack.shape
    height, width = out.shape[2:]
    if tuple(out.shape[:2]) != (batch, channels) or height * width != rows * columns:
        raise ValueError(f"out has shape {tuple(out.shape)}, which does not fit a stack of shape {tuple(stack.shape)}")
    if batch == 0:
        return
    grid = (-(-width // TILE), -(-height // TILE), batch * channels)
    kernel = _move_kernel if out.dtype == np.uint8 else _fuse_kernel
    kernel[grid, (TILE, ROWS), stream](stack, out, codes, center, scale)


def histogram_batch(stack, counts, stream=0) -> None:
    """Add the values of each channel of each site to ``counts``.

    Parameters
    ----------
    stack : (B, C, H, W) uint8, on the device, any strides
    counts : (B, C, 256) int32, on the device
        Exact for images of up to 2^31 pixels.
    stream : numba.cuda stream or 0
    """
    batch, channels, rows, columns = stack.shape
    if tuple(counts.shape) != (batch, channels, BINS):
        raise ValueError(f"counts must be ({batch}, {channels}, {BINS}), got {tuple(counts.shape)}")
    if batch == 0:
        return
    _count_kernel[(-(-rows * columns // STRETCH), batch * channels), BINS, stream](stack, counts)


def ptx(compute_capability: tuple[int, int]) -> dict[str, str]:
    """Compile every kernel to PTX for a compute capability such as (9, 0). Needs no GPU.

    Returns
    -------
    dict of str to str
        Kernel name to PTX text.
    """
    stack = types.Array(types.uint8, 4, "A", readonly=False)
    rows = types.Array(types.float32, 2, "C")
    codes = types.Array(types.uint8, 1, "C")
    float_out, half_out, raw_out = (types.Array(kind, 4, "A") for kind in (types.float32, types.float16, types.uint8))
    counts = types.Array(types.int32, 3, "C")
    signatures = {
        "fuse": (_fuse, types.void(stack, float_out, codes, rows, rows)),
        "fuse_half": (_fuse, types.void(stack, half_out, codes, rows, rows)),
        "move": (_move, types.void(stack, raw_out, codes, rows, rows)),
        "count": (_count, types.void(stack, counts)),
    }
    return {
        name: cuda.compile_ptx(function, signature, cc=compute_capability)[0]
        for name, (function, signature) in signatures.items()
    }
