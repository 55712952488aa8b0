"""libdeflate for compiled code: zlib streams and checksums at the speed of C, called from Numba kernels.

The package ``deflate`` on PyPI contains libdeflate and exports its C functions, so nothing has to be compiled here. Its
Python interface makes a new ``bytes`` object for each image and needs the interpreter. A kernel that has released the
GIL calls the C functions by address instead.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "Decompressor",
    "Functions",
    "adler32",
    "available",
    "copy_bytes",
    "crc32",
    "functions",
    "zlib_decompress",
]

#: What an ``@intrinsic`` returns: its signature, and the function that writes its LLVM code.
Intrinsic = tuple[Any, Callable]


class Functions(NamedTuple):
    """Addresses of the C functions.

    Kernels take them as arguments: an address in a global would be compiled in, and defeat Numba's cache.
    """

    zlib_decompress: int
    crc32: int
    adler32: int


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        import deflate

        # Since 0.8 the package is a folder with the extension in it; before, it was the extension itself.
        library = ctypes.CDLL(getattr(deflate, "_deflate", deflate).__file__)
        library.libdeflate_alloc_decompressor.restype = ctypes.c_void_p
        library.libdeflate_free_decompressor.argtypes = [ctypes.c_void_p]
        library.libdeflate_free_decompressor.restype = None
        for name in Functions._fields:
            getattr(library, f"libdeflate_{name}")
    except (ImportError, OSError, AttributeError) as error:
        raise ImportError(f"libdeflate can't be used ({error}); install it: pip install 'deflate>=0.7,<1'") from None
    return library


def available() -> bool:
    """Tell whether libdeflate is installed and exports what is needed (a build may hide its symbols)."""
    try:
        _library()
    except ImportError:
        return False
    return True


@functools.cache
def functions() -> Functions:
    """Look up the addresses of libdeflate's functions.

    Returns
    -------
    Functions

    Raises
    ------
    ImportError
        If libdeflate can't be used; the message says what to install.
    """
    library = _library()
    return Functions(
        *(ctypes.cast(getattr(library, f"libdeflate_{name}"), ctypes.c_void_p).value or 0 for name in Functions._fields)
    )


class Decompressor:
    """libdeflate's own tables, 11 KB, for one thread at a time. Freed with this object.

    Raises
    ------
    ImportError
        As :func:`functions`.
    MemoryError
        If libdeflate can't allocate them.
    """

    def __init__(self) -> None:
        library = _library()
        #: What the C functions take as their first argument.
        self.address = library.libdeflate_alloc_decompressor()
        if not self.address:
            raise MemoryError("libdeflate has no memory for a decompressor")
        self._free = weakref.finalize(self, library.libdeflate_free_decompressor, self.address)


_WORD, _INT = ir.IntType(64), ir.IntType(32)


@intrinsic
def zlib_decompress(
    typing: Any, function: int, decompressor: int, source: int, source_size: int, target: int, target_size: int
) -> Intrinsic:
    """Inflate a zlib stream and check its Adler-32. Bytes behind the stream are not read.

    All arguments are addresses and sizes in bytes, uint64. Returns 0 if the stream fills the target exactly, 1 if it is
    damaged, 2 if it ends before the target is full, 3 if it holds more.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_INT, [_WORD] * 6).as_pointer()
        function = builder.inttoptr(arguments[0], kind)
        # The last argument, where to put the size, is null: libdeflate then requires the exact size.
        return builder.call(function, [*arguments[1:], ir.Constant(_WORD, 0)])

    return types.int32(*[types.uint64] * 6), generate


def _make_checksum(first: int) -> Any:
    """Make ``checksum(function, source, size)``; ``first`` is the checksum of no bytes."""

    @intrinsic
    def checksum(typing: Any, function: int, source: int, size: int) -> Intrinsic:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.FunctionType(_INT, [_INT, _WORD, _WORD]).as_pointer()
            function = builder.inttoptr(arguments[0], kind)
            return builder.call(function, [ir.Constant(_INT, first), *arguments[1:]])

        return types.uint32(*[types.uint64] * 3), generate

    return checksum


#: Checksums of the bytes at an address: ``crc32(function, source, size)``, uint32.
crc32, adler32 = _make_checksum(0), _make_checksum(1)


@intrinsic
def copy_bytes(typing: Any, target: int, source: int, size: int) -> Intrinsic:
    """Copy bytes between addresses with C's memcpy. Numba assigns one slice to another byte by byte."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        target, source = (builder.inttoptr(address, byte) for address in arguments[:2])
        cgutils.raw_memcpy(builder, target, source, arguments[2], ir.Constant(_WORD, 1))
        return context.get_dummy_value()

    return types.void(*[types.uint64] * 3), generate
