"""Loads and stores at plain addresses for Numba; :mod:`rxrx_kernels.deflate` is built on them.

An array passed to an inlined function costs a reference count at every iteration of a loop, and each index a
multiplication. An address costs neither. Nothing is checked: the callers own the memory and know its bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["copy32", "load8", "load32", "load64", "store8", "store32", "store64"]

#: What an ``@intrinsic`` returns: its signature, and the function that writes its LLVM code.
Intrinsic = tuple[Any, Callable]


def _make_load(result: Any) -> Any:
    """Make ``load(address)`` for an unsigned type of Numba; the address may be unaligned."""

    @intrinsic
    def load(typing: Any, address: int) -> Intrinsic:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.load(builder.inttoptr(arguments[0], ir.IntType(result.bitwidth).as_pointer()), align=1)

        return result(types.uint64), generate

    return load


def _make_store(value: Any) -> Any:
    """Make ``store(address, value)`` for an unsigned type of Numba; the address may be unaligned."""

    @intrinsic
    def store(typing: Any, address: int, stored: int) -> Intrinsic:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], arguments[1].type.as_pointer())
            builder.store(arguments[1], pointer, align=1)
            return context.get_dummy_value()

        return types.void(types.uint64, value), generate

    return store


load8, load32, load64 = map(_make_load, (types.uint8, types.uint32, types.uint64))
store8, store32, store64 = map(_make_store, (types.uint8, types.uint32, types.uint64))


@intrinsic
def copy32(typing: Any, target: int, source: int) -> Intrinsic:
    """Copy 32 bytes between addresses. All are read before the first is written, so the two may overlap."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = ir.VectorType(ir.IntType(8), 32).as_pointer()
        target, source = (builder.inttoptr(address, block) for address in arguments)
        builder.store(builder.load(source, align=1), target, align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate
