"""Image files in a folder, of 8 or of 16 bits: one a channel, or one of all channels a site."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from functools import cached_property

import numpy as np
from PIL import Image
from rxrx_kernels.deflate import libdeflate as inflate
from rxrx_kernels.png import files as png

from rxrx_fast.errors import DataError, SiteError
from rxrx_fast.runtime.meter import Meter
from rxrx_fast.stores import tiff

__all__ = ["FileStore"]

# Linux alone has it: read what is in memory, and fail rather than wait for a disk.
_NO_WAIT = getattr(os, "RWF_NOWAIT", None)
_DEPTHS = (np.uint8, np.uint16)


class FileStore:
    """Reads and checks the encoded files of a catalog's sites. Cheap to pickle; safe in any number of threads.

    Parameters
    ----------
    catalog : Catalog
        Its rows are the store's positions.
    channels : tuple of int
        Channel numbers, from 1, in the order of the output. With one file a site the file is read whole and
        ``channels`` selects from it later.
    """

    def __init__(self, catalog, channels):
        self._catalog = catalog
        self.channels = tuple(channels)
        layout = catalog.layout
        #: 1 for grayscale files, 3 for RGB, any number for 16-bit TIFF files of all channels.
        self.channels_per_file = layout.channels // layout.files_per_site
        self.files_per_site = len(self.channels) if self.channels_per_file == 1 else layout.files_per_site
        self._kind: tiff.Kind | None = None

    def __len__(self) -> int:
        return len(self._catalog)

    def paths(self, position: int) -> tuple[str, ...]:
        """The site's files, in the order that they are read."""
        return self._catalog.files([position], self.channels if self.channels_per_file == 1 else None)[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels, of the first readable site; every other is checked against it."""
        return self._expected.shape

    @property
    def dtype(self) -> np.dtype:
        """uint8 or uint16: what the pixels of the first readable site are; every other is checked against it."""
        return self._expected.dtype

    @property
    def _expected(self) -> tiff.Kind:
        if self._kind is None:
            if not len(self):
                raise DataError(f"no sites to read under {self._catalog.root}")
            first_fault = None
            # A damaged first file must not decide alone, and a folder of nothing but damage must not be walked whole.
            for position in range(min(len(self), 16)):
                try:
                    path = self.paths(position)[0]
                    self._kind = self._kind_of(position, path, self._bytes(position, path))
                    break
                except SiteError as fault:
                    first_fault = first_fault or fault
            else:
                raise first_fault
        return self._kind

    def _kind_of(self, position: int, path: str, data: np.ndarray) -> tiff.Kind:
        """(height, width) and dtype of a file, from its header."""
        try:
            if _is_png(path):
                found = png.header(data)
                shape, dtype = (found.height, found.width), _DEPTHS[found.bit_depth == 16]
            elif tiff.is_tiff(data):
                shape, dtype = tiff.read(data)[0]
            else:
                with Image.open(io.BytesIO(data)) as image:
                    shape, dtype = (image.height, image.width), _DEPTHS[image.mode == "I;16"]
        except Exception as error:
            raise self._fault(position, path, str(error)) from None
        if dtype not in _DEPTHS:
            raise self._fault(position, path, f"holds {dtype} pixels; 8 or 16 bits, unsigned, are needed")
        return tiff.Kind(self._size_of(shape), np.dtype(dtype))

    def _size_of(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(height, width) of an array that may have an axis of channels, first or last."""
        if len(shape) == 3 and shape[-1] == self.channels_per_file:
            return shape[:2]
        return tuple(shape[-2:])

    def read(self, position: int) -> list[np.ndarray]:
        """Encoded files of one site, as 1-D uint8 arrays, each checked: present, whole, of the expected size and kind.

        Raises
        ------
        SiteError
            With the site's name, the file and the reason.
        """
        files = []
        for path in self.paths(position):
            data = self._bytes(position, path)
            if _is_png(path):
                try:
                    self._check(png.verify(data))
                except png.PngError as error:
                    raise self._fault(position, path, str(error)) from None
            elif tiff.is_tiff(data) and (found := self._kind_of(position, path, data)) != self._expected:
                # A decoder would make 8 bits of 16 without a word.
                raise self._other(position, path, *found)
            files.append(data)
        return files

    def load(self, position: int) -> list[np.ndarray]:
        """Encoded files of one site, as 1-D uint8 arrays, unchecked: for a decoder that checks them itself.

        Raises
        ------
        SiteError
            If a file is missing or can't be read.
        """
        return [self._bytes(position, path) for path in self.paths(position)]

    def in_memory(self, position: int) -> bool:
        """Whether a site's first file begins in the page cache; True if the system doesn't tell. Never raises."""
        if _NO_WAIT is None:
            return True
        with suppress(OSError):
            descriptor = os.open(self.paths(position)[0], os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.preadv(descriptor, [bytearray(1)], 0, _NO_WAIT)
            except BlockingIOError:
                return False
            finally:
                os.close(descriptor)
        return True

    def ask(self, position: int) -> None:
        """Have the system fetch a site's files into the page cache, without waiting for them. Never raises."""
        for path in self.paths(position):
            # What is wrong with a file is told when it is read.
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(descriptor)

    @cached_property
    def decodes(self) -> bool:
        """Whether :meth:`read_into` serves these files: grayscale PNG, if libdeflate is installed; all of 16 bits."""
        return self._png or self.dtype == np.uint16

    @cached_property
    def _png(self) -> bool:
        """Whether this project's own decoder takes the files."""
        return self.channels_per_file == 1 and inflate.available() and all(map(_is_png, self.paths(0)))

    def read_into(self, position: int, out: np.ndarray, meter: Meter) -> None:
        """Read, check and decode one site into ``out``, (C, H, W) of :attr:`dtype`.

        Raises
        ------
        SiteError
            With the site's name, the file and the reason.
        """
        paths = self.paths(position)
        files = meter.timed("read", lambda: [self._bytes(position, path) for path in paths])
        if not self._png:
            meter.timed("decode", self._decode_into, position, files, out)
            return
        seconds = np.zeros(2)
        status = png.decode_files(files, out, seconds=seconds)
        for stage, spent in zip(("inflate", "unfilter"), seconds.tolist()):
            meter.add(stage, spent)
        for k in np.flatnonzero(status):
            try:
                found = png.verify(files[k])
                self._check(found)
            except png.PngError as error:
                raise self._fault(position, paths[k], str(error)) from None
            if png.supported(found):
                raise self._fault(position, paths[k], png.status_text(int(status[k]), files[k], out))
            # What is left is rare and whole, such as an interlaced file.
            out[k] = self._decode_file(position, paths[k], files[k])

    def _decode_into(self, position: int, files: list[np.ndarray], out: np.ndarray) -> None:
        if self.channels_per_file > 1:
            out[:] = self.decode(position, files)
            return
        for k, path in enumerate(self.paths(position)):
            out[k] = self._decode_file(position, path, files[k])

    def pixels(self, position: int) -> np.ndarray:
        """One site decoded, (C, H, W) of :attr:`dtype`, by the fastest decoder that takes its files.

        Raises
        ------
        SiteError
        """
        if not self.decodes:
            return self.decode(position, self.read(position))
        out = np.empty((len(self.channels), *self.image_size), self.dtype)
        self.read_into(position, out, Meter())
        return out

    def decode(self, position: int, files: list[np.ndarray]) -> np.ndarray:
        """One site's encoded files decoded in Python, (C, H, W) of :attr:`dtype`: whatever they are."""
        planes = [self._decode_file(position, path, data) for path, data in zip(self.paths(position), files)]
        planes = [plane if plane.ndim == 3 else plane[None] for plane in planes]
        return self.select(planes[0] if len(planes) == 1 else np.concatenate(planes))

    def _decode_file(self, position: int, path: str, data: np.ndarray) -> np.ndarray:
        """One file, (H, W) or, with several channels, (C, H, W)."""
        try:
            if self.dtype == np.uint16 and tiff.is_tiff(data):
                (shape, dtype), pixels = tiff.read(data)
                # Whatever a damaged header says is not made room for.
                plane = pixels() if self._fits(shape, dtype) else None
            else:
                with Image.open(io.BytesIO(data)) as image:
                    plane = np.asarray(image)
                shape, dtype = plane.shape, plane.dtype
        except Exception as error:
            raise self._fault(position, path, f"can't be decoded ({error})") from None
        if plane is None or not self._fits(plane.shape, plane.dtype):
            raise self._other(position, path, shape, dtype)
        last = self.channels_per_file > 1 and plane.shape[1:] != self.image_size
        return plane.transpose(2, 0, 1) if last else plane

    def _fits(self, shape: tuple[int, ...], dtype: np.dtype) -> bool:
        """Whether pixels are those of a file of this store: in any order of bytes, channels first or last."""
        size, count = self.image_size, self.channels_per_file
        shapes = (size,) if count == 1 else ((count, *size), (*size, count))
        return tuple(shape) in shapes and np.dtype(dtype).newbyteorder("=") == self.dtype

    def _other(self, position: int, path: str, shape: tuple[int, ...], dtype: np.dtype) -> SiteError:
        bits, wanted = (f"{8 * np.dtype(kind).itemsize}-bit" for kind in (dtype, self.dtype))
        found, size = (" x ".join(map(str, sides)) for sides in (shape, self.image_size))
        channels = f" with {self.channels_per_file} channels" if self.channels_per_file > 1 else ""
        return self._fault(
            position, path, f"holds {bits} pixels, {found}, but the other sites are {wanted}, {size}{channels}"
        )

    def select(self, stack: np.ndarray) -> np.ndarray:
        """The wanted channels of a decoded (..., C, H, W) stack; grayscale files were already read selectively."""
        if self.channels_per_file == 1 or self.channels == tuple(range(1, stack.shape[-3] + 1)):
            return stack
        return stack[..., [c - 1 for c in self.channels], :, :]

    def site_id(self, position: int) -> str:
        return str(self._catalog.table["site_id"].iat[position])

    def _bytes(self, position: int, path: str) -> np.ndarray:
        # Fewer system calls than a file object makes, and all of them without the GIL: twice as fast in two threads.
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data, done = np.empty(os.fstat(descriptor).st_size, np.uint8), 0
                # One call, unless a signal or a network file system cuts it short.
                while done < data.size and (got := os.readv(descriptor, [data[done:]])):
                    done += got
            finally:
                os.close(descriptor)
            return data[:done]
        except FileNotFoundError:
            raise self._fault(position, path, "the file is missing") from None
        except OSError as error:
            raise self._fault(position, path, f"can't be read ({error.strerror or error})") from None

    def _check(self, found: png.Header) -> None:
        height, width = self.image_size
        if (found.height, found.width) != (height, width):
            raise png.PngError(f"is {found.height} x {found.width} pixels, but the other sites are {height} x {width}")
        bits = 8 * self.dtype.itemsize
        if found.bit_depth != bits or found.channels != self.channels_per_file or found.color_type == 3:
            expected = f"{bits}-bit {'grayscale' if self.channels_per_file == 1 else 'RGB'}"
            raise png.PngError(
                f"is a PNG of colour type {found.color_type} and {found.bit_depth} bit; {expected} is expected"
            )

    def _fault(self, position: int, path: str, reason: str) -> SiteError:
        return SiteError(self.site_id(position), path, reason)


def _is_png(path: str) -> bool:
    return path.lower().endswith(".png")
