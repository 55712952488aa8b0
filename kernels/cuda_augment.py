"""The augmentations of :mod:`rxrx_kernels.augment` for a batch on the GPU: the same bits from the same functions.

A pixel is read where :mod:`rxrx_kernels.warp` says and finished as :mod:`rxrx_kernels.tone` says; this module launches
them. The host works out what a whole row or column shares (:mod:`rxrx_kernels.augment_tables`), which leaves a GPU with
some 40 operations a pixel of a separable map: about what it can do in the time that the pixel takes to be written.

A warp of 32 threads runs along output rows where those lie along source rows, and along output columns where an image
is turned by 45 to 135 degrees: its reads then fall into few cache lines. Turned pixels pass through shared memory, so
that writes are along rows for both.
"""

from __future__ import annotations

import numpy as np
from numba import config, cuda, float32, types
from rxrx_kernels import augment_tables as at
from rxrx_kernels import tone, warp
from rxrx_kernels.augment_tables import Tables
from rxrx_kernels.noise import scramble

__all__ = ["augment_batch", "ptx"]

TILE = 32
# One column more than a tile has, so that reading a column does not queue at one memory bank.
_TILE_SHAPE = (TILE, TILE + 1)
# 256 threads, four pixels each.
ROWS = 8


def _exact_fma(a, b, c):
    """A fused multiply-add where Python does the arithmetic: the product is exact in float64, the sum rounds to odd."""
    product, c = np.float64(a) * np.float64(b), np.float64(c)
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)
    if error and not int(np.array(total).view(np.int64)) & 1:
        total = np.nextafter(total, np.inf if error > 0 else -np.inf)
    return np.float32(total)


_inline = cuda.jit(device=True, inline=True)
if config.ENABLE_CUDASIM:
    _fma, _times, _bits = (
        _exact_fma,
        lambda a, b: np.float32(a) * np.float32(b),
        lambda a: np.float32(a).view(np.uint32),
    )
else:
    from numba.cuda import libdevice

    _fma = _inline(lambda a, b, c: libdevice.fmaf_rn(a, b, c))
    # A plain product that is subtracted from later would become a fused multiply-add.
    _times = _inline(lambda a, b: libdevice.fmul_rn(a, b))
    _bits = _inline(lambda a: np.uint32(libdevice.float_as_int(a)))

_reach, _place, _outside = _inline(warp.reach), _inline(warp.place), _inline(warp.outside)
_sample = _inline(warp.make_sample(_reach))
_node, _scramble = _inline(tone.node), _inline(scramble)
_shaded, _noisy, _toned = (_inline(make(_fma)) for make in (tone.make_shaded, tone.make_noisy, tone.make_toned))


@_inline
def _mixed(plane, column, row, c_weights, r_weights, columns_taps, rows_taps, border):
    """A pixel of a separable map, in 1/65536 of a grey value."""
    rows, columns = plane.shape
    total = 0
    for i in range(rows_taps):
        weight = r_weights[i]
        # What copies pixels has one weight that is not 0.
        if weight != 0:
            r = _reach(row + i, rows, border)
            line = 0
            for j in range(columns_taps):
                if c_weights[j] != 0:
                    pixel = np.int32(plane[r, _reach(column + j, columns, border)])
                    line = np.int32(line + pixel * np.int32(c_weights[j]))
            total = np.int32(total + line * np.int32(weight))
    return total


@_inline
def _grey(plane, b, y, x, t):
    """Grey value of an output pixel; below 0 where it lies outside of the source and the border is a constant."""
    rows, columns = plane.shape
    plan, m = t.plan[b], t.matrix[b]
    border, kind = plan[at.BORDER], plan[at.FILTER]
    if plan[at.SEPARABLE]:
        u, v = (y, x) if plan[at.SWAPPED] else (x, y)
        span = t.spans[b]
        if border == warp.CONSTANT and (u < span[0] or u >= span[1] or v < span[2] or v >= span[3]):
            return np.float32(-1)
        column, row = t.column_first[b, u], t.row_first[b, v]
        total = _mixed(
            plane,
            column,
            row,
            t.column_weights[b, u],
            t.row_weights[b, v],
            plan[at.COLUMN_TAPS],
            plan[at.ROW_TAPS],
            border,
        )
        return np.float32(total) * np.float32(2.0**-16)
    dx = dy = np.int64(0)
    if plan[at.NODES]:
        dx = dy = np.int64(1 << 19)
        for j in range(4):
            for i in range(4):
                weight = t.x_basis[b, x, i] * t.y_basis[b, y, j]
                p, q = t.y_first[b, y] + j, t.x_first[b, x] + i
                dx += np.int64(t.bend[b, 0, p, q]) * weight
                dy += np.int64(t.bend[b, 1, p, q]) * weight
        dx, dy = dx >> 20, dy >> 20
    bits = plan[at.BITS]
    side = 1 << bits
    if border == warp.CONSTANT:
        c, r = _place(m, np.int64(x), np.int64(y), bits, 0, 0, kind)
        c1, r1 = _place(m, np.int64(x), np.int64(y), bits, side - 1, side - 1, kind)
        if _outside((c + c1 + 2 * dx + 1) >> 1, columns) or _outside((r + r1 + 2 * dy + 1) >> 1, rows):
            return np.float32(-1)
    total = 0
    for j in range(side):
        for i in range(side):
            c, r = _place(m, np.int64(x), np.int64(y), bits, i, j, kind)
            c, r = c + dx, r + dy
            if kind == warp.NEAREST:
                c, r = (c + 128) & -256, (r + 128) & -256
            total = np.int32(total + _sample(plane, c, r, border))
    return np.float32(total) * (np.float32(2.0**-16) / np.float32(side * side))


@_inline
def _finished(value, b, k, y, x, number, raw, t):
    """What becomes of a grey value that lies inside: light, noise; below 0 outside. Then constant, table, eraser."""
    plan, inside = t.plan[b], value >= 0
    if inside and plan[at.FLAT]:
        c, r = _place(t.matrix[b], np.int64(x), np.int64(y), 0, 0, 0, warp.BILINEAR)
        i, u = _node(c, plan[at.FLAT_COLUMNS], plan[at.SHIFT])
        j, v = _node(r, plan[at.FLAT_ROWS], plan[at.SHIFT])
        upper = _shaded(t.flat[b, k, j, i], t.flat[b, k, j, i + 1], u)
        lower = _shaded(t.flat[b, k, j + 1, i], t.flat[b, k, j + 1, i + 1], u)
        value = _times(value, _shaded(upper, lower, v))
    low, high = t.key[b, 0], t.key[b, 1]
    if inside and plan[at.NOISE]:
        value = _noisy(value, t.normal[_scramble(number, low, high)], t.noise[b, k, 0], t.noise[b, k, 1])
    if not inside:
        value = t.fill[b, k]
    box, m, s = t.box[b], t.center[b, k], t.scale[b, k]
    if not raw:
        if plan[at.TABLE]:
            value = _toned(value, t.table[b], k)
            m, s = np.float32(0), np.float32(1)
        if box[0] <= y < box[1] and box[2] <= x < box[3] and t.erase[b, 0] == 0 and t.erase[b, 1] == 0:
            # What the normalisation makes zero of.
            value = m
        value = (value - m) * s
    if box[0] <= y < box[1] and box[2] <= x < box[3]:
        mean, spread = t.erase[b, 0], t.erase[b, 1]
        if spread != 0:
            value = _fma(t.normal[_scramble(number, low, np.uint32(high ^ np.uint32(0x5BD1E995)))], spread, mean)
        elif mean != 0 or raw:
            value = mean
    return value


@_inline
def _as_is(value):
    return value


@_inline
def _rounded(value):
    return np.uint8(min(max(value, np.float32(0)), np.float32(255)) + np.float32(0.5))


@_inline
def _brain(value):
    """The bits of the nearest bfloat16, ties to even."""
    bits = _bits(value)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


def _make_kernel(cast, raw):
    """One block writes one 32 x 32 tile of one channel of one site."""

    def kernel(stack, out, t):
        tile = cuda.shared.array(_TILE_SHAPE, float32)
        channels, height, width = out.shape[1], out.shape[2], out.shape[3]
        b = cuda.blockIdx.z // channels
        k = cuda.blockIdx.z - b * channels
        x0, y0 = cuda.blockIdx.x * TILE, cuda.blockIdx.y * TILE
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        down, channel = t.plan[b, at.DOWN], t.order[b, k]
        for j in range(ty, TILE, ROWS):
            y, x = (y0 + tx, x0 + j) if down else (y0 + j, x0 + tx)
            if y < height and x < width:
                value = np.float32(0)
                if channel >= 0:
                    value = _grey(stack[b, channel], b, y, x, t)
                    number = np.uint32((np.int64(k) * height + y) * width + x)
                    value = _finished(value, b, k, y, x, number, raw, t)
                if down:
                    tile[tx, j] = value
                else:
                    out[b, k, y, x] = cast(value)
        if down:
            cuda.syncthreads()
            for j in range(ty, TILE, ROWS):
                y, x = y0 + j, x0 + tx
                if y < height and x < width:
                    out[b, k, y, x] = cast(tile[j, tx])

    return kernel


def _blur(source, target, weights, sizes, along):
    """One pass of the blur: rows of bytes to 16-bit sums, then columns of sums to bytes."""
    n = cuda.blockIdx.z // target.shape[1]
    k = cuda.blockIdx.z - n * target.shape[1]
    x = cuda.blockIdx.x * TILE + cuda.threadIdx.x
    y = cuda.blockIdx.y * ROWS + cuda.threadIdx.y
    rows, columns = target.shape[2], target.shape[3]
    if y < rows and x < columns:
        radius, total = sizes[n] // 2, np.int32(0 if along else 1 << 15)
        for j in range(sizes[n]):
            if along:
                total += source[n, k, y, _reach(x + j - radius, columns, warp.REFLECT)] * weights[n, j]
            else:
                total += source[n, k, _reach(y + j - radius, rows, warp.REFLECT), x] * weights[n, j]
        target[n, k, y, x] = total if along else total >> 16


_PLAIN = {
    "uint8": _make_kernel(_rounded, True),
    "float32": _make_kernel(_as_is, False),
    "float16": _make_kernel(_as_is, False),
    "uint16": _make_kernel(_brain, False),
}
_KERNELS = {kind: cuda.jit(kernel) for kind, kernel in _PLAIN.items()}
_blur_kernel = cuda.jit(_blur)


def augment_batch(stack, out, tables: Tables, stream=0) -> None:
    """Augment a batch on the GPU as :func:`rxrx_kernels.augment.augment_site` does a site.

    Parameters
    ----------
    stack : (B, C', H, W) uint8, on the device, any strides
    out : (B, C, H', W') float32, float16, uint16 (bits of bfloat16) or uint8, on the device, any strides
    tables : Tables
        What :func:`rxrx_kernels.augment_tables.stack_augmentations` gives for these shapes, its arrays on the device.
    stream : numba.cuda stream or 0
        ``numba.cuda.external_stream(pointer)`` joins a stream of CuPy or torch.
    """
    batch, sources, rows, columns = stack.shape
    _, channels, height, width = out.shape
    kind = str(np.dtype(str(out.dtype).replace("torch.", "")))
    if kind not in _KERNELS:
        raise ValueError(f"out must be float32, float16, uint16 (bits of bfloat16) or uint8, got {out.dtype}")
    if tuple(tables.plan.shape[:1]) != (batch,) or tuple(tables.order.shape) != (batch, channels):
        raise ValueError(f"tables are for {tuple(tables.order.shape)} sites and channels, out is {tuple(out.shape)}")
    if tables.column_first.shape[1] < max(height, width):
        raise ValueError(f"tables are for smaller images than out, {height} x {width}")
    if out.shape[0] != batch:
        raise ValueError(f"out has {out.shape[0]} sites and stack {batch}")
    if 0 in tuple(out.shape):
        return
    if tables.blur.shape[0] == batch:
        # Sites without blur have one weight, and pass through as they are.
        sums, blurred = (cuda.device_array(stack.shape, kind, stream=stream) for kind in (np.uint16, np.uint8))
        grid = (-(-columns // TILE), -(-rows // ROWS), batch * sources)
        _blur_kernel[grid, (TILE, ROWS), stream](stack, sums, tables.blur, tables.blur_sizes, True)
        _blur_kernel[grid, (TILE, ROWS), stream](sums, blurred, tables.blur, tables.blur_sizes, False)
        stack = blurred
    grid = (-(-width // TILE), -(-height // TILE), batch * channels)
    _KERNELS[kind][grid, (TILE, ROWS), stream](stack, out, tables)


def ptx(compute_capability: tuple[int, int], names=(*_PLAIN, "blur")) -> dict[str, str]:
    """Compile kernels, by dtype of output or "blur", to PTX for a compute capability such as (9, 0). Needs no GPU.

    Returns
    -------
    dict of str to str
        Kernel name to PTX text.
    """
    stack, blurred = types.Array(types.uint8, 4, "A"), types.Array(types.uint8, 4, "C")
    row, weights = types.Array(types.int32, 1, "C"), types.Array(types.int32, 2, "C")
    tables = types.NamedTuple([types.Array(kind, ndim, "C") for kind, ndim in Tables.kinds()], Tables)
    texts = {}
    for kind, kernel in ((kind, _PLAIN[kind]) for kind in names if kind in _PLAIN):
        out = types.Array(getattr(types, kind), 4, "A")
        signature = types.void(stack, out, tables)
        texts[kind] = cuda.compile_ptx(kernel, signature, cc=compute_capability)[0]
    sums = types.Array(types.uint16, 4, "C")
    passes = (("blur_rows", stack, sums), ("blur_columns", sums, blurred))
    for name, source, target in passes if "blur" in names else ():
        signature = types.void(source, target, weights, row, types.boolean)
        texts[name] = cuda.compile_ptx(_blur, signature, cc=compute_capability)[0]
    return texts
