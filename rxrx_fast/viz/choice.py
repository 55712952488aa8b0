"""The sites that a picture shows, and their description."""

from __future__ import annotations

import difflib

import numpy as np
import pandas as pd

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.viz.stains import STAINS

__all__ = ["channel_count", "find_site", "one_per_plate", "perturbation"]

_PLATES = 6


def channel_count(catalog: Catalog) -> int:
    """Return the number of channels of a site; UsageError if they are more than there are stains."""
    if catalog.layout.channels > len(STAINS):
        raise UsageError(f"pictures show up to {len(STAINS)} channels, and these sites have {catalog.layout.channels}")
    return catalog.layout.channels


def find_site(catalog: Catalog, site_id: str | None) -> int:
    """Return the position of a site; by default, of the first complete one.

    Raises
    ------
    UsageError
        There is no such site; the message gives the closest name.
    DataError
        No site is complete.
    """
    present = catalog.table["present"].to_numpy()
    if site_id is None:
        complete = np.flatnonzero(present == (1 << catalog.layout.channels) - 1)
        if not len(complete):
            raise DataError(f"none of the {len(catalog):,} sites under {catalog.root} is complete; name a site")
        return int(complete[0])
    names = catalog.table["site_id"].to_numpy()
    found = np.flatnonzero(names == site_id)
    if not len(found):
        near = difflib.get_close_matches(site_id, names[present > 0], n=1, cutoff=0)
        hint = f"did you mean {near[0]}?" if near else "no site has images here"
        raise UsageError(f"no site {site_id!r} under {catalog.root}; {hint}")
    return int(found[0])


def one_per_plate(catalog: Catalog) -> Catalog:
    """Select one site on each of up to six plates, of the perturbation on most plates; controls are preferred.

    Raises
    ------
    DataError
        No site is complete, or no perturbation is on two plates.
    """
    complete = catalog.available()
    if not len(complete):
        raise DataError(f"none of the {len(catalog):,} sites under {catalog.root} is complete: nothing to compare")
    plate, _ = complete.group_keys("plate")
    table = complete.table.assign(at=np.arange(len(complete)), on=plate)
    spread = table.groupby("sirna_id")["on"].nunique()
    most = spread[spread == spread.max()].index
    # The untreated control has the highest label, and shows the batch effect alone.
    one = table[table["sirna_id"] == most.max()].drop_duplicates("on")
    if len(one) < 2:
        raise DataError(f"no perturbation is on two plates under {catalog.root}: nothing to compare")
    # The first plate of every experiment before the second of any: show as many experiments as possible.
    rank = one.groupby("experiment", observed=True).cumcount()
    one = one.assign(rank=rank).sort_values(["rank", "at"]).head(_PLATES).sort_values("at")
    return complete.take(one["at"].to_numpy())


def perturbation(row: pd.Series) -> str:
    """Describe the perturbation of a row of a catalog's table."""
    if row["well_type"] == "negative_control":
        return "untreated cells"
    if row["sirna_id"] < 0 and not row["sirna"]:
        return "siRNA not told"
    kind = "positive control, " if row["well_type"] == "positive_control" else ""
    label = f" (label {row['sirna_id']})" if row["sirna_id"] >= 0 else ""
    return f"{kind}siRNA {row['sirna']}{label}"
