"""SIMD vectors of 128 bytes for Numba; :mod:`rxrx_kernels.png.unfilter` is built on them.

Numba has no vector type and leaves vectorising to LLVM, which does not vectorise along an anti-diagonal. This module
gives LLVM's vector type to Numba as an opaque value with a few operations, so a kernel on it is an ordinary compiled
function. LLVM splits a vector into the machine's registers: two of AVX-512, four of AVX2, eight of SSE2 or NEON.

A vector has eight blocks of 16 bytes. Every machine shifts and transposes 16 bytes in one instruction. Wider moves
cross registers and cost several times as much.

Addresses are plain integers (``uintp``). Nothing is checked: the callers own the arrays and know their sizes. "Section"
refers to the PNG specification, 3rd edition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

__all__ = [
    "BLOCKS",
    "BLOCK_BYTES",
    "VECTOR_BYTES",
    "add",
    "average",
    "bitwise_and",
    "load",
    "load_above",
    "paeth",
    "select",
    "shift_elements",
    "store",
    "swap_pairs",
    "transpose",
    "zeros",
]

BLOCK_BYTES = 16
BLOCKS = 8
VECTOR_BYTES = BLOCK_BYTES * BLOCKS

#: What an ``@intrinsic`` returns: its signature, and the function that writes its LLVM code.
Intrinsic = tuple[Any, Callable]
#: A vector inside of compiled code.
Vector = Any

_BYTE = ir.IntType(8)
_BLOCK = ir.VectorType(_BYTE, BLOCK_BYTES)
_VECTOR = ir.VectorType(_BYTE, VECTOR_BYTES)


class _VectorType(types.Type):
    """Numba's type of a vector; its only instance is ``_vector``."""

    def __init__(self) -> None:
        super().__init__(name="Vector128x8")


_vector = _VectorType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _VECTOR)


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _read(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(_pointer(builder, address, kind), align=1)


def _write(builder: Any, address: Any, value: Any) -> None:
    builder.store(value, _pointer(builder, address, value.type), align=1)


def _shuffle(builder: Any, first: Any, second: Any, elements: Iterable[int]) -> Any:
    """Make a vector of the numbered elements of ``first`` and, from its size on, of ``second``."""
    chosen = list(elements)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen)
    return builder.shuffle_vector(first, second, mask)


def _concatenate(builder: Any, parts: Sequence[Any]) -> Any:
    while len(parts) > 1:
        elements = range(2 * parts[0].type.count)
        parts = [_shuffle(builder, a, b, elements) for a, b in zip(parts[::2], parts[1::2])]
    return parts[0]


def _call_llvm(builder: Any, name: str, *arguments: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(arguments))
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{VECTOR_BYTES}i8")
    return builder.call(function, arguments)


def _block_addresses(builder: Any, address: Any, distance: Any) -> list[Any]:
    """List the addresses of eight blocks, ``distance`` bytes apart."""
    addresses = [address]
    for _ in range(BLOCKS - 1):
        addresses.append(builder.add(addresses[-1], distance))
    return addresses


@intrinsic
def zeros(typing: Any) -> Intrinsic:
    """Make a vector of zeros."""
    return _vector(), lambda context, builder, signature, _: ir.Constant(_VECTOR, [0] * VECTOR_BYTES)


@intrinsic
def load(typing: Any, address: int) -> Intrinsic:
    """Read the 128 bytes at ``address``, which may be unaligned."""
    return _vector(types.uintp), lambda context, builder, signature, a: _read(builder, a[0], _VECTOR)


@intrinsic
def store(typing: Any, address: int, value: Vector) -> Intrinsic:
    """Write the vector to the 128 bytes at ``address``, which may be unaligned."""

    def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
        _write(builder, *a)
        return context.get_dummy_value()

    return types.void(types.uintp, _vector), generate


@intrinsic
def load_above(typing: Any, first: int, others: int) -> Intrinsic:
    """Read 16 bytes from ``first``, then all blocks but the last of the vector at ``others``."""

    def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
        rest = _block_addresses(builder, a[1], ir.Constant(a[1].type, BLOCK_BYTES))[: BLOCKS - 1]
        return _concatenate(builder, [_read(builder, address, _BLOCK) for address in (a[0], *rest)])

    return _vector(types.uintp, types.uintp), generate


@intrinsic
def shift_elements(typing: Any, above: Vector, value: Vector) -> Intrinsic:
    """Move every element of ``value`` one place up within its block.

    The first element of a block becomes the last element of the same block of ``above``.
    """
    elements = [
        element
        for b in range(0, VECTOR_BYTES, BLOCK_BYTES)
        for element in (b + BLOCK_BYTES - 1, *range(VECTOR_BYTES + b, VECTOR_BYTES + b + BLOCK_BYTES - 1))
    ]
    return _vector(_vector, _vector), lambda context, builder, signature, a: _shuffle(builder, a[0], a[1], elements)


@intrinsic
def bitwise_and(typing: Any, x: Vector, y: Vector) -> Intrinsic:
    """Compute ``x & y``."""
    return _vector(_vector, _vector), lambda context, builder, signature, a: builder.and_(*a)


@intrinsic
def add(typing: Any, x: Vector, y: Vector) -> Intrinsic:
    """Compute ``x + y`` modulo 256."""
    return _vector(_vector, _vector), lambda context, builder, signature, a: builder.add(*a)


@intrinsic
def average(typing: Any, x: Vector, y: Vector) -> Intrinsic:
    """Compute floor((x + y) / 2), the Average filter (section 9.3), without a ninth bit."""

    def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
        half = builder.lshr(builder.xor(*a), ir.Constant(_VECTOR, [1] * VECTOR_BYTES))
        return builder.add(builder.and_(*a), half)

    return _vector(_vector, _vector), generate


@intrinsic
def select(typing: Any, mask: Vector, x: Vector, y: Vector) -> Intrinsic:
    """Take ``x`` where the mask is 255, ``y`` where it is 0."""

    def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
        mask, x, y = a
        return builder.xor(y, builder.and_(mask, builder.xor(x, y)))

    return _vector(_vector, _vector, _vector), generate


@intrinsic
def paeth(typing: Any, left: Vector, up: Vector, corner: Vector) -> Intrinsic:
    """Compute the Paeth predictor (section 9.4) in eight bits.

    Let ``low`` and ``high`` be the smaller and the larger of left and up. The specification's estimate
    p = left + up - corner is as far from ``low`` as ``high`` is from the corner, and as far from ``high`` as ``low`` is
    from the corner. So the nearest one is ``high`` if 2 (corner - low) <= high - corner, ``low`` if
    2 (high - corner) <= corner - low, and else the corner. A negative difference may count as 0, and a doubled one
    above 255 as 255.
    """

    def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
        left, up, corner = a
        low, high = _call_llvm(builder, "umin", left, up), _call_llvm(builder, "umax", left, up)
        over, under = _call_llvm(builder, "usub.sat", corner, low), _call_llvm(builder, "usub.sat", high, corner)
        take_high = builder.icmp_unsigned("<=", _call_llvm(builder, "uadd.sat", over, over), under)
        take_low = builder.icmp_unsigned("<=", _call_llvm(builder, "uadd.sat", under, under), over)
        return builder.select(take_high, high, builder.select(take_low, low, corner))

    return _vector(_vector, _vector, _vector), generate


@intrinsic
def swap_pairs(typing: Any, value: Vector) -> Intrinsic:
    """Swap the two bytes of every 16-bit number."""
    elements = [element ^ 1 for element in range(VECTOR_BYTES)]
    return _vector(_vector), lambda context, builder, signature, a: _shuffle(builder, a[0], a[0], elements)


@intrinsic
def transpose(
    typing: Any, source: int, pitch: int, block: int, target: int, target_pitch: int, target_block: int
) -> Intrinsic:
    """Transpose eight tiles of 16 x 16 bytes.

    Tile b begins at ``source + b * block`` and its rows are ``pitch`` bytes apart; at the target likewise. Four rounds
    interleave row i with row i + 8. Each round moves one bit of the index from the row to the column.
    """
    first = [
        element
        for b in range(0, VECTOR_BYTES, BLOCK_BYTES)
        for k in range(b, b + 8)
        for element in (k, VECTOR_BYTES + k)
    ]
    second = [element + 8 for element in first]

    def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
        source, pitch, block, target, target_pitch, target_block = a
        rows = []
        for _ in range(BLOCK_BYTES):
            blocks = [_read(builder, address, _BLOCK) for address in _block_addresses(builder, source, block)]
            rows.append(_concatenate(builder, blocks))
            source = builder.add(source, pitch)
        for _ in range(4):
            pairs = list(zip(rows[:8], rows[8:]))
            rows = [_shuffle(builder, x, y, elements) for x, y in pairs for elements in (first, second)]
        for row in rows:
            for b, address in enumerate(_block_addresses(builder, target, target_block)):
                elements = range(b * BLOCK_BYTES, (b + 1) * BLOCK_BYTES)
                _write(builder, address, _shuffle(builder, row, row, elements))
            target = builder.add(target, target_pitch)
        return context.get_dummy_value()

    return types.void(*[types.uintp] * 6), generate
