"""The fused kernel for contiguous planes: sixteen pixels a step, and stores that pass the cache by.

What :mod:`rxrx_kernels.orient.site` says pixel by pixel, in the form that memory likes best. A batch is larger than any
cache, so an ordinary store first reads the line that it is about to overwrite; a non-temporal store of a whole line
does not, which saves nearly half of the traffic. Compilers do not vectorise loops with such stores, so the steps are
written as LLVM vectors of sixteen lanes, which LLVM maps to whatever the processor has.

A turned plane is read in blocks of 8 x 8 bytes, each transposed in eight 64-bit words by swapping halves of words three
times (Warren, "Hacker's Delight", 2nd edition, section 7-3), into a strip of lines that stays in the L1 cache.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["LIKE", "STEP", "fence", "fits", "fuse_lines", "strip", "turn_block"]

#: Pixels a step. Heights and widths must be multiples of it.
STEP = 16
#: Lines of a strip: one source row then gives 64 neighbouring bytes, a cache line.
_LINES = 64
# Lines of a strip would otherwise fall on the same few cache sets.
_PAD = 16

_BYTE, _HALF, _FLOAT = ir.IntType(8), ir.HalfType(), ir.FloatType()
_u = np.uint64


def _normalised(builder, pixels, center, scale):
    """``(pixels - center) * scale`` of sixteen pixels, in the order of :func:`rxrx_kernels.orient.site.normalise`."""
    kind = ir.VectorType(_FLOAT, STEP)
    nothing = ir.Constant(kind, ir.Undefined)
    first = ir.Constant(ir.VectorType(ir.IntType(32), STEP), [0] * STEP)

    def everywhere(value):
        return builder.shuffle_vector(
            builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0)), nothing, first
        )

    return builder.fmul(builder.fsub(builder.uitofp(pixels, kind), everywhere(center)), everywhere(scale))


#: An array of each output dtype's kind, for :func:`fuse_lines`. Numba has no float16 on the CPU: its bits stand for it.
LIKE = {
    np.dtype(np.uint8): np.empty(0, np.uint8),
    np.dtype(np.float32): np.empty(0, np.float32),
    np.dtype(np.float16): np.empty(0, np.uint16),
}
# What becomes of sixteen pixels, by the kind of the output.
_FINISH = {
    types.uint8: lambda builder, pixels, center, scale: pixels,
    types.float32: _normalised,
    types.uint16: lambda builder, *values: builder.fptrunc(_normalised(builder, *values), ir.VectorType(_HALF, STEP)),
}


# The kind is an argument's type and not a variable that kernels are closed over: Numba's cache knows a closure by the
# pickled values in it, and those of functions are others in every process, so that it would compile and store anew.


def _step(like, mirrored):
    """``step(like, source, target, center, scale)`` on addresses; ``target`` is aligned to what it stores."""

    def generate(context, builder, signature, arguments):
        _, origin, goal, m, s = arguments
        kind = ir.VectorType(_BYTE, STEP)
        pixels = builder.load(builder.inttoptr(origin, kind.as_pointer()))
        pixels.align = 1
        if mirrored:
            order = ir.Constant(ir.VectorType(ir.IntType(32), STEP), list(range(STEP))[::-1])
            pixels = builder.shuffle_vector(pixels, ir.Constant(kind, ir.Undefined), order)
        value = _FINISH[like.dtype](builder, pixels, m, s)
        store = builder.store(value, builder.inttoptr(goal, value.type.as_pointer()))
        store.align = STEP * (like.dtype.bitwidth // 8)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(like, types.uint64, types.uint64, types.float32, types.float32), generate


@intrinsic
def _forward(typing, like, source, target, center, scale):
    return _step(like, False)


@intrinsic
def _backward(typing, like, source, target, center, scale):
    return _step(like, True)


@intrinsic
def _step_bytes(typing, like):
    """Bytes that a step stores, as a constant."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(ir.IntType(64), STEP * (like.dtype.bitwidth // 8))

    return types.uint64(like), generate


@intrinsic
def _load(typing, address):
    """Eight bytes from any address."""

    def generate(context, builder, signature, arguments):
        word = builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(types.uint64), generate


@intrinsic
def _store(typing, address, word):
    """Eight bytes to any address."""

    def generate(context, builder, signature, arguments):
        store = builder.store(arguments[1], builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))
        store.align = 1
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


@intrinsic
def fence(typing):
    """Non-temporal stores are in no order: all of them become visible before anything that follows."""

    def generate(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@njit(inline="always")
def _swap(a, b, distance, mask):
    """Exchange the high parts of ``a`` with the low parts of ``b``."""
    t = ((a >> distance) ^ b) & mask
    return a ^ (t << distance), b ^ t


@njit(nogil=True, cache=True)
def turn_block(source, pitch, target, target_pitch):
    """Transpose 8 x 8 bytes: byte (i, j) at ``source + i * pitch + j`` goes to ``target + j * target_pitch + i``."""
    a, b = _load(source), _load(source + pitch)
    c, d = _load(source + _u(2) * pitch), _load(source + _u(3) * pitch)
    e, f = _load(source + _u(4) * pitch), _load(source + _u(5) * pitch)
    g, h = _load(source + _u(6) * pitch), _load(source + _u(7) * pitch)
    few, some, many = _u(0x00FF00FF00FF00FF), _u(0x0000FFFF0000FFFF), _u(0x00000000FFFFFFFF)
    a, b = _swap(a, b, _u(8), few)
    c, d = _swap(c, d, _u(8), few)
    e, f = _swap(e, f, _u(8), few)
    g, h = _swap(g, h, _u(8), few)
    a, c = _swap(a, c, _u(16), some)
    b, d = _swap(b, d, _u(16), some)
    e, g = _swap(e, g, _u(16), some)
    f, h = _swap(f, h, _u(16), some)
    a, e = _swap(a, e, _u(32), many)
    b, f = _swap(b, f, _u(32), many)
    c, g = _swap(c, g, _u(32), many)
    d, h = _swap(d, h, _u(32), many)
    _store(target, a)
    _store(target + target_pitch, b)
    _store(target + _u(2) * target_pitch, c)
    _store(target + _u(3) * target_pitch, d)
    _store(target + _u(4) * target_pitch, e)
    _store(target + _u(5) * target_pitch, f)
    _store(target + _u(6) * target_pitch, g)
    _store(target + _u(7) * target_pitch, h)


@njit(inline="always")
def _line(like, source, target, count, mirrored, m, s):
    steps, size = count // _u(STEP), _step_bytes(like)
    if mirrored:
        for i in range(steps):
            _backward(like, source + (count - (i + _u(1)) * _u(STEP)), target + i * size, m, s)
    else:
        for i in range(steps):
            _forward(like, source + i * _u(STEP), target + i * size, m, s)


@njit(nogil=True, cache=True)
def fuse_lines(like, source, source_pitches, target, target_pitches, shape, code, center, scale, line_buffer):
    """All channels of a site.

    ``like`` is of :data:`LIKE`, addresses and (plane, row) pitches in bytes are uint64; ``shape`` is the source's
    (C, H, W); ``center`` and ``scale`` are (C,) float32 and ``line_buffer`` is what :func:`strip` gives.
    """
    height, width = _u(shape[1]), _u(shape[2])
    plane_pitch, pitch = source_pitches
    out_plane_pitch, out_pitch = target_pitches
    lines, lines_pitch = _u(line_buffer.ctypes.data), _u(line_buffer.shape[1])
    for k in range(shape[0]):
        origin, goal = source + _u(k) * plane_pitch, target + _u(k) * out_plane_pitch
        m, s = center[k], scale[k]
        if code & 4 == 0:
            for y in range(height):
                r = height - _u(1) - y if code & 2 else y
                _line(like, origin + r * pitch, goal + y * out_pitch, width, code & 1 != 0, m, s)
            continue
        for c0 in range(_u(0), width, _u(_LINES)):
            depth = min(_u(_LINES), width - c0)
            for x in range(_u(0), height, _u(8)):
                for w in range(_u(0), depth, _u(8)):
                    turn_block(origin + x * pitch + c0 + w, pitch, lines + w * lines_pitch + x, lines_pitch)
            for j in range(depth):
                y = width - _u(1) - c0 - j if code & 1 else c0 + j
                _line(like, lines + j * lines_pitch, goal + y * out_pitch, height, code & 2 != 0, m, s)
    fence()


def strip(height: int) -> np.ndarray:
    """Memory for the lines of a turned plane of this height."""
    return np.empty((_LINES, height + _PAD), np.uint8)


def fits(stack: np.ndarray, out: np.ndarray) -> bool:
    """Whether these (C, H, W) arrays are ones for the kernel: whole steps, contiguous lines, aligned output."""
    line = STEP * out.itemsize
    return (
        stack.shape[1] % STEP == 0
        and stack.shape[2] % STEP == 0
        and stack.strides[2] == 1
        and min(stack.strides) > 0
        and out.strides[2] == out.itemsize
        and min(out.strides) > 0
        and out.strides[0] % line == 0
        and out.strides[1] % line == 0
        and out.ctypes.data % line == 0
    )
