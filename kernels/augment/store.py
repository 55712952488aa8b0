"""Finishing a row: ``(value - center) * scale``, the cast to the output's kind, and the store.

Sixteen float32 values are one SIMD vector. Rows of contiguous, aligned outputs are stored past the cache: a batch is
larger than any cache, and an ordinary store would first read the line that it overwrites.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from rxrx_kernels.augment.resample import GROUP

__all__ = ["KINDS", "scatter_row", "store_row"]

#: Kinds of output by name: grey values in the dtype of the source, or normalised values.
KINDS = {"raw": 0, "float32": 1, "float16": 2, "bfloat16": 3}

_BYTE, _SHORT, _INT, _FLOAT, _HALF = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType(), ir.HalfType()
_u = np.uint64


def _constant(kind, value):
    return ir.Constant(ir.VectorType(kind, GROUP), [value] * GROUP)


def _everywhere(builder, value):
    nothing = ir.Constant(ir.VectorType(value.type, GROUP), ir.Undefined)
    first = ir.Constant(ir.VectorType(_INT, GROUP), [0] * GROUP)
    return builder.shuffle_vector(builder.insert_element(nothing, value, ir.Constant(_INT, 0)), nothing, first)


def _rounded(builder, value, kind):
    """float32 grey values within the range of ``kind`` to the nearest whole number, ties upwards."""
    half = builder.fadd(value, _constant(_FLOAT, 0.5))
    return builder.trunc(builder.fptoui(half, ir.VectorType(_INT, GROUP)), ir.VectorType(kind, GROUP))


def _bfloat16(builder, value):
    """float32 to the bits of bfloat16: to nearest, ties to even; there are no NaNs here."""
    bits = builder.bitcast(value, ir.VectorType(_INT, GROUP))
    odd = builder.and_(builder.lshr(bits, _constant(_INT, 16)), _constant(_INT, 1))
    bits = builder.add(bits, builder.add(odd, _constant(_INT, 0x7FFF)))
    return builder.trunc(builder.lshr(bits, _constant(_INT, 16)), ir.VectorType(_SHORT, GROUP))


_CASTS = {
    "float32": lambda builder, value: value,
    "float16": lambda builder, value: builder.fptrunc(value, ir.VectorType(_HALF, GROUP)),
    "bfloat16": _bfloat16,
}


def _make_store(kind: str, past_cache: bool):
    """Make an intrinsic ``store(pixel, source, target, center, scale)`` of 16 values between addresses.

    With ``past_cache`` the target must be aligned to what is stored.
    """

    @intrinsic
    def store(typing, pixel, source, target, center, scale):
        def generate(context, builder, signature, arguments):
            _, source, target, m, s = arguments
            vector = ir.VectorType(_FLOAT, GROUP)
            value = builder.load(builder.inttoptr(source, vector.as_pointer()), align=1)
            if kind == "raw":
                value = _rounded(builder, value, _BYTE if pixel == types.uint8 else _SHORT)
            else:
                value = builder.fmul(builder.fsub(value, _everywhere(builder, m)), _everywhere(builder, s))
                value = _CASTS[kind](builder, value)
            stored = builder.store(value, builder.inttoptr(target, value.type.as_pointer()), align=1)
            if past_cache:
                stored.align = GROUP * {_BYTE: 1, _SHORT: 2, _HALF: 2, _FLOAT: 4}[value.type.element]
                stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT, 1)]))
            return context.get_dummy_value()

        return types.void(pixel, types.uint64, types.uint64, types.float32, types.float32), generate

    return store


_raw_past, _float32_past, _float16_past, _bfloat16_past = (_make_store(kind, True) for kind in KINDS)
_raw, _float32, _float16, _bfloat16_near = (_make_store(kind, False) for kind in KINDS)


@njit(nogil=True, cache=True)
def store_row(pixel, kind, direct, source, target, groups, size, center, scale):
    """Finish ``groups`` vectors of 16 float32 at address ``source`` into address ``target``.

    ``kind`` is a number of :data:`KINDS`, ``size`` the bytes of an output pixel; ``direct`` stores past the cache.
    """
    step = _u(GROUP) * size
    if direct:
        if kind == 0:
            for g in range(groups):
                _raw_past(pixel, source + _u(64) * g, target + step * g, center, scale)
        elif kind == 1:
            for g in range(groups):
                _float32_past(pixel, source + _u(64) * g, target + step * g, center, scale)
        elif kind == 2:
            for g in range(groups):
                _float16_past(pixel, source + _u(64) * g, target + step * g, center, scale)
        else:
            for g in range(groups):
                _bfloat16_past(pixel, source + _u(64) * g, target + step * g, center, scale)
    elif kind == 0:
        for g in range(groups):
            _raw(pixel, source + _u(64) * g, target + step * g, center, scale)
    elif kind == 1:
        for g in range(groups):
            _float32(pixel, source + _u(64) * g, target + step * g, center, scale)
    elif kind == 2:
        for g in range(groups):
            _float16(pixel, source + _u(64) * g, target + step * g, center, scale)
    else:
        for g in range(groups):
            _bfloat16_near(pixel, source + _u(64) * g, target + step * g, center, scale)


def _make_copy(bits: int):
    @intrinsic
    def copy(typing, source, target):
        def generate(context, builder, signature, arguments):
            source, target = (builder.inttoptr(a, ir.IntType(bits).as_pointer()) for a in arguments)
            builder.store(builder.load(source, align=1), target, align=1)
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64), generate

    return copy


_copy8, _copy16, _copy32 = (_make_copy(bits) for bits in (8, 16, 32))


@njit(nogil=True, cache=True)
def scatter_row(size, source, target, count, pitch):
    """Copy finished pixels of 1, 2 or 4 bytes to places that lie ``pitch`` bytes apart."""
    if size == 1:
        for x in range(count):
            _copy8(source + x, target + pitch * x)
    elif size == 2:
        for x in range(count):
            _copy16(source + _u(2) * x, target + pitch * x)
    else:
        for x in range(count):
            _copy32(source + _u(4) * x, target + pitch * x)
