"""Groups of treatments: the disjoint sets of treatments that plates carry, four in RxRx1."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rxrx_fast.catalog.origin import plate_keys
from rxrx_fast.catalog.table import WELL_TYPES

__all__ = ["treatment_groups"]


def treatment_groups(table: pd.DataFrame) -> np.ndarray:
    """Find the connected components of plates and the treatments they carry.

    Every plate takes the smallest label among its treatments, every treatment the smallest of its plates, until nothing
    changes: each component is then named by its smallest label.

    Parameters
    ----------
    table : pandas.DataFrame
        The canonical table of a whole catalog.

    Returns
    -------
    (N,) int64
        The component of each site's plate, numbered by smallest label; -1 where no treatment of the plate is labelled.
    """
    _, plate = np.unique(plate_keys(table, int(table["plate"].max()) + 1), return_inverse=True)
    label = table["sirna_id"].to_numpy()
    edge = (table["well_type"] == WELL_TYPES[0]).to_numpy() & (label >= 0)
    plates, (known, treatments) = plate[edge], np.unique(label[edge], return_inverse=True)
    smallest = np.arange(len(known))
    none = np.iinfo(np.int64).max
    of_plate = np.full(plate.max(initial=-1) + 1, none)
    while True:
        np.minimum.at(of_plate, plates, smallest[treatments])
        before = smallest.copy()
        np.minimum.at(smallest, treatments, of_plate[plates])
        if np.array_equal(before, smallest):
            break
    found = np.unique(of_plate[of_plate != none])
    return np.where(of_plate == none, -1, np.searchsorted(found, of_plate))[plate].astype(np.int64)
