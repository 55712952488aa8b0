"""Fitting: which sites are counted, what is taken from a file, and where a data set's own statistics are."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import numpy as np

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.stats import file
from rxrx_fast.stats.counting import bits_of, count

if TYPE_CHECKING:
    from rxrx_fast.stats.plate_stats import PlateStats

__all__ = ["fit", "fit_beside"]


def fit(
    cls: type[PlateStats],
    catalog: Catalog,
    *,
    path: str | os.PathLike[str] | None = None,
    num_threads: int | None = None,
    batch_size: int = 32,
    on_error: str = "raise",
    quiet: bool = False,
) -> PlateStats:
    """Count the complete sites that are not in the file yet: see :meth:`rxrx_fast.PlateStats.fit`."""
    if on_error not in ("raise", "skip"):
        raise UsageError(f"on_error={on_error!r}: must be 'raise' or 'skip'")
    catalog = catalog.available()
    channels = catalog.layout.channels
    stats = cls.load(path) if path is not None and os.path.exists(path) else cls(channels, bits_of(catalog))
    if stats.channels != channels:
        raise DataError(f"{path} holds statistics of {stats.channels} channels, not {channels}: name another file")
    todo = np.flatnonzero(~catalog.table["site_id"].isin(stats.sites["site_id"]).to_numpy())
    if len(todo):
        num_threads = num_threads or len(os.sched_getaffinity(0))
        count(
            stats, catalog, todo,
            path=path, num_threads=num_threads, batch_size=batch_size, on_error=on_error, quiet=quiet,
        )  # fmt: skip
    return stats


def fit_beside(cls: type[PlateStats], catalog: Catalog) -> PlateStats:
    """Load the statistics beside the data, or fit and save them there: see :meth:`rxrx_fast.PlateStats.beside`."""
    path = file.default_path(catalog.root)
    if path.exists() and file.is_older(path):
        # Only this function writes this file, so it may replace it. A file that a user named is refused instead.
        warnings.warn(f"{path} is of an older version and is fitted again", stacklevel=4)
        path.unlink()
    if path.exists():
        stats = cls.load(path)
        if catalog.available().table["site_id"].isin(stats.sites["site_id"]).all():
            return stats
    path.parent.mkdir(parents=True, exist_ok=True)
    return fit(cls, catalog, path=path)
