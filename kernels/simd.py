"""Vectors of 128 bytes for Numba: what :mod:`rxrx_kernels.png.unfilter` is written in.

Numba has no vector type and leaves vectorising to LLVM, which can't see an anti-diagonal. Here LLVM's own vector type
is given to Numba as an opaque value with a few operations, so that a kernel on it is an ordinary compiled function.
LLVM splits it into the registers that the machine has: two of AVX-512, four of AVX2, eight of SSE2 or NEON.

A vector is eight *bands* of 16 lanes. 16 bytes are what every machine shifts and transposes in one instruction; wider
moves cross registers and cost several times as much.

Addresses are plain integers (``uintp``) and nothing is checked: the callers own the arrays and their sizes.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

BAND = 16
BANDS = 8
LANES = BAND * BANDS

_BYTE = ir.IntType(8)
_TILE = ir.VectorType(_BYTE, BAND)
_VECTOR = ir.VectorType(_BYTE, LANES)


class _LanesType(types.Type):
    def __init__(self):
        super().__init__(name="Lanes128x8")


_lanes = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, _VECTOR)


def _pointer(builder, address, kind):
    return builder.inttoptr(address, kind.as_pointer())


def _read(builder, address, kind):
    return builder.load(_pointer(builder, address, kind), align=1)


def _write(builder, address, value):
    builder.store(value, _pointer(builder, address, value.type), align=1)


def _shuffled(builder, first, second, lanes):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
    return builder.shuffle_vector(first, second, mask)


def _joined(builder, parts):
    while len(parts) > 1:
        lanes = range(2 * parts[0].type.count)
        parts = [_shuffled(builder, a, b, lanes) for a, b in zip(parts[::2], parts[1::2])]
    return parts[0]


def _called(builder, name, *arguments):
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}i8"), arguments)


def _spread(builder, address, distance):
    """The addresses of the bands' parts."""
    addresses = [address]
    for _ in range(BANDS - 1):
        addresses.append(builder.add(addresses[-1], distance))
    return addresses


@intrinsic
def zeros(typing):
    return _lanes(), lambda context, builder, signature, _: ir.Constant(_VECTOR, [0] * LANES)


@intrinsic
def load(typing, address):
    return _lanes(types.uintp), lambda context, builder, signature, a: _read(builder, a[0], _VECTOR)


@intrinsic
def store(typing, address, value):
    """Write the lanes to memory, the first one at ``address``."""

    def generate(context, builder, signature, a):
        _write(builder, *a)
        return context.get_dummy_value()

    return types.void(types.uintp, _lanes), generate


@intrinsic
def load_above(typing, first, others):
    """16 bytes from ``first``, and all but the last band of the vector at ``others`` behind them."""

    def generate(context, builder, signature, a):
        rest = _spread(builder, a[1], ir.Constant(a[1].type, BAND))[: BANDS - 1]
        return _joined(builder, [_read(builder, address, _TILE) for address in (a[0], *rest)])

    return _lanes(types.uintp, types.uintp), generate


@intrinsic
def shift_down(typing, above, value):
    """Lane r is lane r - 1 of ``value``; the first lane of a band is the last lane of that band in ``above``."""
    lanes = [lane for b in range(0, LANES, BAND) for lane in (b + BAND - 1, *range(LANES + b, LANES + b + BAND - 1))]
    return _lanes(_lanes, _lanes), lambda context, builder, signature, a: _shuffled(builder, *a, lanes)


@intrinsic
def both(typing, x, y):
    return _lanes(_lanes, _lanes), lambda context, builder, signature, a: builder.and_(*a)


@intrinsic
def add(typing, x, y):
    return _lanes(_lanes, _lanes), lambda context, builder, signature, a: builder.add(*a)


@intrinsic
def mean(typing, x, y):
    """floor((x + y) / 2) without a ninth bit (section 9.3)."""

    def generate(context, builder, signature, a):
        half = builder.lshr(builder.xor(*a), ir.Constant(_VECTOR, [1] * LANES))
        return builder.add(builder.and_(*a), half)

    return _lanes(_lanes, _lanes), generate


@intrinsic
def choose(typing, mask, x, y):
    """``x`` where the mask is 255, ``y`` where it is 0."""

    def generate(context, builder, signature, a):
        mask, x, y = a
        return builder.xor(y, builder.and_(mask, builder.xor(x, y)))

    return _lanes(_lanes, _lanes, _lanes), generate


@intrinsic
def paeth(typing, left, up, corner):
    """The Paeth predictor (section 9.4) in eight bits.

    With lo and hi the smaller and the larger of left and up, the specification's p = left + up - corner lies as far
    from lo as hi does from the corner, and the other way round. So hi is nearest if 2 (corner - lo) <= hi - corner, lo
    if 2 (hi - corner) <= corner - lo, and else the corner; a difference below 0 may count as 0 and a double above 255
    as 255.
    """

    def generate(context, builder, signature, a):
        left, up, corner = a
        low, high = _called(builder, "umin", left, up), _called(builder, "umax", left, up)
        over, under = _called(builder, "usub.sat", corner, low), _called(builder, "usub.sat", high, corner)
        take_high = builder.icmp_unsigned("<=", _called(builder, "uadd.sat", over, over), under)
        take_low = builder.icmp_unsigned("<=", _called(builder, "uadd.sat", under, under), over)
        return builder.select(take_high, high, builder.select(take_low, low, corner))

    return _lanes(_lanes, _lanes, _lanes), generate


@intrinsic
def swapped(typing, value):
    """Neighbouring bytes exchanged."""
    lanes = [lane ^ 1 for lane in range(LANES)]
    return _lanes(_lanes), lambda context, builder, signature, a: _shuffled(builder, a[0], a[0], lanes)


@intrinsic
def transpose(typing, source, pitch, band, target, target_pitch, target_band):
    """Eight 16 x 16 tiles of bytes at once: tile b from ``source + b * band``, rows ``pitch`` apart, to the target.

    Four rounds that interleave row i with row i + 8: each is one bit of the index moving from the row to the column.
    """
    first = [lane for b in range(0, LANES, BAND) for k in range(b, b + 8) for lane in (k, LANES + k)]
    second = [lane + 8 for lane in first]

    def generate(context, builder, signature, a):
        source, pitch, band, target, target_pitch, target_band = a
        rows = []
        for _ in range(BAND):
            rows.append(_joined(builder, [_read(builder, x, _TILE) for x in _spread(builder, source, band)]))
            source = builder.add(source, pitch)
        for _ in range(4):
            pairs = list(zip(rows[:8], rows[8:]))
            rows = [_shuffled(builder, x, y, lanes) for x, y in pairs for lanes in (first, second)]
        for row in rows:
            for b, address in enumerate(_spread(builder, target, target_band)):
                _write(builder, address, _shuffled(builder, row, row, range(b * BAND, (b + 1) * BAND)))
            target = builder.add(target, target_pitch)
        return context.get_dummy_value()

    return types.void(*[types.uintp] * 6), generate
