"""One parallel pass over a catalog's sites, counted into statistics, and saved as it goes."""

from __future__ import annotations

import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import pandas as pd
from rxrx_kernels.histogram import uint8 as moments
from rxrx_kernels.histogram.uint16 import Histogram, histogram16

from rxrx_fast.catalog.table import WELL_TYPES
from rxrx_fast.decode.pipeline import SitePipeline
from rxrx_fast.errors import DataError, SiteError
from rxrx_fast.runtime.progress import bar
from rxrx_fast.stats.illumination import block_shift
from rxrx_fast.stores import open_store

__all__ = ["bits_of", "count"]

# A lost interval costs a minute of work; a shorter one would spend more time saving a full data set's 15 MB.
_SAVE_EVERY_S = 60.0
_SITES_PENDING = 512


def bits_of(catalog) -> int:
    """8 or 16: of the pixels of a catalog's files."""
    return 8 * open_store(catalog, (1,)).dtype.itemsize if len(catalog) else 8


def count(
    stats, catalog, todo: np.ndarray, *, path, num_threads: int, batch_size: int, on_error: str, quiet: bool
) -> None:
    """Count sites into statistics, which are saved every minute and at the end, also if that is an error.

    Parameters
    ----------
    stats : PlateStats
    catalog : Catalog
        Of complete sites.
    todo : (N,) int64
        Positions in the catalog of sites that are not counted yet.
    path : path or None
        Where to save.
    num_threads, batch_size, on_error, quiet
        As for :meth:`rxrx_fast.PlateStats.fit`.

    Raises
    ------
    SiteError
        At the first site that can't be read, with ``on_error="raise"``.
    DataError
        If the pixels are not of the statistics' depth or size, or the file can't be written. What ended the count
        comes first: that its part can't be saved either is then only a warning.
    """
    store = open_store(catalog, range(1, stats.channels + 1))
    if store.dtype.itemsize * 8 != stats.bits:
        raise DataError(f"{path} holds statistics of {stats.bits}-bit pixels, not of these files': name another file")
    stats.fix_size(store.image_size)
    tally = _Tally(stats, catalog, path)
    shift = block_shift(store.image_size)
    histogram = moments.histogram if stats.bits == 8 else histogram16

    def look(stack):
        return histogram(stack), moments.block_sums(stack, shift)

    def on_fault(position, fault: SiteError):
        if on_error == "raise":
            raise fault
        stats.faults.append((fault.site_id, fault.path, fault.reason))
        return None

    # A plate at a time keeps reads in one directory.
    todo = todo[np.argsort(tally.plate_codes[todo], kind="stable")]
    batches = [todo[i : i + batch_size] for i in range(0, len(todo), batch_size)]
    with ThreadPoolExecutor(num_threads) as pool, bar(len(todo), "statistics", quiet=quiet) as progress:
        pipeline = SitePipeline(
            store, batches, batch_size=batch_size, pool=pool, num_threads=num_threads, on_fault=on_fault
        )
        try:
            for decoded in pipeline:
                tally.take(decoded.positions, *zip(*pool.map(look, decoded.stack)))
                progress.update(len(decoded.positions))
        except BaseException as first:
            pipeline.close()
            try:
                tally.save()
            except Exception as later:
                if str(later) != str(first):
                    warnings.warn(f"what was counted is not saved: {later}", stacklevel=3)
            raise
        pipeline.close()
        tally.save()


class _Tally:
    """Counted sites on their way into statistics: many at a time, because their table is made anew each time."""

    def __init__(self, stats, catalog, path):
        self._stats, self._table, self._path = stats, catalog.table, path
        self.plate_codes, self._plate_names = catalog.group_keys("plate")
        kinds = pd.Categorical(self._table["well_type"].astype(str), categories=WELL_TYPES).codes
        self._kinds = np.maximum(kinds, 0)
        self._pending: list[tuple[np.ndarray, tuple, tuple]] = []
        self._saved = time.monotonic()

    def take(self, positions: np.ndarray, counts: tuple, sums: tuple) -> None:
        """Take the histograms and the blocks' sums of the sites at these positions."""
        self._pending.append((positions, counts, sums))
        # Histograms of 16-bit sites are a megabyte for every six or seven of them.
        if self._stats.bits == 16 and sum(len(part) for part, *_ in self._pending) >= _SITES_PENDING:
            self._absorb()
        if time.monotonic() - self._saved > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Bring all that was taken into the statistics, and write their file."""
        self._absorb()
        if self._path is not None:
            self._stats.save(self._path)
        self._saved = time.monotonic()

    def _absorb(self) -> None:
        if self._pending:
            positions, counts, sums = (list(chain(*parts)) for parts in zip(*self._pending))
            plates = [self._plate_names[code] for code in self.plate_codes[positions]]
            counts = np.stack(counts) if self._stats.bits == 8 else Histogram.stack(counts)
            self._stats.add(self._table.iloc[positions], plates, self._kinds[positions], counts, np.stack(sums))
            self._pending.clear()
