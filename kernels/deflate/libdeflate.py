"""libdeflate for compiled code: zlib streams and CRC-32 at the speed of C, from inside a Numba kernel.

The package ``deflate`` on PyPI carries libdeflate and exports its C functions, so nothing has to be compiled here.
Called through its Python interface it would make a new ``bytes`` object an image and need the interpreter for each;
called by address from a kernel that has released the GIL, it needs neither.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["Decompressor", "Functions", "available", "functions"]


class Functions(NamedTuple):
    """Addresses of the C functions, as integers that a kernel takes as arguments (a global would defeat its cache)."""

    zlib_decompress: int
    crc32: int
    adler32: int


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        import deflate

        # Since 0.8 the package is a folder with the extension inside; before, it was the extension itself.
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
    """Whether libdeflate is there and exports what is needed (a build may hide its symbols)."""
    try:
        _library()
    except ImportError:
        return False
    return True


@functools.cache
def functions() -> Functions:
    """The addresses of libdeflate's functions.

    Raises
    ------
    ImportError
        Saying what to install.
    """
    library = _library()
    return Functions(
        *(ctypes.cast(getattr(library, f"libdeflate_{name}"), ctypes.c_void_p).value for name in Functions._fields)
    )


class Decompressor:
    """libdeflate's own tables, 11 KB, for one thread at a time; freed with this object."""

    def __init__(self):
        library = _library()
        #: What the C functions take as their first argument.
        self.address = library.libdeflate_alloc_decompressor()
        if not self.address:
            raise MemoryError("libdeflate has no memory for a decompressor")
        self._free = weakref.finalize(self, library.libdeflate_free_decompressor, self.address)


_WORD, _INT = ir.IntType(64), ir.IntType(32)


@intrinsic
def zlib_decompress(typing, function, decompressor, source, source_size, target, target_size):
    """0 if the zlib stream fills the target exactly and its Adler-32 is right; bytes behind the stream are not read.

    1 if the stream is damaged, 2 if it ends before the target is full, 3 if it holds more. All arguments are addresses
    and sizes, uint64.
    """

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(_INT, [_WORD] * 6).as_pointer()
        function = builder.inttoptr(arguments[0], kind)
        # Without the sixth argument (where to put the size) libdeflate itself insists on the exact size.
        return builder.call(function, [*arguments[1:], ir.Constant(_WORD, 0)])

    return types.int32(*[types.uint64] * 6), generate


def _make_checksum(first):
    @intrinsic
    def checksum(typing, function, source, size):
        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(_INT, [_INT, _WORD, _WORD]).as_pointer()
            function = builder.inttoptr(arguments[0], kind)
            return builder.call(function, [ir.Constant(_INT, first), *arguments[1:]])

        return types.uint32(*[types.uint64] * 3), generate

    return checksum


#: The checksums of the bytes at an address: ``crc32(function, source, size)``. An empty text has the value given here.
crc32, adler32 = _make_checksum(0), _make_checksum(1)


@intrinsic
def copy_bytes(typing, target, source, size):
    """C's memcpy between addresses: assigning one slice to another in Numba goes byte by byte."""

    def generate(context, builder, signature, arguments):
        byte = ir.IntType(8).as_pointer()
        target, source = (builder.inttoptr(address, byte) for address in arguments[:2])
        cgutils.raw_memcpy(builder, target, source, arguments[2], ir.Constant(_WORD, 1))
        return context.get_dummy_value()

    return types.void(*[types.uint64] * 3), generate
