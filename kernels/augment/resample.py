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

__all__ = ["GROUP", "ROW_STEP", "VECTORS", "grouped", "groups", "load_int16", "load_int32", "mix_rows", "plain_row"]
__all__ += ["store_int16"]

#: Whether this processor has the permutation.
VECTORS = bool(binding.get_host_cpu_features().get("avx512bw", False))
#: Output pixels of a group.
GROUP = 16
#: Pixels a step of the mixing of rows.
ROW_STEP = 32

_BYTE, _SHORT, _INT, _FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()
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
def _load_uint8(typing, address):
    return types.uint8(types.uint64), lambda c, builder, s, a: _load(builder, a[0], _BYTE)


@intrinsic
def load_int16(typing, address):
    """Read an int16 at any address."""
    return types.int16(types.uint64), lambda c, builder, s, a: _load(builder, a[0], _SHORT)


@intrinsic
def load_int32(typing, address):
    """Read an int32 at any address."""
    return types.int32(types.uint64), lambda c, builder, s, a: _load(builder, a[0], _INT)


@intrinsic
def store_int16(typing, address, value):
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
        base = np.int32(load_int16(target + _u(2) * x)) if adding else np.int32(-_BIAS)
        value = np.int32(_load_uint8(a + x)) * np.int32(wa) + np.int32(_load_uint8(b + x)) * np.int32(wb)
        store_int16(target + _u(2) * x, np.int16(base + value))


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
            source = line + _u(2 * np.int64(load_int32(bases + _u(4) * g)))
            _only(source, lanes + size * g, pairs + size * g, target + size * g)
        return
    for g in range(count):
        for j in range(halves):
            at = g * halves + j
            source = line + _u(2 * np.int64(load_int32(bases + _u(4) * at)))
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
            total += np.int64(load_int16(start + _u(2 * j))) * np.int64(weights[x, j])
        target[x] = np.float32(total) * np.float32(2.0**-16)
