"""Loads and stores at plain addresses for Numba: what :mod:`rxrx_kernels.deflate.pair` is written in.

An array that is passed to an inlined function costs a count of its references at every turn of a loop, and each index
a multiplication; an address costs neither. Nothing is checked: the callers own the memory and know its bounds.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["copy32", "load8", "load32", "load64", "store8", "store32", "store64"]


def _make_load(bits, result):
    @intrinsic
    def load(typing, address):
        def generate(context, builder, signature, arguments):
            return builder.load(builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer()), align=1)

        return result(types.uint64), generate

    return load


def _make_store(value):
    @intrinsic
    def store(typing, address, stored):
        def generate(context, builder, signature, arguments):
            pointer = builder.inttoptr(arguments[0], arguments[1].type.as_pointer())
            builder.store(arguments[1], pointer, align=1)
            return context.get_dummy_value()

        return types.void(types.uint64, value), generate

    return store


load8, load32, load64 = (_make_load(kind.bitwidth, kind) for kind in (types.uint8, types.uint32, types.uint64))
store8, store32, store64 = map(_make_store, (types.uint8, types.uint32, types.uint64))


@intrinsic
def copy32(typing, target, source):
    """32 bytes, all read before the first is written."""

    def generate(context, builder, signature, arguments):
        block = ir.VectorType(ir.IntType(8), 32).as_pointer()
        target, source = (builder.inttoptr(address, block) for address in arguments)
        builder.store(builder.load(source, align=1), target, align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate
