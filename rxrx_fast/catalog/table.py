"""The canonical table of sites, and the labels of RxRx1.

Labels follow one rule in all layouts: 0 to 1107 are treatments, 1108 to 1137 positive controls, 1138 is the untreated
negative control, and -1 stands for an unknown label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rxrx_fast.catalog.rows import Rows, path_fault
from rxrx_fast.errors import DataError, UsageError

__all__ = [
    "COLUMNS",
    "NUMBERS",
    "UNTREATED",
    "WELL_TYPES",
    "canonical_table",
    "label_names",
    "row_positions",
    "well_ids",
]

#: In their order; :class:`rxrx_fast.Catalog` documents them.
COLUMNS = (
    "site_id", "well_id", "cell_type", "split", "experiment", "plate", "well", "site", "well_type", "sirna",
    "sirna_id", "group", "present",
)  # fmt: skip
#: Columns of whole numbers that :meth:`rxrx_fast.Catalog.where` can select by.
NUMBERS = ("plate", "site", "sirna_id", "group")

WELL_TYPES = ("treatment", "positive_control", "negative_control")
N_TREATMENTS = 1108  # labels below are treatments
UNTREATED = 1138  # the last label; those between are positive controls


def canonical_table(
    rows: Rows, splits: Sequence[str], path_columns: Sequence[str] = (), rxrx1: bool = True
) -> pd.DataFrame:
    """Make the table of sites, without its columns ``group`` and ``present``: those need the whole table and the disk.

    Parameters
    ----------
    rows : Rows
        Columns ``experiment``, ``plate``, ``well``, ``site``, ``split``, ``cell_type``, ``well_type``, ``sirna`` and
        ``sirna_id``; ``site_id`` is optional. ``well_type`` may be missing or empty; it then follows from the label.
    splits : sequence of str
        Splits in the order of their codes; others follow in alphabetical order.
    path_columns : sequence of str
        Further columns that become part of a path.
    rxrx1 : bool
        Whether labels and well types are those of RxRx1, and are checked.

    Returns
    -------
    pandas.DataFrame
        With the index ``site_index``.

    Raises
    ------
    DataError
        A value would leave the root, is not a number where one belongs, or contradicts another; or a site is given
        twice. The message names the file and the line.
    """
    for column in dict.fromkeys(("experiment", "plate", "well", "site", *path_columns)):
        rows.refuse(column, path_fault)
    frame = rows.frame
    labels = rows.integers("sirna_id", blank=-1)
    if rxrx1:
        well_types = _check_labels(rows, labels)
    else:
        well_types = frame["well_type"].mask(frame["well_type"] == "", WELL_TYPES[0]).to_numpy()
    table = pd.DataFrame({"plate": rows.integers("plate"), "site": rows.integers("site")})
    table["experiment"], table["well"] = frame["experiment"], frame["well"]
    well_id = well_ids(table)
    sites = table["site"].tolist()
    if "site_id" in frame:
        site_id = frame["site_id"].tolist()
    else:
        site_id = [f"{well}_{site}" for well, site in zip(well_id, sites, strict=True)]
    table = pd.DataFrame(
        {
            "site_id": site_id,
            "well_id": well_id,
            "cell_type": _category(frame["cell_type"]),
            "split": _category(frame["split"], splits),
            "experiment": _category(frame["experiment"]),
            "plate": table["plate"],
            "well": _category(frame["well"]),
            "site": table["site"],
            "well_type": _category(well_types, WELL_TYPES),
            "sirna": _category(frame["sirna"]),
            "sirna_id": labels,
        }
    )
    twice = table["site_id"].duplicated().to_numpy()
    if twice.any():
        second = int(twice.argmax())
        first = int((table["site_id"] == table["site_id"].iloc[second]).to_numpy().argmax())
        raise DataError(
            f"{rows.place(second)}: site {table['site_id'].iloc[second]} is already at {rows.place(first)}; remove one"
        )
    table.index = pd.RangeIndex(len(table), name="site_index")
    return table


def _check_labels(rows: Rows, labels: np.ndarray) -> np.ndarray:
    """Return the well type of each row; DataError if it contradicts the label."""
    if labels.max(initial=-1) > UNTREATED:
        row = int((labels > UNTREATED).argmax())
        raise DataError(f"{rows.place(row)}: siRNA {labels[row]} is above {UNTREATED}, the last one; correct the row")
    expected = np.select([labels < N_TREATMENTS, labels < UNTREATED], [0, 1], 2)
    names = np.array(WELL_TYPES, dtype=object)
    if "well_type" not in rows.frame:
        return names[expected]
    known = {name: code for code, name in enumerate(WELL_TYPES)} | {"": -1}
    choices = f"is none of {', '.join(WELL_TYPES)}; correct the row"
    rows.refuse("well_type", lambda value: None if value in known else choices)
    given = rows.frame["well_type"].map(known).to_numpy(dtype=np.int64)
    wrong = (given >= 0) & (given != expected) & (labels >= 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{rows.place(row)}: well type {WELL_TYPES[given[row]]} contradicts siRNA {rows.frame['sirna'].iloc[row]} "
            f"(label {labels[row]}), which is a {WELL_TYPES[expected[row]]}; restore the file"
        )
    return names[np.where(given >= 0, given, expected)]


def well_ids(frame: pd.DataFrame) -> list[str]:
    """Name each row's well, such as ``HEPG2-01_1_B03``: experiment, plate and well."""
    columns = (frame["experiment"].tolist(), frame["plate"].tolist(), frame["well"].tolist())
    return [f"{experiment}_{plate}_{well}" for experiment, plate, well in zip(*columns, strict=True)]


def label_names(labels: pd.Series) -> pd.Series:
    """Name siRNAs that have no name but their label: the number, or ``""`` where it is unknown."""
    return labels.astype(str).where(labels >= 0, "")


def row_positions(rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Check positions in a table, and return them as (n,) int64; UsageError for a mask or anything else."""
    positions = np.asarray(rows)
    if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
        raise UsageError(f"give positions as one list of whole numbers, not {positions.dtype} {positions.shape}")
    return positions.astype(np.int64, copy=False)


def _category(values: pd.Series | np.ndarray, first: Sequence[str] = ()) -> pd.Categorical:
    """Make a categorical whose codes don't depend on the order of the rows: ``first``, then the rest sorted."""
    codes, found = pd.factorize(np.asarray(values, dtype=object))
    names = [*first, *sorted(set(found) - set(first))]
    position = {name: code for code, name in enumerate(names)}
    return pd.Categorical.from_codes(
        np.array([position[name] for name in found], dtype=np.int64)[codes], pd.Index(names)
    )
