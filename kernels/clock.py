"""The system's clock, for compiled code: reading Python's would need the interpreter."""

from __future__ import annotations

import ctypes
import time

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["address", "nanoseconds"]

_WORD = ir.IntType(64)
_MONOTONIC = time.CLOCK_MONOTONIC


def address() -> int:
    """Address of C's ``clock_gettime``, which the kernel takes as an argument (a global would defeat its cache)."""
    return ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value


@intrinsic
def nanoseconds(typing, function):
    """Nanoseconds of the clock that only runs forward, int64; reading it takes about 30."""

    def generate(context, builder, signature, arguments):
        # A timespec: seconds and nanoseconds, each of 64 bits on every 64-bit system.
        with builder.goto_entry_block():
            time_ = builder.alloca(ir.ArrayType(_WORD, 2))
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), time_.type]).as_pointer()
        builder.call(builder.inttoptr(arguments[0], kind), [ir.Constant(ir.IntType(32), _MONOTONIC), time_])
        now = builder.load(time_)
        seconds, rest = builder.extract_value(now, 0), builder.extract_value(now, 1)
        return builder.add(builder.mul(seconds, ir.Constant(_WORD, 10**9)), rest)

    return types.int64(types.uint64), generate
