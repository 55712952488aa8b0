"""The interfaces of stores: sites by position, in batches, as pixels; and image files also as encoded bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rxrx_fast.errors import SiteError
from rxrx_fast.runtime.meter import Meter

if TYPE_CHECKING:
    from rxrx_fast.catalog import Catalog

__all__ = ["EncodedStore", "Store"]


class Store(ABC):
    """The sites of a catalog, by position from 0 to ``len(store) - 1``.

    Methods take a batch of positions: in any order, repeated or empty. A site that can't be read does not spoil its
    batch: its :class:`SiteError` is returned in its place. Other errors, such as a lack of memory, are raised.

    A subclass defines :attr:`image_size`, :attr:`dtype`, :meth:`paths` and :meth:`read_into`. It must be safe to use
    from many threads at once, and cheap to pickle: torch's DataLoader sends it to each of its workers.

    Parameters
    ----------
    catalog : Catalog
        Its rows are the positions.
    channels : sequence of int
        Channel numbers, from 1, in the order of the output.

    Attributes
    ----------
    channels : tuple of int
    """

    def __init__(self, catalog: Catalog, channels: Sequence[int]):
        self._catalog = catalog
        self.channels = tuple(channels)

    def __len__(self) -> int:
        return len(self._catalog)

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """(height, width) of every site, in pixels. Raises SiteError or DataError if no site tells."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype:
        """Type of every site's pixels, uint8 or uint16. Raises as :attr:`image_size` does."""

    @property
    def decoders(self) -> tuple[str, ...]:
        """Decoders that may take this store's sites, the preferred one first: of "host", "dali" and "cuda".

        "host" is :meth:`read_into` and must be there. The others take encoded files, so they need an
        :class:`EncodedStore`; see :mod:`rxrx_fast.decode`.
        """
        return ("host",)

    def site_ids(self, positions: Sequence[int]) -> list[str]:
        """Names of the sites, as in the catalog."""
        ids = self._catalog.table["site_id"]
        return [str(ids.iat[position]) for position in positions]

    @abstractmethod
    def paths(self, positions: Sequence[int]) -> list[tuple[str, ...]]:
        """Files that hold each site, at least one, in the order they are read. They need not exist."""

    @abstractmethod
    def read_into(self, positions: Sequence[int], out: np.ndarray, meter: Meter) -> list[SiteError | None]:
        """Read, check and decode sites.

        Parameters
        ----------
        positions : sequence of B int
        out : (B, C, H, W) ndarray
            Of :attr:`dtype`, C-contiguous, C in the order of :attr:`channels`. A faulty site's part is undefined.
        meter : Meter
            Takes the seconds of the stages "read" and "decode", or "inflate" and "unfilter".

        Returns
        -------
        list of B SiteError or None
        """

    def pixels(self, positions: Sequence[int]) -> np.ndarray:
        """Sites as a new (B, C, H, W) array of :attr:`dtype`.

        Raises
        ------
        SiteError
            The first fault of the batch.
        """
        out = np.empty((len(positions), len(self.channels), *self.image_size), self.dtype)
        for fault in self.read_into(positions, out, Meter()):
            if fault is not None:
                raise fault
        return out

    def in_memory(self, positions: Sequence[int]) -> list[bool]:
        """Tell for each site whether it can be read without waiting for a disk; True where unknown. Never raises."""
        return [True] * len(positions)

    def readahead(self, positions: Sequence[int]) -> None:  # noqa: B027 - a store without a disk has nothing to do
        """Have sites brought into memory, without waiting for them. Never raises. By default, do nothing."""


class EncodedStore(Store):
    """A store of encoded image files, which DALI or a GPU may decode instead of the store itself.

    Attributes
    ----------
    files_per_site : int
        Files that :meth:`read` gives for a site.
    channels_per_file : int
    """

    files_per_site: int
    channels_per_file: int

    @abstractmethod
    def read(self, positions: Sequence[int], check: bool = True) -> list[list[np.ndarray] | SiteError]:
        """Read sites' encoded files, each a 1-D uint8 array.

        Parameters
        ----------
        positions : sequence of int
        check : bool
            Whether to check that each file is whole and holds what the other sites hold. False is for decoders that
            check themselves.
        """

    @abstractmethod
    def faults(self, positions: Sequence[int], files: Sequence[list[np.ndarray]]) -> list[SiteError | None]:
        """Find the sites whose files, as :meth:`read` gave them, can't be decoded."""

    @abstractmethod
    def select(self, stack: np.ndarray) -> np.ndarray:
        """Select :attr:`channels` from all decoded channels of :meth:`read`'s files, (..., C, H, W)."""
