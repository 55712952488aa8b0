"""The Kaggle competition of 2019: the siRNA column holds the label."""

from __future__ import annotations

from rxrx_fast.catalog.layout import DatasetLayout, Records, register
from rxrx_fast.catalog.layouts.kaggle import PATH, site_records, wells
from rxrx_fast.catalog.root import Root
from rxrx_fast.catalog.table import label_names

__all__ = ["Kaggle2019"]


class Kaggle2019(DatasetLayout):
    """Any root with ``train.csv`` or ``test.csv`` that is not the edition of 2023."""

    def read(self, root: Root) -> Records:
        """Read the CSV files; the number of a siRNA is its label and its name."""
        rows, notes = root.once(wells)
        labels = rows.integers("sirna", blank=-1)
        frame = rows.frame.assign(sirna_id=labels)
        return site_records(root, rows, frame.assign(sirna=label_names(frame["sirna_id"])), notes)


register(Kaggle2019("kaggle-2019", PATH, folders=("train", "test"), markers=("train.csv", "test.csv"), fallback=True))
