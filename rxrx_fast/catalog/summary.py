"""The summary of a catalog: what it holds and what it lacks, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rxrx_fast.catalog.presence import Presence

if TYPE_CHECKING:
    from rxrx_fast.catalog.catalog import Catalog

__all__ = ["summary"]


def summary(catalog: Catalog, presence: Presence, notes: tuple[str, ...]) -> str:
    """Describe sites, splits and images, then notes on the files, in several lines of text."""
    table = catalog.table
    plates = np.unique(catalog.plate_keys()[0])
    lines = [
        f"{catalog.layout.name} at {catalog.root}",
        f"{len(table):,} sites of {table['well_id'].nunique():,} wells on {len(plates):,} plates of "
        f"{table['experiment'].nunique():,} experiments; {int((catalog.labels >= 0).sum()):,} labelled",
    ]
    for name in catalog.categories["split"]:
        part = table[table["split"] == name]
        if len(part):
            known = int((part["sirna_id"] >= 0).sum())
            wells = part["well_id"].nunique()
            lines.append(f"  {name or 'no split'}: {len(part):,} sites of {wells:,} wells, {known:,} labelled")
    if not presence.listed:
        lines.append("images: none listed; this is metadata only")
    else:
        absent, incomplete, complete = presence.counts()
        lines.append(f"images: complete {complete:,}, incomplete {incomplete:,}, absent {absent:,} sites")
        for missing, part in presence.incomplete().groupby("missing"):
            first = ", ".join(part["site_id"].head(3)) + (", ..." if len(part) > 3 else "")
            lines.append(f"  without channel {missing}: {len(part):,} ({first})")
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])
