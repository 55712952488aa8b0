"""The CSV files that both Kaggle editions share: one row a well, in up to four files.

Only ``pixel_stats.csv`` says how many sites a well has. Where it lies in the root, its pairs of ``id_code`` and
``site`` are the sites; otherwise sites 1 and 2 of every well are assumed. The files list 62,755 wells in 2019 and
62,759 in 2023, on the same 204 plates of 51 experiments. Two sites a well give 81,224 train and 44,286 test sites for
2019, the true number of RxRx1, and 81,228 and 44,290 for 2023. The difference is 8 sites of 4
wells that only 2023 has: HUVEC-06_1_B18 and RPE-04_3_E04 (train), HUVEC-18_3_D23 and RPE-09_2_J16 (test). Users report
that images of them are missing; listing the folders tells which. A site 3 found on the disk for a known well is added.

Nor do the files tell the siRNAs of test treatments: their label is -1, and so is the group of a test plate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from rxrx_fast.catalog.layout import Records
from rxrx_fast.catalog.root import Root
from rxrx_fast.catalog.rows import Rows, join, read_csv
from rxrx_fast.catalog.table import well_ids
from rxrx_fast.errors import DataError

__all__ = ["PATH", "site_records", "wells"]

PATH = "{split}/{experiment}/Plate{plate}/{well}_s{site}_w{channel}.png"
_KEY = ("experiment", "plate", "well")


def wells(root: Root) -> tuple[Rows, list[str]]:
    """Read the wells of all CSV files, and a note for each file that is missing."""
    parts, notes = [], []
    for split in ("train", "test"):
        for name, controls in ((f"{split}.csv", False), (f"{split}_controls.csv", True)):
            if name not in root.entries:
                notes.append(f"{name} is missing, and with it its wells")
                continue
            need = (*_KEY, "sirna", "well_type") if controls else (*_KEY, "sirna") if split == "train" else _KEY
            # A part of the data may have no well of one kind, or no test experiment.
            part = read_csv(root.path, name, need, ("sirna",), may_be_empty=True)
            part.frame["split"] = split
            if not controls:
                part.frame["well_type"] = "treatment"
            parts.append(part)
    rows = join(parts)
    if not len(rows.frame):
        raise DataError(f"{root.path}: none of {', '.join(rows.files)} has a row; restore the files")
    if "sirna" not in rows.frame:
        rows.frame["sirna"] = ""
    rows.frame["plate"] = rows.integers("plate")  # numbers, so that plate 10 sorts after plate 9
    rows.frame["cell_type"] = _map_values(rows.frame["experiment"], lambda name: name.rpartition("-")[0])
    return rows, notes


def site_records(root: Root, rows: Rows, frame: pd.DataFrame, notes: list[str]) -> Records:
    """Turn wells into sites, sorted by split, experiment, plate, well and site.

    Parameters
    ----------
    root : Root
    rows : Rows
        Of :func:`wells`.
    frame : pandas.DataFrame
        Their frame, with the column ``sirna_id``.
    notes : list of str
        Of :func:`wells`.
    """
    notes = list(notes)
    sites = _sites(root, replace(rows, frame=frame), notes)
    keys = sites.frame.assign(first=sites.frame["split"] != "train")
    order = keys.sort_values(["first", *_KEY, "site"], kind="stable").index
    return Records(sites.take(order.to_numpy()), ("train", "test"), notes, wells_only=True)


def _sites(root: Root, rows: Rows, notes: list[str]) -> Rows:
    """Repeat each well for its sites: those of ``pixel_stats.csv``, or 1 and 2."""
    if "pixel_stats.csv" not in root.entries:
        notes.append("the CSV files list wells, not sites: two sites a well are assumed")
        pairs = rows.take(np.repeat(np.arange(len(rows.frame)), 2))
        pairs.frame["site"] = np.tile(np.array([1, 2], dtype=np.int64), len(rows.frame))
        return pairs
    stats = read_csv(root.path, "pixel_stats.csv", ("id_code", "site"), check=False)
    named = pd.DataFrame({"id_code": stats.frame["id_code"], "site": stats.integers("site")}).drop_duplicates()
    ids = pd.DataFrame({"id_code": well_ids(rows.frame), "row": np.arange(len(rows.frame))})
    merged = ids.merge(named, on="id_code")
    if merged.empty:
        raise DataError(f"{stats.files[0]}: names no well of the other CSV files; restore the file or remove it")
    without = len(ids) - merged["row"].nunique()
    if without:
        notes.append(f"wells of the CSV files that have no site in pixel_stats.csv: {without:,}")
    sites = rows.take(merged["row"].to_numpy())
    sites.frame["site"] = merged["site"].to_numpy()
    return sites


def _map_values(series: pd.Series, function: Callable[[str], str]) -> np.ndarray:
    codes, values = pd.factorize(series)
    return np.array([function(value) for value in values], dtype=object)[codes]
