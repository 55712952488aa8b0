"""Image files in a folder, of 8 or 16 bits: one file a channel, or one file of all channels a site."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from rxrx_kernels.deflate import libdeflate
from rxrx_kernels.png import files as png

from rxrx_fast.errors import DataError, SiteError
from rxrx_fast.runtime.meter import Meter
from rxrx_fast.stores import file_io, image_file
from rxrx_fast.stores.base import EncodedStore

if TYPE_CHECKING:
    from rxrx_fast.catalog import Catalog

__all__ = ["FileStore"]

# Sites that are probed for the image size and dtype: tolerate a corrupt file, but don't scan a folder of them.
_PROBED = 16


class FileStore(EncodedStore):
    """Reads, checks and decodes the image files of a catalog's sites.

    Parameters
    ----------
    catalog : Catalog
    channels : sequence of int
        Channel numbers, from 1, in the order of the output. A file of all channels is read whole, and the channels
        are selected after decoding.
    """

    def __init__(self, catalog: Catalog, channels: Sequence[int]):
        super().__init__(catalog, channels)
        layout = catalog.layout
        self.channels_per_file = layout.channels // layout.files_per_site
        self.files_per_site = len(self.channels) if self.channels_per_file == 1 else layout.files_per_site
        self._probed: image_file.Format | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels, of the first readable site; every other is checked against it."""
        return self._format.image_size

    @property
    def dtype(self) -> np.dtype:
        """uint8 or uint16, of the first readable site; every other is checked against it."""
        return self._format.dtype

    @property
    def _format(self) -> image_file.Format:
        if self._probed is None:
            self._probed = self._probe()
        return self._probed

    def _probe(self) -> image_file.Format:
        first_fault: SiteError | None = None
        for position in range(min(len(self), _PROBED)):
            path = self._paths(position)[0]
            try:
                return image_file.probe(path, self._bytes(position, path), self.channels_per_file)
            except SiteError as fault:
                first_fault = first_fault or fault
            except ValueError as error:
                first_fault = first_fault or self._fault(position, path, error)
        raise first_fault or DataError(f"no sites to read under {self._catalog.root}")

    @cached_property
    def decoders(self) -> tuple[str, ...]:
        """Host for 16 bits; host or GPU for 8-bit grayscale PNG; else DALI, which is faster than Pillow."""
        if self.dtype == np.uint16:
            return ("host",)
        return ("host", "cuda") if self._gray_png else ("dali", "host")

    @cached_property
    def _gray_png(self) -> bool:
        """Whether the PNG kernels take the files: grayscale, and libdeflate is installed."""
        return self.channels_per_file == 1 and libdeflate.available() and all(map(image_file.is_png, self._paths(0)))

    def paths(self, positions: Sequence[int]) -> list[tuple[str, ...]]:
        """Files of each site, in the order of ``channels``."""
        return self._catalog.files(list(positions), self.channels if self.channels_per_file == 1 else None)

    def _paths(self, position: int) -> tuple[str, ...]:
        return self.paths([position])[0]

    def in_memory(self, positions: Sequence[int]) -> list[bool]:
        """Tell for each site whether its first file begins in the page cache. Never raises."""
        return [file_io.begins_in_memory(paths[0]) for paths in self.paths(positions)]

    def readahead(self, positions: Sequence[int]) -> None:
        """Have the system bring the sites' files into the page cache. Never raises."""
        for paths in self.paths(positions):
            for path in paths:
                file_io.fetch(path)

    # Pixels ----------------------------------------------------------------------------------------------------------

    def read_into(self, positions: Sequence[int], out: np.ndarray, meter: Meter) -> list[SiteError | None]:
        """Read, check and decode sites; see :meth:`Store.read_into`."""
        one = self._decode_png if self._gray_png else self._decode_any
        faults: list[SiteError | None] = []
        for position, paths, place in zip(positions, self.paths(positions), out):
            try:
                files = meter.timed("read", self._load, position, paths)
                one(position, paths, files, place, meter)
                faults.append(None)
            except SiteError as fault:
                # A traceback would keep this frame's arrays in memory.
                faults.append(fault.with_traceback(None))
        return faults

    def _decode_png(
        self, position: int, paths: tuple[str, ...], files: list[np.ndarray], out: np.ndarray, meter: Meter
    ) -> None:
        """Decode one site by the PNG kernels."""
        seconds = np.zeros(2)
        status = png.decode_files(files, out, seconds=seconds)
        for stage, spent in zip(("inflate", "unfilter"), seconds.tolist()):
            meter.add(stage, spent)
        for k in np.flatnonzero(status):
            try:
                found = png.verify(files[k])
                image_file.check_png(found, self._format)
            except png.PngError as error:
                raise self._fault(position, paths[k], error) from None
            if png.supported(found):
                raise self._fault(position, paths[k], png.status_text(int(status[k]), files[k], out))
            # Whole but not for the kernels, such as an interlaced file: rare.
            out[k] = self._decode_file(position, paths[k], files[k])

    def _decode_any(
        self, position: int, paths: tuple[str, ...], files: list[np.ndarray], out: np.ndarray, meter: Meter
    ) -> None:
        """Decode one site by Pillow or tifffile."""
        if self.dtype == np.uint8:
            for path, data in zip(paths, files):
                self._check(position, path, data)
        meter.timed("decode", self._decode_files, position, paths, files, out)

    def _decode_files(self, position: int, paths: tuple[str, ...], files: list[np.ndarray], out: np.ndarray) -> None:
        planes = (self._decode_file(position, path, data) for path, data in zip(paths, files))
        if self.channels_per_file == 1:
            for k, plane in enumerate(planes):
                out[k] = plane
            return
        stack = list(planes)
        out[:] = self.select(stack[0] if len(stack) == 1 else np.concatenate(stack))

    def _decode_file(self, position: int, path: str, data: np.ndarray) -> np.ndarray:
        try:
            return image_file.decode(data, self._format)
        except ValueError as error:
            raise self._fault(position, path, error) from None

    # Encoded files ---------------------------------------------------------------------------------------------------

    def read(self, positions: Sequence[int], check: bool = True) -> list[list[np.ndarray] | SiteError]:
        """Read sites' encoded files; see :meth:`EncodedStore.read`."""
        found: list[list[np.ndarray] | SiteError] = []
        for position, paths in zip(positions, self.paths(positions)):
            try:
                found.append(self._load(position, paths, check))
            except SiteError as fault:
                found.append(fault.with_traceback(None))
        return found

    def faults(self, positions: Sequence[int], files: Sequence[list[np.ndarray]]) -> list[SiteError | None]:
        """Find the sites whose files Pillow or tifffile can't decode either."""
        found: list[SiteError | None] = []
        for position, paths, site in zip(positions, self.paths(positions), files):
            try:
                for path, data in zip(paths, site):
                    self._decode_file(position, path, data)
                found.append(None)
            except SiteError as fault:
                found.append(fault.with_traceback(None))
        return found

    def select(self, stack: np.ndarray) -> np.ndarray:
        """Select ``channels``; with one channel a file, only those were read."""
        if self.channels_per_file == 1 or self.channels == tuple(range(1, stack.shape[-3] + 1)):
            return stack
        return stack[..., [c - 1 for c in self.channels], :, :]

    def _load(self, position: int, paths: tuple[str, ...], check: bool = False) -> list[np.ndarray]:
        files = []
        for path in paths:
            data = self._bytes(position, path)
            if check:
                self._check(position, path, data)
            files.append(data)
        return files

    def _bytes(self, position: int, path: str) -> np.ndarray:
        try:
            return file_io.read(path)
        except FileNotFoundError:
            raise self._fault(position, path, "the file is missing") from None
        except OSError as error:
            raise self._fault(position, path, f"can't be read ({error.strerror or error})") from None

    def _check(self, position: int, path: str, data: np.ndarray) -> None:
        try:
            image_file.check(path, data, self._format)
        except ValueError as error:
            raise self._fault(position, path, error) from None

    def _fault(self, position: int, path: str, reason: str | Exception) -> SiteError:
        return SiteError(self.site_ids([position])[0], path, str(reason))
