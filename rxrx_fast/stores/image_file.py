"""One encoded image file: what its header says, whether it is whole, and its pixels by Pillow or tifffile.

Errors are ValueErrors with the reason alone; the store adds the site and the path.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image
from rxrx_kernels.png import files as png

from rxrx_fast.stores import tiff

__all__ = ["Format", "check", "check_png", "decode", "is_png", "probe"]

_DEPTHS = (np.uint8, np.uint16)


class Format(NamedTuple):
    """What each file of a store must hold.

    ``image_size`` is (height, width) in pixels, ``dtype`` uint8 or uint16, ``channels`` the number in one file.
    """

    image_size: tuple[int, int]
    dtype: np.dtype
    channels: int

    def fits(self, shape: tuple[int, ...], dtype: np.dtype) -> bool:
        """Tell whether decoded pixels have this format, in any byte order, with channels first or last."""
        size, count = self.image_size, self.channels
        shapes = (size,) if count == 1 else ((count, *size), (*size, count))
        return tuple(shape) in shapes and np.dtype(dtype).newbyteorder("=") == self.dtype

    def mismatch(self, shape: tuple[int, ...], dtype: np.dtype) -> ValueError:
        """Make the error for a file of another shape or dtype."""
        bits, wanted = (f"{8 * np.dtype(kind).itemsize}-bit" for kind in (dtype, self.dtype))
        found, size = (" x ".join(map(str, sides)) for sides in (shape, self.image_size))
        channels = f" with {self.channels} channels" if self.channels > 1 else ""
        return ValueError(f"holds {bits} pixels, {found}, but the other sites are {wanted}, {size}{channels}")


def is_png(path: str) -> bool:
    """Tell by its name whether a file should be a PNG."""
    return path.lower().endswith(".png")


def probe(path: str, data: np.ndarray, channels: int) -> Format:
    """Read a file's format from its header.

    Parameters
    ----------
    path : str
    data : (N,) uint8
        The whole file.
    channels : int
        The number that each file should hold.

    Raises
    ------
    ValueError
        If the header can't be read, or the pixels are neither uint8 nor uint16.
    """
    shape: tuple[int, ...]
    dtype: np.dtype
    try:
        if is_png(path):
            found = png.header(data)
            shape, dtype = (found.height, found.width), np.dtype(_DEPTHS[found.bit_depth == 16])
        elif tiff.is_tiff(data):
            shape, dtype = tiff.read(data)[0]
        else:
            with Image.open(io.BytesIO(data.data)) as image:
                shape, dtype = (image.height, image.width), np.dtype(_DEPTHS[image.mode == "I;16"])
    except Exception as error:
        # Pillow and tifffile raise errors of every kind for damaged files.
        raise ValueError(str(error)) from None
    if dtype not in _DEPTHS:
        raise ValueError(f"holds {dtype} pixels; 8 or 16 bits, unsigned, are needed")
    channels_last = len(shape) == 3 and shape[-1] == channels
    height, width = shape[:2] if channels_last else shape[-2:]
    return Format((height, width), np.dtype(dtype), channels)


def check(path: str, data: np.ndarray, expected: Format) -> None:
    """Check what DALI's decoder does not: that a PNG is whole, and that a PNG or TIFF has the expected format.

    DALI would return part of a damaged picture as gray, and reduce 16 bits to 8, without an error.

    Raises
    ------
    ValueError
    """
    if is_png(path):
        check_png(png.verify(data), expected)
    elif tiff.is_tiff(data) and (found := probe(path, data, expected.channels)) != expected:
        raise expected.mismatch(found.image_size, found.dtype)


def check_png(found: png.Header, expected: Format) -> None:
    """Check a PNG's header against the expected format.

    Raises
    ------
    PngError
    """
    height, width = expected.image_size
    if (found.height, found.width) != (height, width):
        raise png.PngError(f"is {found.height} x {found.width} pixels, but the other sites are {height} x {width}")
    bits = 8 * expected.dtype.itemsize
    if found.bit_depth != bits or found.channels != expected.channels or found.color_type == 3:
        wanted = f"{bits}-bit {'grayscale' if expected.channels == 1 else 'RGB'}"
        raise png.PngError(
            f"is a PNG of colour type {found.color_type} and {found.bit_depth} bit; {wanted} is expected"
        )


def decode(data: np.ndarray, expected: Format) -> np.ndarray:
    """Decode a file by tifffile (16-bit TIFF) or Pillow (everything else).

    Parameters
    ----------
    data : (N,) uint8
    expected : Format

    Returns
    -------
    (H, W) ndarray, or (C, H, W) if the file holds several channels
        In the file's byte order; possibly a view of ``data``.

    Raises
    ------
    ValueError
        If the file can't be decoded or has another format.
    """
    plane: np.ndarray | None
    shape: tuple[int, ...]
    try:
        if expected.dtype == np.uint16 and tiff.is_tiff(data):
            (shape, dtype), pixels = tiff.read(data)
            # A damaged header may claim any size: allocate nothing before it fits.
            plane = pixels() if expected.fits(shape, dtype) else None
        else:
            with Image.open(io.BytesIO(data.data)) as image:
                plane = np.asarray(image)
            shape, dtype = plane.shape, plane.dtype
    except Exception as error:
        # Pillow and tifffile raise errors of every kind for damaged files.
        raise ValueError(f"can't be decoded ({error})") from None
    if plane is None or not expected.fits(plane.shape, plane.dtype):
        raise expected.mismatch(shape, dtype)
    channels_last = expected.channels > 1 and plane.shape[1:] != expected.image_size
    return plane.transpose(2, 0, 1) if channels_last else plane
