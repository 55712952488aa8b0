"""Image files in a folder: one a channel, or one RGB file a site."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from functools import cached_property

import numpy as np
from PIL import Image
from rxrx_kernels import inflate, png

from rxrx_fast.errors import DataError, SiteError
from rxrx_fast.meter import Meter

__all__ = ["FileStore"]

# Linux alone has it: read what is in memory, and fail rather than wait for a disk.
_NO_WAIT = getattr(os, "RWF_NOWAIT", None)


class FileStore:
    """Reads and checks the encoded files of a catalog's sites. Cheap to pickle; safe in any number of threads.

    Parameters
    ----------
    catalog : Catalog
        Its rows are the store's positions.
    channels : tuple of int
        Channel numbers, from 1, in the order of the output. With one RGB file a site the file is read whole and
        ``channels`` selects from it later.
    """

    def __init__(self, catalog, channels):
        self._catalog = catalog
        self.channels = tuple(channels)
        layout = catalog.layout
        #: 1 for grayscale files, 3 for RGB.
        self.channels_per_file = layout.channels // layout.files_per_site
        self.files_per_site = len(self.channels) if self.channels_per_file == 1 else layout.files_per_site
        self._image_size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._catalog)

    def paths(self, position: int) -> tuple[str, ...]:
        """The site's files, in the order that they are read."""
        return self._catalog.files([position], self.channels if self.channels_per_file == 1 else None)[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels, of the first readable site; every other is checked against it."""
        if self._image_size is None:
            if not len(self):
                raise DataError(f"no sites to read under {self._catalog.root}")
            first_fault = None
            # A damaged first file must not decide alone, and a folder of nothing but damage must not be walked whole.
            for position in range(min(len(self), 16)):
                try:
                    self._image_size = self._size_of(position, self.paths(position)[0])
                    break
                except SiteError as fault:
                    first_fault = first_fault or fault
            else:
                raise first_fault
        return self._image_size

    def _size_of(self, position: int, path: str) -> tuple[int, int]:
        data = self._bytes(position, path)
        try:
            if _is_png(path):
                found = png.header(data)
                return found.height, found.width
            with Image.open(io.BytesIO(data.tobytes())) as image:
                return image.height, image.width
        except Exception as error:
            raise self._fault(position, path, str(error)) from None

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
        """Whether :meth:`read_into` serves these files: 8-bit grayscale PNG, and libdeflate is installed."""
        return self.channels_per_file == 1 and inflate.available() and all(map(_is_png, self.paths(0)))

    def read_into(self, position: int, out: np.ndarray, meter: Meter) -> None:
        """Read, check and decode one site into ``out``, (C, H, W) uint8, by this project's own decoder.

        Raises
        ------
        SiteError
            With the site's name, the file and the reason.
        """
        paths = self.paths(position)
        files = meter.timed("read", lambda: [self._bytes(position, path) for path in paths])
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

    def pixels(self, position: int) -> np.ndarray:
        """One site decoded, (C, H, W) uint8, by the fastest decoder that takes its files.

        Raises
        ------
        SiteError
        """
        if not self.decodes:
            return self.decode(position, self.read(position))
        out = np.empty((len(self.channels), *self.image_size), np.uint8)
        self.read_into(position, out, Meter())
        return out

    def decode(self, position: int, files: list[np.ndarray]) -> np.ndarray:
        """One site's encoded files decoded by Pillow, (C, H, W) uint8: slowly, but whatever they are."""
        planes = [self._decode_file(position, path, data) for path, data in zip(self.paths(position), files)]
        planes = [plane if plane.ndim == 3 else plane[..., None] for plane in planes]
        stack = np.concatenate(planes, axis=-1).transpose(2, 0, 1)
        return self.select(stack)

    def _decode_file(self, position: int, path: str, data: np.ndarray) -> np.ndarray:
        """One file by Pillow, (H, W) or (H, W, 3) uint8."""
        try:
            with Image.open(io.BytesIO(data.tobytes())) as image:
                plane = np.asarray(image)
        except Exception as error:
            raise self._fault(position, path, f"can't be decoded ({error})") from None
        expected = self.image_size if self.channels_per_file == 1 else (*self.image_size, self.channels_per_file)
        if plane.dtype != np.uint8 or plane.shape != expected:
            raise self._fault(
                position, path, f"decodes to {plane.dtype} {plane.shape}, but the other sites hold uint8 {expected}"
            )
        return plane

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
        if found.bit_depth != 8 or found.channels != self.channels_per_file or found.color_type == 3:
            expected = "8-bit grayscale" if self.channels_per_file == 1 else "8-bit RGB"
            raise png.PngError(
                f"is a PNG of colour type {found.color_type} and {found.bit_depth} bit; {expected} is expected"
            )

    def _fault(self, position: int, path: str, reason: str) -> SiteError:
        return SiteError(self.site_id(position), path, reason)


def _is_png(path: str) -> bool:
    return path.lower().endswith(".png")
