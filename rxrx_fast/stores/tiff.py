"""TIFF files of microscopes: what a file holds by its header, and its pixels.

Camera software writes one uncompressed image in strips (TIFF 6.0, sections 2 to 4): that is read here, by a copy.
Everything else goes to tifffile, and what tifffile has no codec for, such as LZW, to Pillow.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

__all__ = ["Kind", "is_tiff", "read"]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIPS, _SAMPLES, _SIZES, _TILES, _FORMAT = (
    256, 257, 258, 259, 273, 277, 279, 322, 339,
)  # fmt: skip
_WANTED = {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIPS, _SAMPLES, _SIZES, _TILES, _FORMAT}
_NUMBERS = {3: "u2", 4: "u4"}  # SHORT and LONG
_UNSIGNED = 1


class Kind(NamedTuple):
    """``shape`` of a whole file, as tifffile gives it, and the ``dtype`` of its pixels."""

    shape: tuple[int, ...]
    dtype: np.dtype


def is_tiff(data: np.ndarray) -> bool:
    """Tell whether a file, (N,) uint8, begins as a TIFF of 32-bit or 64-bit offsets does."""
    return data[:4].tobytes() in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read(data: np.ndarray) -> tuple[Kind, Callable[[], np.ndarray]]:
    """Read a file's header, and prepare to read its pixels.

    Parameters
    ----------
    data : (N,) uint8
        The whole file.

    Returns
    -------
    Kind
    callable
        Returns the pixels, of that shape and dtype: possibly a view of ``data``, in the file's byte order.

    Raises
    ------
    ValueError
        With the reason, here or by the callable, if the file can't be read or pixels are missing.
    """
    tags = _plain(data)
    if tags is not None:
        kind = Kind((tags[_HEIGHT][0], tags[_WIDTH][0]), np.dtype(f"u{tags[_BITS][0] // 8}"))
        return kind, partial(_strips, data, tags)
    try:
        file = tifffile.TiffFile(io.BytesIO(data.data))
        series = file.series[0]
        kind = Kind(tuple(series.shape), np.dtype(series.dtype))
    except Exception as error:
        raise ValueError(f"not a whole TIFF file ({error})") from None
    return kind, partial(_decoded, data, series)


def _decoded(data: np.ndarray, series: tifffile.TiffPageSeries) -> np.ndarray:
    """Decode by tifffile, or by Pillow, whose libtiff has codecs that tifffile needs another package for."""
    # tifffile fills missing strips and tiles with zeros, without an error.
    pages: Any = series.pages
    for page in pages if series.dataoffset is None else ():
        pieces = () if page is None else list(zip(page.dataoffsets, page.databytecounts))
        if not pieces or len(pieces) < math.prod(page.keyframe.chunked) or min(size for _, size in pieces) < 1:
            raise ValueError("damaged: a strip or tile is missing")
        missing = max(at + size for at, size in pieces) - data.size
        if missing > 0:
            raise ValueError(f"truncated: {missing} bytes are missing")
    try:
        return series.asarray()
    except Exception as error:
        reason = str(error)
    if "imagecodecs" in reason:
        with suppress(Exception), Image.open(io.BytesIO(data.data)) as image:
            return np.asarray(image)
    raise ValueError(reason)


def _plain(data: np.ndarray) -> dict[int, np.ndarray] | None:
    """Read the tags of an uncompressed file with one gray image of 8 or 16 bits in strips; None for any other file."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4].tobytes())
    if order is None or data.size < 8:
        return None
    view = data.data
    try:
        (start,) = struct.unpack_from(order + "I", view, 4)
        (count,) = struct.unpack_from(order + "H", view, start)
        tags = {}
        for i in range(count):
            at = start + 2 + 12 * i
            tag, form, length = struct.unpack_from(order + "HHI", view, at)
            if tag in _WANTED and form in _NUMBERS:
                number = np.dtype(order + _NUMBERS[form])
                if length * number.itemsize > 4:
                    (at,) = struct.unpack_from(order + "I", view, at + 8)
                else:
                    at += 8
                tags[tag] = np.frombuffer(view, number, length, at).tolist()
        (more,) = struct.unpack_from(order + "I", view, start + 2 + 12 * count)
    except (struct.error, ValueError):
        return None
    gray = tags.get(_SAMPLES, [1]) == [1] and tags.get(_FORMAT, [_UNSIGNED]) == [_UNSIGNED]
    whole = all(len(tags.get(tag, [])) == 1 for tag in (_WIDTH, _HEIGHT, _BITS))
    if more or not gray or not whole or tags[_BITS] not in ([8], [16]) or tags.get(_COMPRESSION, [1]) != [1]:
        return None
    size = tags[_WIDTH][0] * tags[_HEIGHT][0] * tags[_BITS][0] // 8
    if _TILES in tags or len(tags.get(_STRIPS, [])) != len(tags.get(_SIZES, [0])) or sum(tags[_SIZES]) != size:
        return None
    return tags | {_FORMAT: order}


def _strips(data: np.ndarray, tags: dict) -> np.ndarray:
    offsets, sizes = tags[_STRIPS], tags[_SIZES]
    missing = max(at + size for at, size in zip(offsets, sizes)) - data.size
    if missing > 0:
        raise ValueError(f"truncated: {missing} bytes are missing")
    if all(at + size == after for at, size, after in zip(offsets, sizes, offsets[1:])):
        raw = data[offsets[0] : offsets[0] + sum(sizes)]
    else:
        raw = np.concatenate([data[at : at + size] for at, size in zip(offsets, sizes)])
    number = np.dtype(f"{tags[_FORMAT]}u{tags[_BITS][0] // 8}")
    return raw.view(number).reshape(tags[_HEIGHT][0], tags[_WIDTH][0])
