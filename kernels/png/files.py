"""PNG files of grayscale channels: is a file whole, what picture does it hold, and the picture itself.

A decoder that is handed a damaged file may return a picture that is part grey, or abort the batch that the file is
in. A file that passes :func:`verify` has every chunk whole and every CRC-32 right (PNG specification, 3rd edition,
section 5), so what is left to go wrong in decoding is a file that was written wrong.

:func:`decode_site` makes the same checks, and inflates and unfilters (sections 9 and 10) a site's files straight into
the planes of an array, in one call without the GIL. It takes what microscopes write: grayscale of 8 or 16 bits, not
interlaced (:func:`supported`); any other PNG is for a general decoder.
"""

from __future__ import annotations

import struct
import threading
import time
import zlib
from typing import NamedTuple

import numpy as np
from rxrx_kernels import clock
from rxrx_kernels.deflate import libdeflate as inflate
from rxrx_kernels.deflate import pair as inflate_pair
from rxrx_kernels.png import decode as png_decode
from rxrx_kernels.png import unfilter

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

SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: Channels of each colour type (section 11.2.1).
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class PngError(ValueError):
    """Not a whole PNG file, or not the expected one; the message is the reason, without the file's name.

    ``index`` is the file's place in the list given to :func:`decode_site`, else None.
    """

    def __init__(self, reason: str, index: int | None = None):
        super().__init__(reason)
        self.index = index

    def __reduce__(self):
        return type(self), (str(self), self.index)


class Header(NamedTuple):
    """The IHDR chunk. ``color_type`` 0 is grayscale, 2 RGB, 3 palette, 4 grayscale + alpha, 6 RGB + alpha."""

    width: int
    height: int
    bit_depth: int
    color_type: int
    interlaced: bool

    @property
    def channels(self) -> int:
        return _CHANNELS[self.color_type]


def header(data) -> Header:
    """Read the header of an encoded PNG.

    Parameters
    ----------
    data : bytes-like
        At least the first 33 bytes of the file.

    Raises
    ------
    PngError
        If the bytes are not the beginning of a PNG.
    """
    if len(data) == 0:
        raise PngError("the file is empty")
    if bytes(data[:8]) != SIGNATURE:
        raise PngError("not a PNG file (its first 8 bytes are not the PNG signature)")
    if len(data) < 33:
        raise PngError(f"truncated: {len(data)} bytes, not even a whole header")
    length, kind, width, height, depth, color, compression, filtering, interlace = struct.unpack_from(
        ">I4sIIBBBBB", data, 8
    )
    if kind != b"IHDR" or length != 13:
        raise PngError("the first chunk is not a header (IHDR)")
    if color not in _CHANNELS or compression or filtering or interlace > 1 or not width or not height:
        raise PngError(f"the header is not valid (size {width} x {height}, colour type {color}, bit depth {depth})")
    return Header(width, height, depth, color, bool(interlace))


def verify(data) -> Header:
    """Walk the chunks of an encoded PNG and check each CRC-32.

    Parameters
    ----------
    data : bytes-like
        The whole file. Bytes behind IEND are tolerated, as every decoder does.

    Returns
    -------
    Header

    Raises
    ------
    PngError
        Truncated, a wrong CRC-32, no image data, or no IEND.
    """
    result = header(data)
    view = memoryview(data).cast("B")
    position, end, image_data = 8, len(view), 0
    while position + 12 <= end:
        length, kind = struct.unpack_from(">I4s", view, position)
        after = position + 12 + length
        if after > end:
            raise PngError(f"truncated in chunk {kind.decode('latin-1')!r}: {after - end} bytes are missing")
        (stored,) = struct.unpack_from(">I", view, after - 4)
        if zlib.crc32(view[position + 4 : after - 4]) != stored:
            raise PngError(f"damaged: the CRC-32 of chunk {kind.decode('latin-1')!r} at byte {position} is wrong")
        if kind == b"IDAT":
            image_data += length
        elif kind == b"IEND":
            if not image_data:
                raise PngError("holds no image data (IDAT)")
            return result
        position = after
    raise PngError("truncated: the end chunk (IEND) is missing")


def supported(found: Header) -> bool:
    """Whether :func:`decode_site` takes such a file: grayscale of 8 or 16 bits, not interlaced."""
    return found.color_type == 0 and found.bit_depth in (8, 16) and not found.interlaced


_REASONS = {
    png_decode.CONTAINER: "not a whole PNG file",
    png_decode.NOT_DECODED: "was not decoded",
    png_decode.STREAM: "damaged: the compressed image data is not a valid zlib stream, or its Adler-32 is wrong",
    png_decode.SHORT: "the image data ends before the last row",
    png_decode.LONG: "holds more image data than its size allows",
    png_decode.FILTER: "damaged: a row is of no known filter",
    png_decode.ORDER: "the image data (IDAT) is interrupted by another chunk",
    png_decode.CRITICAL: "holds a chunk that a decoder must know, but is in no specification",
    png_decode.ROOM: "the image data is larger than the file",
}


class Scratch:
    """What one thread needs to decode images of one size: about 1 MB at 512 x 512. Not to be shared between threads.

    Parameters
    ----------
    height, width : int
    bit_depth : int
        8 or 16.

    Raises
    ------
    ImportError
        If libdeflate is not installed.
    """

    def __init__(self, height: int, width: int, bit_depth: int = 8):
        if height < 1 or width < 1 or bit_depth not in (8, 16):
            raise ValueError(f"no scratch for images of {height} x {width} pixels of {bit_depth} bits")
        self.key = (height, width, bit_depth)
        pixel_bytes = bit_depth // 8
        self.functions = inflate.functions()
        self.decompressor = inflate.Decompressor()
        self.clock = clock.address()
        room = max(inflate_pair.ROOM, unfilter.PADDING)
        self.filtered = np.zeros((2, height * (1 + width * pixel_bytes) + room), np.uint8)
        self.pair, self.paired = inflate_pair.workspace(), png_decode.PAIRED
        self.work = unfilter.workspace(width * pixel_bytes, pixel_bytes)
        self.joined = np.empty((2, 0), np.uint8)

    def reserve(self, size: int) -> None:
        """Make room to join the image data of a file of ``size`` bytes; it grows by doubling, so seldom."""
        if size > self.joined.shape[1]:
            self.joined = np.empty((2, 1 << (size - 1).bit_length()), np.uint8)


_threads = threading.local()


def _own_scratch(height: int, width: int, bit_depth: int) -> Scratch:
    """This thread's scratch, which goes when the thread does. One size is kept: a data set has one."""
    scratch = getattr(_threads, "scratch", None)
    if scratch is None or scratch.key != (height, width, bit_depth):
        scratch = _threads.scratch = Scratch(height, width, bit_depth)
    return scratch


def decode_files(
    files, out: np.ndarray, scratch: Scratch | None = None, seconds: np.ndarray | None = None
) -> np.ndarray:
    """Decode grayscale PNG files into the planes of an array. Releases the GIL; never raises for what a file holds.

    Parameters
    ----------
    files : sequence of C bytes-like objects
        Encoded files: 1-D uint8 arrays, bytes or memory maps. Bytes behind IEND are tolerated.
    out : (C, H, W) uint8 or uint16
        Plane k is written in full from file k. Every plane C-contiguous, such as a sample of a (B, C, H, W) batch.
        Files must hold H x W pixels of 8 (uint8) or 16 (uint16) bits; a header that says otherwise is refused before
        any memory is taken for it.
    scratch : Scratch, optional
        Of this size, used by this call alone. By default the thread's own.
    seconds : (2,) float64, optional
        How long the call took is added: for the checks of the containers and inflating, and for unfiltering.

    Returns
    -------
    (C,) int64
        0 for a file that was decoded, else what :func:`status_text` puts into words. The plane of such a file is
        undefined.

    Raises
    ------
    ValueError
        If ``out`` or ``scratch`` does not fit.
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
    status = np.full(channels, png_decode.NOT_DECODED, np.int64)
    unfiltering = png_decode.decode(
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


def _bytes(data) -> np.ndarray:
    return np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)


def decode_site(files, out: np.ndarray, scratch: Scratch | None = None) -> None:
    """:func:`decode_files`, but a file that can't be decoded is an error.

    Raises
    ------
    PngError
        With the reason and the ``index`` of the first such file; every other plane is decoded.
    """
    status = decode_files(files, out, scratch)
    if status.any():
        index = int(np.flatnonzero(status)[0])
        raise PngError(status_text(int(status[index]), files[index], out), index)


def status_text(status: int, data, out: np.ndarray) -> str:
    """The words for a status of file ``data``, with the numbers that the compiled loop does not carry."""
    try:
        found = (
            header(_bytes(data)) if status in (png_decode.OTHER_KIND, png_decode.OTHER_SIZE) else verify(_bytes(data))
        )
    except PngError as error:
        return str(error)
    if status in (png_decode.OTHER_KIND, png_decode.OTHER_SIZE):
        return (
            f"is {found.height} x {found.width} pixels (colour type {found.color_type}, bit depth {found.bit_depth}"
            f"{', interlaced' * found.interlaced}), but {out.shape[-2]} x {out.shape[-1]} pixels of "
            f"{8 * out.itemsize}-bit grayscale are expected"
        )
    return _REASONS[status]
