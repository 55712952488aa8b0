"""The completion of a table: the images on the disk, and what needs all rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rxrx_fast.catalog.layout import Layout, Records
from rxrx_fast.catalog.listing import list_images as _list_images
from rxrx_fast.catalog.origin import Origin
from rxrx_fast.catalog.table import COLUMNS
from rxrx_fast.catalog.treatment_groups import treatment_groups

__all__ = ["complete_table"]


def complete_table(
    table: pd.DataFrame,
    layout: Layout,
    root: str,
    records: Records | None = None,
    *,
    list_images: bool,
    progress: bool,
) -> tuple[pd.DataFrame, Origin]:
    """Fill in ``present`` and ``group``, and put the columns in order.

    Parameters
    ----------
    table : pandas.DataFrame
        Of :func:`rxrx_fast.catalog.table.canonical_table`; changed in place.
    layout : Layout
    root : str
        Absolute path.
    records : Records, optional
        What the table was made of, for its notes and ``wells_only``.
    list_images, progress : bool
        As for :meth:`rxrx_fast.Catalog.read`.
    """
    notes = [] if records is None else list(records.notes)
    table["present"] = np.int64(-1)
    if list_images:
        wells_only = records is not None and records.wells_only
        table = _list_images(table, layout, root, notes, progress, wells_only)
    table["group"] = treatment_groups(table)
    table = table[[*COLUMNS, *(name for name in table.columns if name not in COLUMNS)]]
    return table, Origin.of(table, notes)
