"""The Kaggle edition of 2023: the siRNA column holds a name, and the labels are numbered anew."""

from __future__ import annotations

import numpy as np

from rxrx_fast.catalog.layout import DatasetLayout, Records, register
from rxrx_fast.catalog.layouts.kaggle import PATH, site_records, wells
from rxrx_fast.catalog.root import Root
from rxrx_fast.catalog.rows import INTEGER
from rxrx_fast.catalog.table import UNTREATED

__all__ = ["NAMES", "Kaggle2023"]

# This edition scatters the positive controls among the treatments.
_CONTROLS = (
    52, 144, 201, 237, 256, 272, 323, 374, 410, 542, 577, 618, 650, 672, 682,
    702, 714, 756, 766, 810, 822, 825, 842, 852, 864, 888, 967, 1011, 1037, 1056,
)  # fmt: skip

#: siRNA names in the order of their labels: treatments by number, positive controls by number, ``UNTREATED``. Fixed
#: here and not derived from the rows at hand, so that a label means the same in every subset. The numbering of 2019
#: and rxrx.ai is another one; the two are a bijection.
NAMES: tuple[str, ...] = (
    *(f"sirna_{n}" for n in range(UNTREATED) if n not in _CONTROLS),
    *(f"sirna_{n}" for n in _CONTROLS),
    "UNTREATED",
)
_LABELS = {name: label for label, name in enumerate(NAMES)}


def _fault(name: object) -> str | None:
    return None if name == "" or name in _LABELS else "is no siRNA of 2023; correct the row"


class Kaggle2023(DatasetLayout):
    """Told from 2019 by the first siRNA, which is a name such as ``sirna_250``."""

    def recognise(self, root: Root) -> bool:
        """Look at the first siRNA of the CSV files."""
        if not super().recognise(root):
            return False
        names = root.once(wells)[0].frame["sirna"]
        given = names[names != ""]
        return len(given) > 0 and not INTEGER.fullmatch(given.iloc[0])

    def read(self, root: Root) -> Records:
        """Read the CSV files; labels follow from the names."""
        rows, notes = root.once(wells)
        rows.refuse("sirna", _fault)
        labels = rows.frame["sirna"].map(_LABELS).fillna(-1).astype(np.int64)
        return site_records(root, rows, rows.frame.assign(sirna_id=labels), notes)


register(Kaggle2023("kaggle-2023", PATH, folders=("train", "test"), markers=("train.csv", "test.csv")))
