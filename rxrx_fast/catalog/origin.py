"""The identity of sites: what every part of a catalog shares with the table first read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rxrx_fast.catalog.table import NUMBERS, WELL_TYPES
from rxrx_fast.errors import UsageError

__all__ = ["LEVELS", "Origin", "treatment_groups"]

#: The groups of sites that have numbers of their own.
LEVELS = ("global", "cell_type", "experiment", "plate", "site")


@dataclass(frozen=True)
class Origin:
    """The table first read, as far as its parts need it: codes and numbers mean the same in all of them.

    Attributes
    ----------
    sites : int
        How many there were.
    plate_keys : (P,) int64
        Sorted: the experiment's code times ``plate_base``, plus the plate's number.
    plate_base : int
    numbers : mapping of str to ndarray
        The distinct values of the columns that hold numbers.
    notes : tuple of str
        What a user should know about the files, a line each.
    """

    sites: int
    plate_keys: np.ndarray
    plate_base: int
    numbers: Mapping[str, np.ndarray]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, table: pd.DataFrame, notes: Sequence[str]) -> Origin:
        """That of a whole table."""
        base = int(table["plate"].max()) + 1
        plate_keys = np.unique(_plate_keys(table, base))
        return cls(len(table), plate_keys, base, {name: np.unique(table[name]) for name in NUMBERS}, tuple(notes))

    def known(self, table: pd.DataFrame, column: str) -> Sequence[object]:
        """The values that a column of a part had in the table first read; of other columns, those of the part."""
        if column in self.numbers:
            return self.numbers[column].tolist()
        series = table[column]
        return list(series.cat.categories) if isinstance(series.dtype, pd.CategoricalDtype) else list(series.unique())

    def refuse_unknown(self, table: pd.DataFrame, column: str, values: Sequence[object]) -> None:
        """UsageError if a part's column never had one of these values; the message lists those that it had."""
        known = self.known(table, column)
        lookup = set(known)
        # True equals 1, but who asks for plate True has made a mistake.
        flags = pd.api.types.is_bool_dtype(table[column].dtype)
        for value in values:
            mistaken = isinstance(value, (bool, np.bool_)) and not flags
            if mistaken or not isinstance(value, Hashable) or value not in lookup:
                choices = ", ".join(str(name) for name in known[:20])
                more = f" and {len(known) - 20:,} more" if len(known) > 20 else ""
                raise UsageError(f"no {column} {value!r}; choose from {choices or 'nothing: it is empty'}{more}")

    def group_keys(self, table: pd.DataFrame, level: str) -> tuple[np.ndarray, list[str]]:
        """See :meth:`rxrx_fast.Catalog.group_keys`."""
        if level == "global":
            return np.zeros(len(table), dtype=np.int64), ["all"]
        if level in ("cell_type", "experiment"):
            return table[level].cat.codes.to_numpy(dtype=np.int64), list(table[level].cat.categories)
        if level == "plate":
            experiments, base = table["experiment"].cat.categories, self.plate_base
            names = [f"{experiments[key // base]}/{key % base}" for key in self.plate_keys.tolist()]
            return np.searchsorted(self.plate_keys, _plate_keys(table, base)).astype(np.int64), names
        if level == "site":
            codes = table.index.to_numpy(dtype=np.int64)
            names = [""] * self.sites
            for code, name in zip(codes.tolist(), table["site_id"].tolist(), strict=True):
                names[code] = name
            return codes, names
        raise UsageError(f"no level {level!r}; choose from {', '.join(LEVELS)}")


def treatment_groups(table: pd.DataFrame) -> np.ndarray:
    """Number the sets of treatments that plates share, (N,) int64 for each site; -1 where none is labelled.

    Plates and treatments are the two sides of a graph. Every plate takes the smallest treatment it carries, every
    treatment the smallest of its plates, until nothing changes; what is left is the smallest of each component.
    """
    _, plate = np.unique(_plate_keys(table, int(table["plate"].max()) + 1), return_inverse=True)
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


def _plate_keys(table: pd.DataFrame, base: int) -> np.ndarray:
    return table["experiment"].cat.codes.to_numpy(dtype=np.int64) * base + table["plate"].to_numpy()
