"""Resampling of lines for the CPU: 32 pixels a step between rows, 16 pixels a step within a row.

A separable geometry makes an output row in two steps. Source rows are mixed first, as 16-bit integers, which is a
contiguous loop. Then each group of 16 output pixels takes its taps out of one register of 32 mixed pixels: one
permutation fetches a pair of neighbouring taps for all 16, one instruction multiplies and adds the pairs. A gather of
single pixels, which compilers make of such a loop, takes several times as long. The permutation is AVX-512's; other
processors, and maps that spread 16 pixels over more than 32, take a plain loop.

Mixed rows are stored less 32768, so that they fit signed 16 bits, which is what the multiplication takes. Weights sum
to 256, so that is 2^23 to be given back at the end.
"""

from __future__ import annotations

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["GROUP", "ROW_STEP", "SIZES", "VECTORS", "copy_pixel", "finish16", "get_int", "get_short", "grouped"]
__all__ += ["SIZES16", "groups", "mix_rows", "plain_row", "put_short"]

#: Whether this processor has the permutation.
VECTORS = bool(binding.get_host_cpu_features().get("avx512bw", False))
#: Output pixels of a group.
GROUP = 16
#: Pixels a step of the mixing of rows.
ROW_STEP = 32

_BYTE, _SHORT, _INT, _FLOAT, _HALF = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType(), ir.HalfType()
_BIAS = 1 << 15
_u = np.uint64


def _load(builder, address, kind):
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _store(builder, address, value):
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


def _constant(kind, count, value):
    return ir.Constant(ir.VectorType(kind, count), [value] * count)


def _everywhere(builder, value, count):
    kind = ir.VectorType(value.type, count)
    nothing = ir.Constant(kind, ir.Undefined)
    first = ir.Constant(ir.VectorType(_INT, count), [0] * count)
    return builder.shuffle_vector(builder.insert_element(nothing, value, ir.Constant(_INT, 0)), nothing, first)


def _make_mix(adding: bool):
    @intrinsic
    def mix(typing, a, b, wa, wb, target):
        """``target[i] = a[i] * wa + b[i] * wb - 32768`` of 32 pixels; or added to the target."""

        def generate(context, builder, signature, arguments):
            a, b, wa, wb, target = arguments
            wide = ir.VectorType(_SHORT, ROW_STEP)
            parts = [
                builder.mul(
                    builder.zext(_load(builder, address, ir.VectorType(_BYTE, ROW_STEP)), wide),
                    _everywhere(builder, weight, ROW_STEP),
                )
                for address, weight in ((a, wa), (b, wb))
            ]
            total = builder.add(*parts)
            base = _load(builder, target, wide) if adding else _constant(_SHORT, ROW_STEP, _BIAS)
            _store(builder, target, builder.add(total, base))
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64, types.int16, types.int16, types.uint64), generate

    return mix


_mix_first, _mix_more = _make_mix(False), _make_mix(True)


@intrinsic
def _get_byte(typing, address):
    return types.uint8(types.uint64), lambda c, builder, s, a: _load(builder, a[0], _BYTE)


@intrinsic
def get_short(typing, address):
    return types.int16(types.uint64), lambda c, builder, s, a: _load(builder, a[0], _SHORT)


@intrinsic
def get_int(typing, address):
    return types.int32(types.uint64), lambda c, builder, s, a: _load(builder, a[0], _INT)


@intrinsic
def put_short(typing, address, value):
    """Write an int16 to any address."""

    def generate(context, builder, signature, arguments):
        _store(builder, *arguments)
        return context.get_dummy_value()

    return types.void(types.uint64, types.int16), generate


@njit(inline="always")
def mix_rows(a, b, wa, wb, target, count, adding):
    """Mix two source rows of ``count`` pixels (addresses) into a row of int16, or add them to it."""
    whole = count & ~_u(ROW_STEP - 1)
    if adding:
        for x in range(_u(0), whole, _u(ROW_STEP)):
            _mix_more(a + x, b + x, wa, wb, target + _u(2) * x)
    else:
        for x in range(_u(0), whole, _u(ROW_STEP)):
            _mix_first(a + x, b + x, wa, wb, target + _u(2) * x)
    # A step beyond the row's end could be one beyond the image's.
    for x in range(whole, count):
        base = np.int32(get_short(target + _u(2) * x)) if adding else np.int32(-_BIAS)
        value = np.int32(_get_byte(a + x)) * np.int32(wa) + np.int32(_get_byte(b + x)) * np.int32(wb)
        put_short(target + _u(2) * x, np.int16(base + value))


def _make_pairs(first: bool, last: bool):
    """One pair of taps of 16 output pixels; sums of more pairs pass through memory."""

    @intrinsic
    def pairs(typing, line, lanes, weights, total):
        def generate(context, builder, signature, arguments):
            line, lanes, weights, total = arguments
            shorts, ints = ir.VectorType(_SHORT, 2 * GROUP), ir.VectorType(_INT, GROUP)
            permute = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(shorts, [shorts, shorts]), "llvm.x86.avx512.permvar.hi.512"
            )
            multiply = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ints, [shorts, shorts]), "llvm.x86.avx512.pmaddw.d.512"
            )
            taken = builder.call(permute, [_load(builder, line, shorts), _load(builder, lanes, shorts)])
            value = builder.call(multiply, [taken, _load(builder, weights, shorts)])
            base = _constant(_INT, GROUP, _BIAS << 8) if first else _load(builder, total, ints)
            value = builder.add(value, base)
            if last:
                value = builder.sitofp(value, ir.VectorType(_FLOAT, GROUP))
                value = builder.fmul(value, _constant(_FLOAT, GROUP, 2.0**-16))
            _store(builder, total, value)
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64, types.uint64, types.uint64), generate

    return pairs


_only, _begin, _more, _end = (
    _make_pairs(first, last) for first, last in ((True, True), (True, False), (False, False), (False, True))
)


@njit(nogil=True, cache=True)
def grouped(first, weights):
    """Tables of the permutation, from :func:`rxrx_kernels.augment.warp.taps`.

    Returns
    -------
    fits : bool
        Whether every group's taps lie within 32 pixels; if not, the tables are of no use.
    bases : (groups, T / 2) int32
        Source pixel that a register starts with.
    lanes, pairs : (groups, T / 2, 32) int16
    """
    count, width = weights.shape
    total, halves = (count + GROUP - 1) // GROUP, width // 2
    bases = np.zeros((total, halves), np.int32)
    lanes, pairs = np.zeros((total, halves, 2 * GROUP), np.int16), np.zeros((total, halves, 2 * GROUP), np.int16)
    for g in range(total):
        members = min(GROUP, count - g * GROUP)
        low = high = first[g * GROUP]
        for i in range(1, members):
            low, high = min(low, first[g * GROUP + i]), max(high, first[g * GROUP + i])
        if high + 1 - low >= 2 * GROUP:
            return False, bases, lanes, pairs
        for j in range(halves):
            bases[g, j] = low + 2 * j
            for i in range(members):
                x = g * GROUP + i
                for k in range(2):
                    lanes[g, j, 2 * i + k] = first[x] - low + k
                    pairs[g, j, 2 * i + k] = weights[x, 2 * j + k]
    return True, bases, lanes, pairs


@njit(inline="always")
def groups(line, bases, lanes, pairs, count, halves, target):
    """Grey values, float32, of a whole output row from a mixed row. Needs :data:`VECTORS`.

    ``bases``, ``lanes`` and ``pairs`` are the addresses of what :func:`grouped` gives, ``count`` and ``halves`` their
    shape.
    """
    size = _u(4 * GROUP)
    if halves == 1:
        for g in range(count):
            source = line + _u(2 * np.int64(get_int(bases + _u(4) * g)))
            _only(source, lanes + size * g, pairs + size * g, target + size * g)
        return
    for g in range(count):
        for j in range(halves):
            at = g * halves + j
            source = line + _u(2 * np.int64(get_int(bases + _u(4) * at)))
            if j == 0:
                _begin(source, lanes + size * at, pairs + size * at, target + size * g)
            elif j < halves - _u(1):
                _more(source, lanes + size * at, pairs + size * at, target + size * g)
            else:
                _end(source, lanes + size * at, pairs + size * at, target + size * g)


@njit(inline="always")
def plain_row(line, first, weights, target):
    """As :func:`groups`, on any processor and for any spread of the taps; ``target`` is an array."""
    for x in range(weights.shape[0]):
        total = np.int64(_BIAS << 8)
        start = line + _u(np.int64(2) * first[x])
        for j in range(weights.shape[1]):
            total += np.int64(get_short(start + _u(2 * j))) * np.int64(weights[x, j])
        target[x] = np.float32(total) * np.float32(2.0**-16)


def _rounded_byte(builder, value):
    """float32 grey values from 0 to 255 to the nearest byte, ties upwards."""
    half = builder.fadd(value, _constant(_FLOAT, GROUP, 0.5))
    return builder.trunc(builder.fptoui(half, ir.VectorType(_INT, GROUP)), ir.VectorType(_BYTE, GROUP))


def _rounded_short(builder, value):
    """float32 grey values from 0 to 65535 to the nearest whole number of 16 bits, ties upwards."""
    half = builder.fadd(value, _constant(_FLOAT, GROUP, 0.5))
    return builder.trunc(builder.fptoui(half, ir.VectorType(_INT, GROUP)), ir.VectorType(_SHORT, GROUP))


def _brain(builder, value):
    """float32 to bfloat16 as its bits: to nearest, ties to even; there are no NaNs here."""
    bits = builder.bitcast(value, ir.VectorType(_INT, GROUP))
    odd = builder.and_(builder.lshr(bits, _constant(_INT, GROUP, 16)), _constant(_INT, GROUP, 1))
    bits = builder.add(bits, builder.add(odd, _constant(_INT, GROUP, 0x7FFF)))
    return builder.trunc(builder.lshr(bits, _constant(_INT, GROUP, 16)), ir.VectorType(_SHORT, GROUP))


#: Kinds of output, and the bytes of a pixel: of 8-bit images, and of 16-bit ones.
SIZES = {"uint8": 1, "float32": 4, "float16": 2, "bfloat16": 2}
SIZES16 = {"uint16": 2, "float32": 4, "float16": 2, "bfloat16": 2}
_CASTS = {
    "uint8": _rounded_byte,
    "uint16": _rounded_short,
    "float32": lambda builder, value: value,
    "float16": lambda builder, value: builder.fptrunc(value, ir.VectorType(_HALF, GROUP)),
    "bfloat16": _brain,
}


def finish16(kind: str, passing: bool):
    """An intrinsic ``finish(source, target, center, scale)``: ``(value - center) * scale`` and cast of 16 float32.

    With ``passing``, the store goes past the cache, and the target must be aligned to what it stores.
    """
    cast, size = _CASTS[kind], (SIZES | SIZES16)[kind]

    @intrinsic
    def finish(typing, source, target, center, scale):
        def generate(context, builder, signature, arguments):
            source, target, m, s = arguments
            value = _load(builder, source, ir.VectorType(_FLOAT, GROUP))
            if kind not in ("uint8", "uint16"):
                value = builder.fmul(
                    builder.fsub(value, _everywhere(builder, m, GROUP)), _everywhere(builder, s, GROUP)
                )
            value = cast(builder, value)
            store = builder.store(value, builder.inttoptr(target, value.type.as_pointer()), align=1)
            if passing:
                store.align = GROUP * size
                store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT, 1)]))
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64, types.float32, types.float32), generate

    return finish


def copy_pixel(kind: str):
    """An intrinsic ``copy(source, target)`` of one finished pixel between addresses."""
    bits = ir.IntType(8 * SIZES[kind])

    @intrinsic
    def copy(typing, source, target):
        def generate(context, builder, signature, arguments):
            _store(builder, arguments[1], _load(builder, arguments[0], bits))
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64), generate

    return copy
