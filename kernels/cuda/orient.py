"""CUDA launchers of the kernels of the orientation and the histogram, for pixels of 8 and 16 bits.

Needs ``numba-cuda``. Arrays are anything with ``__cuda_array_interface__`` (torch, CuPy, Numba), and must be ready on
the given stream; launches are asynchronous on it. Without a GPU the same code runs on Numba's simulator
(``NUMBA_ENABLE_CUDASIM=1``) and compiles to PTX (:func:`ptx`).
"""

from __future__ import annotations

import numpy as np
from numba import config, cuda, types
from rxrx_kernels.cuda.arrays import inline, on_device
from rxrx_kernels.histogram.uint8 import BINS
from rxrx_kernels.orient import site as fused

__all__ = ["check_blocks", "histogram_batch", "orient_batch", "ptx"]

TILE = 32
# One column more than a tile has, so that reading a column does not queue at one memory bank.
_TILE_SHAPE = (TILE, TILE + 1)
# 256 threads, four pixels each. The simulator's threads are the system's, and slow to start.
ROWS = 2 if config.ENABLE_CUDASIM else 8
# Pixels a block of the histogram counts; shared-memory counts are merged once a block.
STRETCH = 16384

# Blocks along a grid's second and third axis.
_MOST_BLOCKS = 65535

_source, _normalise = inline(fused.source), inline(fused.normalise)


def _make_fuse(pixel):
    """Make the kernel for pixels of a Numba type."""

    def fuse(stack, out, codes, center, scale):
        """One block writes one 32 x 32 tile of one channel of one site.

        The tile is read along source rows and written along output rows, so that both are coalesced; for transposing
        geometries it turns over in shared memory.
        """
        tile = cuda.shared.array(_TILE_SHAPE, pixel)
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

    return fuse


def _move(stack, out, codes, center, scale):
    """As the fused kernel for raw pixels: moved, not normalised."""
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


_FUSE = {1: _make_fuse(types.uint8), 2: _make_fuse(types.uint16)}
_fuse_kernels = {size: cuda.jit(kernel) for size, kernel in _FUSE.items()}
_move_kernel, _count_kernel = cuda.jit(_move), cuda.jit(_count)


def orient_batch(stack, out, codes, center, scale, stream=0) -> None:
    """Turn, flip, normalise and cast a batch on the GPU.

    Parameters
    ----------
    stack : (B, C, H, W) uint8 or uint16, on the device, any strides
    out : (B, C, H', W') float32, float16 or the dtype of ``stack``, on the device, any strides
        With the dtype of ``stack`` the pixels are moved and not normalised. Transposing codes need H = W.
    codes : (B,) uint8, on the device
        Geometry of each sample, see :mod:`rxrx_kernels.orient.site`.
    center, scale : (B, C) float32, on the device
    stream : numba.cuda stream or 0
        ``numba.cuda.external_stream(pointer)`` joins a stream of CuPy or torch.
    """
    stack, out, codes, center, scale = map(on_device, (stack, out, codes, center, scale))
    batch, channels, rows, columns = stack.shape
    height, width = out.shape[2:]
    if tuple(out.shape[:2]) != (batch, channels) or height * width != rows * columns:
        raise ValueError(f"out has shape {tuple(out.shape)}, which does not fit a stack of shape {tuple(stack.shape)}")
    if stack.dtype not in (np.uint8, np.uint16) or out.dtype not in (np.float32, np.float16, stack.dtype):
        raise ValueError(
            f"stack must be uint8 or uint16 and out float32, float16 or as stack, got {stack.dtype} and {out.dtype}"
        )
    if batch * channels * rows * columns == 0:
        return
    check_blocks(batch * channels)
    grid = (-(-width // TILE), -(-height // TILE), batch * channels)
    kernel = _move_kernel if out.dtype == stack.dtype else _fuse_kernels[stack.dtype.itemsize]
    kernel[grid, (TILE, ROWS), stream](stack, out, codes, center, scale)


def check_blocks(planes: int) -> None:
    """Refuse more planes, samples times channels, than a grid has places along an axis."""
    if planes > _MOST_BLOCKS:
        raise ValueError(f"{planes} channels in a batch: a launch takes at most {_MOST_BLOCKS}")


def histogram_batch(stack, counts, stream=0) -> None:
    """Add the values of each channel of each site to ``counts``.

    Parameters
    ----------
    stack : (B, C, H, W) uint8, on the device, any strides
    counts : (B, C, 256) int32, on the device
        Exact for images of up to 2^31 pixels.
    stream : numba.cuda stream or 0
    """
    stack, counts = on_device(stack), on_device(counts)
    batch, channels, rows, columns = stack.shape
    if stack.dtype != np.uint8 or counts.dtype != np.int32:
        raise ValueError(f"stack must be uint8 and counts int32, got {stack.dtype} and {counts.dtype}")
    if tuple(counts.shape) != (batch, channels, BINS):
        raise ValueError(f"counts must be ({batch}, {channels}, {BINS}), got {tuple(counts.shape)}")
    if batch * channels * rows * columns == 0:
        return
    check_blocks(batch * channels)
    _count_kernel[(-(-rows * columns // STRETCH), batch * channels), BINS, stream](stack, counts)


def ptx(compute_capability: tuple[int, int]) -> dict[str, str]:
    """Compile every kernel to PTX for a compute capability such as (9, 0). Needs no GPU.

    Returns
    -------
    dict of str to str
        Kernel name to PTX text.
    """
    stack, wide = (types.Array(kind, 4, "A", readonly=False) for kind in (types.uint8, types.uint16))
    rows = types.Array(types.float32, 2, "C")
    codes = types.Array(types.uint8, 1, "C")
    float_out, half_out = (types.Array(kind, 4, "A") for kind in (types.float32, types.float16))
    counts = types.Array(types.int32, 3, "C")
    signatures = {
        "fuse": (_FUSE[1], types.void(stack, float_out, codes, rows, rows)),
        "fuse_half": (_FUSE[1], types.void(stack, half_out, codes, rows, rows)),
        "fuse16": (_FUSE[2], types.void(wide, float_out, codes, rows, rows)),
        "fuse16_half": (_FUSE[2], types.void(wide, half_out, codes, rows, rows)),
        "move": (_move, types.void(stack, stack, codes, rows, rows)),
        "move16": (_move, types.void(wide, wide, codes, rows, rows)),
        "count": (_count, types.void(stack, counts)),
    }
    return {
        name: cuda.compile_ptx(function, signature, cc=compute_capability)[0]
        for name, (function, signature) in signatures.items()
    }
