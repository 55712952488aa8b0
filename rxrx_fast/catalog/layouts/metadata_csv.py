"""``metadata.csv``, which rxrx.ai and WILDS share: one row a site, kept in its order."""

from __future__ import annotations

from dataclasses import replace

from rxrx_fast.catalog.root import Root
from rxrx_fast.catalog.rows import Rows, read_csv
from rxrx_fast.catalog.table import label_names

__all__ = ["read_metadata"]


def read_metadata(root: Root) -> Rows:
    """Read ``metadata.csv`` as rows of sites; the column ``dataset`` becomes ``split``."""
    need = ("experiment", "plate", "well", "site", "cell_type", "dataset", "sirna_id")
    rows = read_csv(root.path, "metadata.csv", need, ("well_type", "sirna"))
    frame = rows.frame.rename(columns={"dataset": "split"})
    frame["sirna_id"] = rows.integers("sirna_id", blank=-1)
    if "sirna" not in frame:
        frame["sirna"] = label_names(frame["sirna_id"])
    return replace(rows, frame=frame)
