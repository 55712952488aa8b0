"""The system's clock for compiled code, which cannot call Python's without the interpreter."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["address", "nanoseconds"]

_WORD = ir.IntType(64)
_MONOTONIC = time.CLOCK_MONOTONIC


def address() -> int:
    """Return the address of C's ``clock_gettime``.

    Kernels take it as an argument: an address in a global would be compiled in, and defeat Numba's cache.
    """
    return ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value or 0


@intrinsic
def nanoseconds(typing: Any, function: int) -> tuple[Any, Callable]:
    """Read the monotonic clock, in nanoseconds as int64. One reading takes about 30 ns.

    ``function`` is :func:`address`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # struct timespec: seconds and nanoseconds, 64 bits each on every 64-bit system.
        with builder.goto_entry_block():
            time_ = builder.alloca(ir.ArrayType(_WORD, 2))
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), time_.type]).as_pointer()
        builder.call(builder.inttoptr(arguments[0], kind), [ir.Constant(ir.IntType(32), _MONOTONIC), time_])
        now = builder.load(time_)
        seconds, rest = builder.extract_value(now, 0), builder.extract_value(now, 1)
        return builder.add(builder.mul(seconds, ir.Constant(_WORD, 10**9)), rest)

    return types.int64(types.uint64), generate
