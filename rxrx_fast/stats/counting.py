"""Counting: one parallel pass over a catalog's sites into statistics, saved as it goes."""

from __future__ import annotations

import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rxrx_kernels.histogram import uint8 as moments
from rxrx_kernels.histogram.uint16 import Histogram, histogram16

from rxrx_fast.catalog import Catalog
from rxrx_fast.catalog.table import WELL_TYPES
from rxrx_fast.decode.pipeline import SitePipeline
from rxrx_fast.errors import DataError, SiteError
from rxrx_fast.runtime.progress import bar
from rxrx_fast.stats.illumination import block_shift
from rxrx_fast.stores import open_store

if TYPE_CHECKING:
    from rxrx_fast.stats.plate_stats import PlateStats

__all__ = ["bits_of", "count"]

# Losing an interval costs a minute of work. Saving 15 MB of a full data set more often would cost more.
_SAVE_EVERY_S = 60.0
# Histograms of 16-bit sites take a megabyte for every six or seven sites.
_PENDING_SITES = 512


def bits_of(catalog: Catalog) -> int:
    """Return the bits of a pixel of a catalog's files, 8 or 16; 8 for an empty catalog."""
    return 8 * open_store(catalog, (1,)).dtype.itemsize if len(catalog) else 8


def count(
    stats: PlateStats,
    catalog: Catalog,
    todo: np.ndarray,
    *,
    path: str | os.PathLike[str] | None,
    num_threads: int,
    batch_size: int,
    on_error: str,
    quiet: bool,
) -> None:
    """Count sites into statistics; save them every minute and at the end, even after an error.

    Parameters
    ----------
    stats : PlateStats
    catalog : Catalog
        Of complete sites.
    todo : (N,) int64
        Positions in the catalog of the sites to count.
    path : path or None
        Where to save.
    num_threads, batch_size, on_error, quiet
        As for :meth:`rxrx_fast.PlateStats.fit`.

    Raises
    ------
    SiteError
        At the first site that can't be read, with ``on_error="raise"``.
    DataError
        The pixels have another depth or size than the statistics, or the file can't be written. If counting fails and
        saving the part then fails too, the first error is raised and the second is a warning.
    """
    store = open_store(catalog, range(1, stats.channels + 1))
    if store.dtype.itemsize * 8 != stats.bits:
        raise DataError(f"{path} holds statistics of {stats.bits}-bit pixels, not of these files': name another file")
    stats.fix_size(store.image_size)
    tally = _Tally(stats, catalog, path)
    shift = block_shift(store.image_size)
    histogram = moments.histogram if stats.bits == 8 else histogram16

    def measure(stack: np.ndarray) -> tuple[np.ndarray | Histogram, np.ndarray]:
        return histogram(stack), moments.block_sums(stack, shift)

    def on_fault(tried: tuple[int, ...], fault: SiteError) -> None:
        if on_error == "raise":
            raise fault
        stats.faults.append((fault.site_id, fault.path, fault.reason))

    # Plate by plate, to read from one folder at a time.
    todo = todo[np.argsort(tally.plate_codes[todo], kind="stable")]
    batches = [todo[i : i + batch_size] for i in range(0, len(todo), batch_size)]
    with ThreadPoolExecutor(num_threads) as pool, bar(len(todo), "statistics", quiet=quiet) as progress:
        pipeline = SitePipeline(
            store, batches, batch_size=batch_size, pool=pool, num_threads=num_threads, on_fault=on_fault
        )
        try:
            for decoded in pipeline:
                tally.take(decoded.positions, *zip(*pool.map(measure, np.asarray(decoded.stack))))
                progress.update(len(decoded.positions))
        except BaseException as first:
            pipeline.close()
            try:
                tally.save()
            except Exception as later:
                if str(later) != str(first):
                    warnings.warn(f"what was counted is not saved: {later}", stacklevel=4)
            raise
        pipeline.close()
        tally.save()


class _Tally:
    """Counted sites that wait to be added to statistics, many at a time: each addition copies the table of sites."""

    def __init__(self, stats: PlateStats, catalog: Catalog, path: str | os.PathLike[str] | None) -> None:
        self._stats, self._table, self._path = stats, catalog.table, path
        self.plate_codes, self._plate_names = catalog.group_keys("plate")
        kinds = pd.Categorical(self._table["well_type"].astype(str), categories=WELL_TYPES).codes
        self._kinds = np.maximum(kinds, 0)
        self._pending: list[tuple[np.ndarray, tuple, tuple]] = []
        self._saved = time.monotonic()

    def take(self, positions: np.ndarray, counts: tuple, block_sums: tuple) -> None:
        """Take the histograms and block sums of the sites at these positions."""
        self._pending.append((positions, counts, block_sums))
        if self._stats.bits == 16 and sum(len(part) for part, *_ in self._pending) >= _PENDING_SITES:
            self._add()
        if time.monotonic() - self._saved > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Add all pending sites to the statistics, and write their file."""
        self._add()
        if self._path is not None:
            self._stats.save(self._path)
        self._saved = time.monotonic()

    def _add(self) -> None:
        if not self._pending:
            return
        positions, counts, block_sums = (list(chain(*parts)) for parts in zip(*self._pending))
        plates = [self._plate_names[code] for code in self.plate_codes[positions]]
        histograms = np.stack(counts) if self._stats.bits == 8 else Histogram.stack(counts)
        self._stats.add(self._table.iloc[positions], plates, self._kinds[positions], histograms, np.stack(block_sums))
        self._pending.clear()
