"""nvCOMP's batched deflate decoder through ctypes: raw deflate streams in GPU memory, decoded side by side.

nvCOMP comes with DALI (package ``nvidia-libnvcomp-cu13`` or ``-cu12``), so nothing more has to be installed. This is
the C interface of nvCOMP 5 (its ``nvcomp/deflate.h``). Other major versions have another interface and are refused.

**What nvCOMP leaves to its caller.** A damaged stream is undefined behaviour. nvCOMP's header promises an error status
only for an output that does not fit. A host can check a file's CRC-32 values (:mod:`rxrx_kernels.png.gather` does),
which rules out damage after writing. Whether the stream was valid when written is known only after decoding it. So use
this for files of a writer that you trust. :mod:`rxrx_kernels.cuda.deflate` checks every access and takes anything.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Alignments", "alignments", "available", "inflate_batch", "status_text", "temporary_bytes", "version"]

_MAJOR = 5
_SUCCESS = 0
_size = ctypes.c_size_t
_pointer = ctypes.c_void_p


class _Options(ctypes.Structure):
    """``nvcompBatchedDeflateDecompressOpts_t``. All zeros let nvCOMP choose the backend."""

    _fields_ = (
        ("backend", ctypes.c_int),
        ("sort_before_hw_decompress", ctypes.c_int),
        ("reserved", ctypes.c_char * 56),
    )


class _Properties(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("cudart_version", ctypes.c_uint32))


class _Alignments(ctypes.Structure):
    _fields_ = (("input", _size), ("output", _size), ("temp", _size))


class Alignments(NamedTuple):
    """Multiples of bytes at which each stream, each output and the temporary memory must start."""

    input: int
    output: int
    temp: int


_ARGUMENTS = {
    "nvcompGetProperties": [ctypes.POINTER(_Properties)],
    "nvcompGetStatusString": [ctypes.c_int],
    "nvcompBatchedDeflateDecompressGetRequiredAlignments": [_Options, ctypes.POINTER(_Alignments)],
    "nvcompBatchedDeflateDecompressGetTempSizeAsync": [_size, _size, _Options, ctypes.POINTER(_size), _size],
    # streams, their sizes, room of the outputs, decoded sizes, count, temporary memory and its size, outputs, options,
    # statuses, CUDA stream
    "nvcompBatchedDeflateDecompressAsync": [
        *[_pointer] * 4,
        _size,
        _pointer,
        _size,
        _pointer,
        _Options,
        _pointer,
        _pointer,
    ],
}


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = importlib.import_module("nvidia.libnvcomp").load_library()
        if library is None:
            raise OSError("its shared library can't be loaded")
        for name, arguments in _ARGUMENTS.items():
            getattr(library, name).argtypes = arguments
        library.nvcompGetStatusString.restype = ctypes.c_char_p
    except (ImportError, OSError, AttributeError) as error:
        raise ImportError(f"nvCOMP can't be used ({error}); it comes with rxrx-fast[cuda13] and [cuda12]") from None
    found = _version(library)
    if found[0] != _MAJOR:
        raise ImportError(f"nvCOMP {'.'.join(map(str, found))} has another interface than {_MAJOR}.x, which is needed")
    return library


def _version(library: ctypes.CDLL) -> tuple[int, int, int]:
    found = _Properties()
    library.nvcompGetProperties(ctypes.byref(found))
    return found.version // 1000, found.version // 100 % 10, found.version % 100


def available() -> bool:
    """Tell whether nvCOMP 5 is installed and can be loaded, which needs no GPU."""
    try:
        _library()
    except ImportError:
        return False
    return True


def version() -> tuple[int, int, int]:
    """Return nvCOMP's version, such as (5, 3, 0).

    Raises
    ------
    ImportError
        If nvCOMP can't be used; the message says what to install.
    """
    return _version(_library())


def status_text(status: int) -> str:
    """Return nvCOMP's words for a status."""
    return _library().nvcompGetStatusString(int(status)).decode()


def alignments() -> Alignments:
    """Return the alignments that :func:`inflate_batch` requires: in nvCOMP 5.3, 4 bytes for streams, else none."""
    found = _Alignments()
    _call("nvcompBatchedDeflateDecompressGetRequiredAlignments", _Options(), ctypes.byref(found))
    return Alignments(found.input, found.output, found.temp)


def temporary_bytes(streams: int, largest: int, total: int) -> int:
    """Return the bytes of temporary GPU memory that :func:`inflate_batch` needs.

    Parameters
    ----------
    streams : int
    largest, total : int
        Decoded bytes of the largest stream, and of all streams.

    Returns
    -------
    int
    """
    found = _size()
    _call("nvcompBatchedDeflateDecompressGetTempSizeAsync", streams, largest, _Options(), ctypes.byref(found), total)
    return found.value


def inflate_batch(
    sources: Any, packed: Any, room: Any, targets: Any, decoded: Any, statuses: Any, temporary: Any, stream: int
) -> None:
    """Decode N raw deflate streams (no zlib header, no Adler-32). Queues the work on ``stream`` and returns at once.

    All arrays are in GPU memory and have ``__cuda_array_interface__``.

    Parameters
    ----------
    sources, targets : (N,) uint64 or int64
        Addresses of the streams and of the outputs.
    packed, room : (N,) uint64 or int64
        Bytes of each stream, and room for its output in bytes.
    decoded : (N,) uint64 or int64
        Receives the number of decoded bytes.
    statuses : (N,) int32
        Receives 0, or a status that :func:`status_text` puts into words. A damaged stream may receive 0: see the
        module.
    temporary : (M,) uint8 or None
        At least :func:`temporary_bytes` bytes.
    stream : int
        Pointer of a CUDA stream.

    Raises
    ------
    ValueError
        If arrays do not fit, or nvCOMP returns an error.
    """
    count = sources.shape[0]
    if count == 0:
        return
    words = [_address(a, count, 8) for a in (sources, packed, room, decoded, targets)]
    scratch = 0 if temporary is None else _address(temporary, temporary.shape[0], 1)
    _call(
        "nvcompBatchedDeflateDecompressAsync",
        *words[:4],
        count,
        scratch,
        0 if temporary is None else temporary.shape[0],
        words[4],
        _Options(),
        _address(statuses, count, 4),
        stream,
    )


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_library(), name)(*arguments)
    if status != _SUCCESS:
        raise ValueError(f"{name}: {status_text(status)} ({status})")


def _address(array: Any, count: int, itemsize: int) -> int:
    """Check a contiguous (count,) array of integers in GPU memory, and return its address."""
    face = array.__cuda_array_interface__
    kind = np.dtype(face["typestr"])
    strides = face.get("strides")
    if tuple(face["shape"]) != (count,) or kind.itemsize != itemsize or kind.kind not in "iu":
        raise ValueError(f"expected ({count},) whole numbers of {itemsize} bytes, got {kind}{tuple(face['shape'])}")
    if strides is not None and tuple(strides) != (itemsize,):
        raise ValueError("arrays for nvCOMP must be contiguous")
    return face["data"][0]
