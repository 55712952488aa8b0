"""PNG files of grayscale channels: is a file whole, what picture does it hold, and the picture itself.

A decoder that is handed a damaged file may return a picture that is part grey, or abort the batch that the file is
in. A file that passes :func:`verify` has every chunk whole and every CRC-32 right (PNG specification, 3rd edition,
section 5), so what is left to go wrong in decoding is a file that was written wrong.

:func:`decode_site` makes the same checks, and inflates and unfilters (sections 9 and 10) a site's files straight into the
planes of an array, in one call without the GIL. It takes what microscopes write: grayscale of 8 or 16 bits, not
interlaced (:func:`supported`); any other PNG is for a general decoder.
"""

from __future__ import annotations

import struct
import threading
import zlib
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from rxrx_kernels import inflate
from rxrx_kernels.unfilter import PADDING, undo, workspace

__all__ = ["SIGNATURE", "Header", "PngError", "Scratch", "decode_files", "decode_site", "header", "status_text", "supported", "verify"]

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
    length, kind, width, height, depth, color, compression, filtering, interlace = struct.unpack_from(">I4sIIBBBBB", data, 8)
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


# What can be wrong with a file, as the compiled loop reports it. CONTAINER is everything that `verify` finds and words.
_OK, _CONTAINER, _OTHER_KIND, _OTHER_SIZE, _NOT_DECODED, _STREAM, _SHORT, _LONG, _FILTER, _ORDER, _CRITICAL, _ROOM = range(12)

_REASONS = {
    _CONTAINER: "not a whole PNG file",
    _NOT_DECODED: "was not decoded",
    _STREAM: "damaged: the compressed image data is not a valid zlib stream, or its Adler-32 is wrong",
    _SHORT: "the image data ends before the last row",
    _LONG: "holds more image data than its size allows",
    _FILTER: "damaged: a row is of no known filter",
    _ORDER: "the image data (IDAT) is interrupted by another chunk",
    _CRITICAL: "holds a chunk that a decoder must know, but is in no specification",
    _ROOM: "the image data is larger than the file",
}

# Chunk types as big-endian integers.
_IHDR, _PLTE, _IDAT, _IEND = (int.from_bytes(kind, "big") for kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"))
#: Set in the first letter of chunks that a decoder may skip (section 5.4).
_ANCILLARY = 1 << 29


class Scratch:
    """What one thread needs to decode images of one size: about 0.5 MB at 512 x 512. Not to be shared between threads.

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
        self.filtered = np.zeros(height * (1 + width * pixel_bytes) + PADDING, np.uint8)
        self.work = workspace(width * pixel_bytes, pixel_bytes)
        self.joined = np.empty(0, np.uint8)

    def reserve(self, size: int) -> None:
        """Make room to join the image data of a file of ``size`` bytes; it grows by doubling, so seldom."""
        if size > self.joined.size:
            self.joined = np.empty(1 << (size - 1).bit_length(), np.uint8)


_threads = threading.local()


def _own_scratch(height: int, width: int, bit_depth: int) -> Scratch:
    """This thread's scratch, which goes when the thread does. One size is kept: a data set has one."""
    scratch = getattr(_threads, "scratch", None)
    if scratch is None or scratch.key != (height, width, bit_depth):
        scratch = _threads.scratch = Scratch(height, width, bit_depth)
    return scratch


@intrinsic
def _pointer(typing, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(types.uint64), generate


@njit(nogil=True, cache=True)
def _word(data, at):
    return (np.uint32(data[at]) << 24) | (np.uint32(data[at + 1]) << 16) | (np.uint32(data[at + 2]) << 8) | np.uint32(data[at + 3])


@njit(nogil=True, cache=True)
def _image_data(data, height, width, bit_depth, crc32, joined):
    """Check a file and find its compressed image data: (status, whether it was joined, first byte, size)."""
    if data.size < 33 or _word(data, 0) != 0x89504E47 or _word(data, 4) != 0x0D0A1A0A:
        return _CONTAINER, False, 0, 0
    if _word(data, 8) != 13 or _word(data, 12) != _IHDR:
        return _CONTAINER, False, 0, 0
    start, size, pieces, closed = 0, 0, 0, False
    position = 8
    while position + 12 <= data.size:
        length, kind = np.int64(_word(data, position)), np.int64(_word(data, position + 4))
        body, after = position + 8, position + 12 + length
        if after > data.size:
            return _CONTAINER, False, 0, 0
        if inflate.crc32(crc32, np.uint64(data.ctypes.data) + np.uint64(position + 4), np.uint64(length + 4)) != _word(data, after - 4):
            return _CONTAINER, False, 0, 0
        if kind == _IDAT:
            if closed:
                return _ORDER, False, 0, 0
            if pieces == 0:
                start = body
            else:
                # Nearly every file is one piece and stays where it is; at the second, the first is fetched too.
                if size + length > joined.size:
                    return _ROOM, False, 0, 0
                if pieces == 1:
                    joined[:size] = data[start : start + size]
                joined[size : size + length] = data[body : body + length]
            size += length
            pieces += 1
        elif kind == _IEND:
            if size == 0:
                return _CONTAINER, False, 0, 0
            return _OK, pieces > 1, start, size
        else:
            closed = pieces > 0
            if position == 8:
                status = _check_header(data, height, width, bit_depth)
                if status != _OK:
                    return status, False, 0, 0
            elif kind & _ANCILLARY == 0 and kind != _PLTE:
                return _CRITICAL, False, 0, 0
        position = after
    return _CONTAINER, False, 0, 0


@njit(nogil=True, cache=True)
def _check_header(data, height, width, bit_depth):
    """IHDR (section 11.2.1) against what the array holds, before anything is written."""
    depth, color, compression, filtering, interlace = data[24], data[25], data[26], data[27], data[28]
    if _word(data, 16) == 0 or _word(data, 20) == 0 or compression != 0 or filtering != 0 or interlace > 1:
        return _CONTAINER
    if color != 0 or depth != bit_depth or interlace != 0:
        return _OTHER_KIND
    if np.int64(_word(data, 16)) != width or np.int64(_word(data, 20)) != height:
        return _OTHER_SIZE
    return _OK


@njit(nogil=True, cache=True)
def _decode(addresses, sizes, out, pixel_bytes, status, decompress, crc32, decompressor, filtered, joined, strip, steps, masks):
    """All files of a site. ``out`` is (C, H, row bytes) uint8."""
    height, row_bytes = out.shape[1], out.shape[2]
    for k in range(out.shape[0]):
        data = carray(_pointer(np.uint64(addresses[k])), (sizes[k],))
        state, was_joined, start, size = _image_data(data, height, row_bytes // pixel_bytes, 8 * pixel_bytes, crc32, joined)
        if state == _OK:
            source = np.uint64(joined.ctypes.data) if was_joined else np.uint64(addresses[k]) + np.uint64(start)
            found = inflate.zlib_decompress(
                decompress, decompressor, source, np.uint64(size), np.uint64(filtered.ctypes.data), np.uint64(filtered.size - PADDING)
            )
            if found != 0:
                state = _SHORT if found == 2 else _LONG if found == 3 else _STREAM
            elif not undo(filtered, out[k], pixel_bytes, strip, steps, masks):
                state = _FILTER
        status[k] = state


def decode_files(files, out: np.ndarray, scratch: Scratch | None = None) -> np.ndarray:
    """Decode grayscale PNG files into the planes of an array. Releases the GIL; never raises for what a file holds.

    Parameters
    ----------
    files : sequence of C bytes-like objects
        Encoded files: 1-D uint8 arrays, bytes or memory maps. Bytes behind IEND are tolerated.
    out : (C, H, W) uint8 or uint16
        Plane k is written in full from file k. Every plane C-contiguous, such as a sample of a (B, C, H, W) batch. Files
        must hold H x W pixels of 8 (uint8) or 16 (uint16) bits; a header that says otherwise is refused before any memory
        is taken for it.
    scratch : Scratch, optional
        Of this size, used by this call alone. By default the thread's own.

    Returns
    -------
    (C,) int64
        0 for a file that was decoded, else what :func:`status_text` puts into words. The plane of such a file is undefined.

    Raises
    ------
    ValueError
        If ``out`` or ``scratch`` does not fit.
    ImportError
        If libdeflate is not installed.
    """
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
    status = np.full(channels, _NOT_DECODED, np.int64)
    _decode(
        np.array([array.ctypes.data for array in arrays], np.uint64),
        np.array([array.size for array in arrays], np.int64),
        out.view(np.uint8),
        pixel_bytes,
        status,
        *scratch.functions,
        scratch.decompressor.address,
        scratch.filtered,
        scratch.joined,
        *scratch.work,
    )
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
        found = header(_bytes(data)) if status in (_OTHER_KIND, _OTHER_SIZE) else verify(_bytes(data))
    except PngError as error:
        return str(error)
    if status in (_OTHER_KIND, _OTHER_SIZE):
        return (
            f"is {found.height} x {found.width} pixels (colour type {found.color_type}, bit depth {found.bit_depth}"
            f"{', interlaced' * found.interlaced}), but {out.shape[-2]} x {out.shape[-1]} pixels of "
            f"{8 * out.itemsize}-bit grayscale are expected"
        )
    return _REASONS[status]
