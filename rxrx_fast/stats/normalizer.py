"""The normalizer of a catalog: for each site the statistics of its group, or of a coarser one with enough wells."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rxrx_kernels.histogram.uint16 import Histogram

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import DataError
from rxrx_fast.stats.normalize import LEVELS, Normalize

if TYPE_CHECKING:
    from rxrx_fast.stats.plate_stats import PlateStats

__all__ = ["Normalizer", "group_rows", "make_normalizer"]

# Well types, as positions in WELL_TYPES.
_WELLS = {"all": (0, 1, 2), "controls": (1, 2), "negative_control": (2,)}


class Normalizer(NamedTuple):
    """The tables that normalise the sites of a catalog: value = (mapping[pixel] - center) / scale.

    Attributes
    ----------
    groups : (N,) int64
        Row of the tables for each site.
    center, scale : (G, C) float64
    mapping : (G, C, bins) float64, or None
        The grey value that takes the place of each bin; None leaves pixels as they are.
    """

    groups: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    mapping: np.ndarray | None


def make_normalizer(stats: PlateStats, normalize: Normalize, catalog: Catalog) -> Normalizer:
    """Compute a catalog's normalizer: see :meth:`rxrx_fast.PlateStats.normalizer`."""
    names, _ = stats.groups(normalize.level)
    groups = group_rows(names, normalize.level, catalog)
    members = _members(stats, normalize, names, np.unique(groups))
    kinds = list(_WELLS[normalize.wells])
    counts = Histogram.stack([stats.histogram(plates, kinds) for plates in members])
    site_std = None
    if normalize.scale == "mean_site_std":
        site_std = np.full((len(members), stats.channels), np.nan)
        plate, kind = stats.sites["plate"].to_numpy(), stats.sites["kind"].to_numpy()
        for i, plates in enumerate(members):
            ours = np.isin(plate, plates) & np.isin(kind, kinds)
            if ours.any():
                # Sorted, so that rounding does not depend on the order in which parts were merged.
                site_std[i] = np.sort(stats.moments["std"][ours], axis=0).mean(0)
    mapping = None
    with np.errstate(invalid="ignore"):
        if normalize.method == "quantile":
            everything = stats.histogram(np.arange(len(stats.plates)), kinds)
            mapping = normalize.mapping(counts, everything)
            center, scale = replace(normalize, clip=(0, 100)).statistics(everything)
            center, scale = (np.broadcast_to(part, (len(members), stats.channels)) for part in (center, scale))
        else:
            mapping = normalize.mapping(counts) if normalize.maps else None
            center, scale = normalize.statistics(counts, site_std)
    return Normalizer(groups, center, scale, mapping)


def group_rows(names: list[str], level: str, catalog: Catalog) -> np.ndarray:
    """Find the position in ``names`` of each site's group, (N,) int64; DataError if a group is not in it."""
    index = {name: i for i, name in enumerate(names)}
    codes, catalog_names = catalog.group_keys(level)
    rows = np.array([index.get(name, -1) for name in catalog_names], np.int64)[codes]
    if len(rows) and rows.min() < 0:
        name = catalog_names[codes[rows < 0][0]]
        raise DataError(f"the statistics hold no site of {level} {name!r}: fit them over this catalog")
    return rows


def _members(stats: PlateStats, normalize: Normalize, names: list[str], used: np.ndarray) -> list[np.ndarray]:
    """Plates whose wells make the statistics of each group: its own, or of a coarser group if its wells are too few."""
    wanted = stats.sites[np.isin(stats.sites["kind"], list(_WELLS[normalize.wells]))]
    counted = wanted.drop_duplicates(["plate", "well"])["plate"].to_numpy(np.int64)
    wells = np.bincount(counted, minlength=len(stats.plates))
    levels = LEVELS[: LEVELS.index(normalize.level) + 1][::-1]
    coarser = [stats.groups(level) for level in levels]
    members = list(coarser[0][1])
    fallbacks: dict[str, list[str]] = {}
    for group in used:
        inside = members[group]
        for level, (_, candidates) in zip(levels, coarser):
            plates = next(p for p in candidates if inside[0] in p)
            if wells[plates].sum() >= normalize.min_wells:
                members[group] = plates
                if level != normalize.level:
                    fallbacks.setdefault(level, []).append(names[group])
                break
        else:
            kind = "" if normalize.wells == "all" else f" {normalize.wells}"
            raise DataError(
                f"{normalize.level} {names[group]!r} has fewer than {normalize.min_wells} counted{kind} wells, and "
                "so have all sites together: use wells='all' or a smaller min_wells"
            )
    for level, groups in fallbacks.items():
        warnings.warn(
            f"{len(groups)} of {len(used)} groups of level {normalize.level!r} have fewer than "
            f"{normalize.min_wells} {normalize.wells} wells and take the statistics of their {level} "
            f"(the first is {groups[0]})",
            stacklevel=5,
        )
    return members
