"""Statistics as a pandas.DataFrame, one row for each group and channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rxrx_kernels.histogram.uint16 import Histogram

from rxrx_fast.catalog.table import WELL_TYPES
from rxrx_fast.errors import UsageError

if TYPE_CHECKING:
    from rxrx_fast.stats.plate_stats import PlateStats

__all__ = ["data_frame", "extremes"]


def data_frame(stats: PlateStats, level: str) -> pd.DataFrame:
    """Make the table: see :meth:`rxrx_fast.PlateStats.frame`."""
    names: Sequence[str]
    if level == "site":
        names, sites, columns = stats.sites["site_id"].tolist(), np.ones(len(stats), np.int64), stats.moments
    else:
        if level not in ("global", "cell_type", "experiment", "plate"):
            raise UsageError(f"level={level!r}: must be global, cell_type, experiment, plate or site")
        names, members = stats.groups(level)
        plate = stats.sites["plate"].to_numpy()
        sites = np.array([np.isin(plate, plates).sum() for plates in members], np.int64)
        columns = _columns(stats, members)
    return pd.DataFrame(
        {
            level: np.repeat(np.asarray(names, dtype=object), stats.channels),
            "channel": np.tile(np.arange(1, stats.channels + 1), len(names)),
            "sites": np.repeat(sites, stats.channels),
            **{name: values.reshape(-1) for name, values in columns.items()},
        }
    )


def extremes(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest value that was counted, (...) int64, of (..., 256) counts."""
    seen = counts > 0
    return seen.argmax(-1), counts.shape[-1] - 1 - seen[..., ::-1].argmax(-1)


def _columns(stats: PlateStats, members: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Statistics of each group's plates by name, (G, C)."""
    kinds, wanted = range(len(WELL_TYPES)), members or [np.zeros(0, np.int64)]
    histogram = Histogram.stack([stats.histogram(plates, kinds) for plates in wanted])
    mean, std = histogram.mean_std()
    least, most = extremes(histogram.counts) if stats.bits == 8 else _site_extremes(stats, wanted)
    columns = {
        "mean": mean,
        "std": std,
        "median": histogram.quantile(0.5),
        "mad": histogram.mad(),
        "min": least,
        "max": most,
    }
    return {name: values[: len(members)] for name, values in columns.items()}


def _site_extremes(stats: PlateStats, members: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Darkest and brightest pixel of all sites on each group's plates, (G, C)."""
    plate = stats.sites["plate"].to_numpy()
    inside = [np.isin(plate, plates) for plates in members]
    least, most = stats.moments["min"], stats.moments["max"]
    return (
        np.stack([least[ours].min(axis=0, initial=np.iinfo(np.uint16).max) for ours in inside]),
        np.stack([most[ours].max(axis=0, initial=0) for ours in inside]),
    )
