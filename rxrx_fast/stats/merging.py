"""Merging: statistics of disjoint sites, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rxrx_kernels.histogram.uint16 import coarsened

from rxrx_fast.errors import DataError

if TYPE_CHECKING:
    from rxrx_fast.stats.plate_stats import PlateStats

__all__ = ["merge"]


def merge(cls: type[PlateStats], first: PlateStats, second: PlateStats) -> PlateStats:
    """Add up two statistics: see :meth:`rxrx_fast.PlateStats.merge`."""
    for name in ("channels", "bits"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs:
            raise DataError(f"statistics of {ours} and of {theirs} {name} can't be merged")
    twice = second.sites["site_id"][second.sites["site_id"].isin(first.sites["site_id"])]
    if len(twice):
        raise DataError(
            f"{len(twice)} sites are in both statistics, the first is {twice.iloc[0]}: merge disjoint parts"
        )
    merged = cls(first.channels, first.bits)
    merged.coarsen(max(first.bin_shift, second.bin_shift))
    for part in (first, second):
        if part.image_size is not None:
            merged.fix_size(part.image_size)
        codes = merged.plate_codes(part.plates, part.cell_types, part.experiments)
        merged.counts[codes] += coarsened(part.counts, np.array(part.bin_shift), merged.bin_shift)
        merged.sums[codes] += part.sums
        if part.image_size is not None:
            merged.block_sums[codes] += part.block_sums
        sites = part.sites.assign(plate=codes[part.sites["plate"].to_numpy()])
        merged.sites = pd.concat([merged.sites, sites], ignore_index=True)
        for name, values in part.moments.items():
            merged.moments[name] = np.concatenate([merged.moments[name], values])
        merged.faults += part.faults
    return merged
