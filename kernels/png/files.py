"""Decode the PNG files of grayscale channels: container checks, inflating and unfiltering in one call without the GIL.

:func:`decode_site` writes a site's files straight into the planes of an array, and makes the checks of :func:`verify`
on the way. It takes what microscopes write: grayscale of 8 or 16 bits, not interlaced (:func:`supported`). Any other
PNG needs a general decoder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
from rxrx_kernels import clock
from rxrx_kernels.deflate import libdeflate, pair
from rxrx_kernels.png import unfilter
from rxrx_kernels.png.container import SIGNATURE, BytesLike, Header, PngError, header, supported, verify
from rxrx_kernels.png.decode import PAIRED, decode
from rxrx_kernels.png.status import NOT_DECODED, OTHER_KIND, OTHER_SIZE, REASONS

__all__ = [
    "SIGNATURE",
    "Header",
    "PngError",
    "Scratch",
    "decode_files",
    "decode_site",
    "header",
    "status_text",
    "supported",
    "verify",
]


class Scratch:
    """The buffers to decode images of one size, about 1 MB at 512 x 512. Threads must not share them.

    Parameters
    ----------
    height, width : int
        In pixels.
    bit_depth : int
        8 or 16.

    Raises
    ------
    ValueError
        For images without pixels, or of another bit depth.
    ImportError
        If libdeflate is not installed.
    """

    def __init__(self, height: int, width: int, bit_depth: int = 8):
        if height < 1 or width < 1 or bit_depth not in (8, 16):
            raise ValueError(f"no scratch for images of {height} x {width} pixels of {bit_depth} bits")
        self.key = (height, width, bit_depth)
        pixel_bytes = bit_depth // 8
        self.functions = libdeflate.functions()
        self.decompressor = libdeflate.Decompressor()
        self.clock = clock.address()
        room = max(pair.ROOM, unfilter.PADDING)
        self.filtered = np.zeros((2, height * (1 + width * pixel_bytes) + room), np.uint8)
        self.pair, self.paired = pair.workspace(), PAIRED
        self.work = unfilter.workspace(width * pixel_bytes, pixel_bytes)
        self.joined = np.empty((2, 0), np.uint8)

    def reserve(self, size: int) -> None:
        """Make room to join the image data of a file of ``size`` bytes. It grows to powers of two, so seldom."""
        if size > self.joined.shape[1]:
            self.joined = np.empty((2, 1 << (size - 1).bit_length()), np.uint8)


_threads = threading.local()


def _own_scratch(height: int, width: int, bit_depth: int) -> Scratch:
    """Return this thread's scratch, which is freed with the thread. Only one size is kept: a data set has one."""
    scratch = getattr(_threads, "scratch", None)
    if scratch is None or scratch.key != (height, width, bit_depth):
        scratch = _threads.scratch = Scratch(height, width, bit_depth)
    return scratch


def decode_files(
    files: Sequence[BytesLike], out: np.ndarray, scratch: Scratch | None = None, seconds: np.ndarray | None = None
) -> np.ndarray:
    """Decode grayscale PNG files into the planes of an array. Releases the GIL; a damaged file raises nothing.

    Parameters
    ----------
    files : sequence of C bytes-like objects
        Encoded files: 1-D uint8 arrays, bytes or memory maps. Bytes behind IEND are tolerated.
    out : (C, H, W) uint8 or uint16
        Plane k is written in full from file k. Every plane is C-contiguous, as a sample of a (B, C, H, W) batch is.
        Files must hold H x W pixels of 8 (uint8) or 16 (uint16) bits. A header that says otherwise is refused before
        any memory is allocated for it.
    scratch : Scratch, optional
        Of this size, and not in use elsewhere. By default the thread's own.
    seconds : (2,) float64, optional
        The call's time is added: container checks and inflating in the first number, unfiltering in the second.

    Returns
    -------
    (C,) int64
        0 for a decoded file, otherwise a status that :func:`status_text` puts into words. The plane of a file that was
        not decoded is undefined.

    Raises
    ------
    ValueError
        If ``out``, ``scratch`` or the number of files does not fit.
    ImportError
        If libdeflate is not installed.
    """
    began = time.perf_counter()
    if out.ndim != 3 or out.dtype not in (np.uint8, np.uint16) or not out.size:
        raise ValueError(f"out must be (C, H, W) uint8 or uint16 and not empty, got {out.dtype}{out.shape}")
    if not out[0].flags.c_contiguous or not out.flags.writeable:
        raise ValueError("every plane of out must be C-contiguous and writeable")
    if len(files) != len(out):
        raise ValueError(f"{len(files)} files for {len(out)} planes")
    channels, height, width = out.shape
    pixel_bytes = out.itemsize
    if scratch is None:
        scratch = _own_scratch(height, width, 8 * pixel_bytes)
    elif scratch.key != (height, width, 8 * pixel_bytes):
        raise ValueError(f"scratch is for (height, width, bits) = {scratch.key}, but out is {out.dtype}{out.shape}")
    arrays = [_bytes(data) for data in files]
    scratch.reserve(max(array.size for array in arrays))
    status = np.full(channels, NOT_DECODED, np.int64)
    unfiltering = decode(
        np.array([array.ctypes.data for array in arrays], np.uint64),
        np.array([array.size for array in arrays], np.int64),
        out.view(np.uint8),
        pixel_bytes,
        status,
        *scratch.functions,
        scratch.decompressor.address,
        scratch.filtered,
        scratch.joined,
        scratch.pair,
        scratch.paired,
        tuple(scratch.work),
        scratch.clock,
    )
    if seconds is not None:
        seconds += time.perf_counter() - began - unfiltering * 1e-9, unfiltering * 1e-9
    return status


def _bytes(data: BytesLike) -> np.ndarray:
    return np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)


def decode_site(files: Sequence[BytesLike], out: np.ndarray, scratch: Scratch | None = None) -> None:
    """Decode grayscale PNG files into the planes of an array, as :func:`decode_files`, and raise for a damaged file.

    Parameters
    ----------
    files, out, scratch
        As for :func:`decode_files`.

    Raises
    ------
    PngError
        With the reason and the ``index`` of the first file that can't be decoded. All other planes are decoded.
    ValueError, ImportError
        As :func:`decode_files`.
    """
    status = decode_files(files, out, scratch)
    if status.any():
        index = int(np.flatnonzero(status)[0])
        raise PngError(status_text(int(status[index]), files[index], out), index)


def status_text(status: int, data: BytesLike, out: np.ndarray) -> str:
    """Put a status of :func:`decode_files` into words.

    Parameters
    ----------
    status : int
        Not 0.
    data : bytes-like
        The file. It is read again for the numbers that the compiled loop does not return.
    out : (..., H, W) uint8 or uint16
        What the file was to be decoded into.

    Returns
    -------
    str
        The reason, without the file's name.
    """
    try:
        found = header(_bytes(data)) if status in (OTHER_KIND, OTHER_SIZE) else verify(_bytes(data))
    except PngError as error:
        return str(error)
    if status in (OTHER_KIND, OTHER_SIZE):
        return (
            f"is {found.height} x {found.width} pixels (colour type {found.color_type}, bit depth {found.bit_depth}"
            f"{', interlaced' * found.interlaced}), but {out.shape[-2]} x {out.shape[-1]} pixels of "
            f"{8 * out.itemsize}-bit grayscale are expected"
        )
    return REASONS[status]
