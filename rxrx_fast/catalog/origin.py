"""The origin of a catalog: what all its parts share with the table first read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rxrx_fast.catalog.table import NUMBERS
from rxrx_fast.errors import UsageError

__all__ = ["LEVELS", "Origin", "plate_keys"]

#: Levels of groups of sites, from coarse to fine.
LEVELS = ("global", "cell_type", "experiment", "plate", "site")


@dataclass(frozen=True)
class Origin:
    """What the parts of a catalog need of the table first read: codes and numbers mean the same in all of them.

    Attributes
    ----------
    sites : int
        Number of its sites.
    plate_keys : (P,) int64
        Of its plates, sorted: the experiment's code * ``plate_base`` + the plate's number.
    plate_base : int
        One more than the largest number of a plate.
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
        """Make the origin of a whole table."""
        base = int(table["plate"].max()) + 1
        plates = np.unique(plate_keys(table, base))
        return cls(len(table), plates, base, {name: np.unique(table[name]) for name in NUMBERS}, tuple(notes))

    def known(self, table: pd.DataFrame, column: str) -> Sequence[object]:
        """List the values that a part's column had in the table first read; for other columns, those of the part."""
        if column in self.numbers:
            return self.numbers[column].tolist()
        series = table[column]
        return list(series.cat.categories) if isinstance(series.dtype, pd.CategoricalDtype) else list(series.unique())

    def matches(self, table: pd.DataFrame, conditions: Mapping[str, object]) -> np.ndarray:
        """Tell which rows of a part fulfil all conditions, (N,) bool: see :meth:`rxrx_fast.Catalog.where`."""
        keep = np.ones(len(table), dtype=bool)
        for column, wanted in conditions.items():
            if column not in table:
                raise UsageError(f"no column {column!r}; choose from {', '.join(table.columns)}")
            several = isinstance(wanted, Iterable) and not isinstance(wanted, (str, bytes))
            values = [*wanted] if several else [wanted]  # type: ignore[misc] # mypy loses what isinstance told
            self.refuse_unknown(table, column, values)
            keep &= table[column].isin(values).to_numpy()
        return keep

    def refuse_unknown(self, table: pd.DataFrame, column: str, values: Sequence[object]) -> None:
        """Raise UsageError if a part's column never had one of these values; the message lists those it had."""
        known = self.known(table, column)
        lookup = set(known)
        # True equals 1 in Python, but plate=True is a mistake.
        flags = pd.api.types.is_bool_dtype(table[column].dtype)
        for value in values:
            mistaken = isinstance(value, (bool, np.bool_)) and not flags
            if mistaken or not isinstance(value, Hashable) or value not in lookup:
                choices = ", ".join(str(name) for name in known[:20])
                more = f" and {len(known) - 20:,} more" if len(known) > 20 else ""
                raise UsageError(f"no {column} {value!r}; choose from {choices or 'nothing: it is empty'}{more}")

    def group_keys(self, table: pd.DataFrame, level: str) -> tuple[np.ndarray, list[str]]:
        """Return each site's group as a number: see :meth:`rxrx_fast.Catalog.group_keys`."""
        if level == "global":
            return np.zeros(len(table), dtype=np.int64), ["all"]
        if level in ("cell_type", "experiment"):
            return table[level].cat.codes.to_numpy(dtype=np.int64), list(table[level].cat.categories)
        if level == "plate":
            experiments, base = table["experiment"].cat.categories, self.plate_base
            names = [f"{experiments[key // base]}/{key % base}" for key in self.plate_keys.tolist()]
            return np.searchsorted(self.plate_keys, plate_keys(table, base)).astype(np.int64), names
        if level == "site":
            codes = table.index.to_numpy(dtype=np.int64)
            names = [""] * self.sites
            for code, name in zip(codes.tolist(), table["site_id"].tolist(), strict=True):
                names[code] = name
            return codes, names
        raise UsageError(f"no level {level!r}; choose from {', '.join(LEVELS)}")


def plate_keys(table: pd.DataFrame, base: int) -> np.ndarray:
    """Return each site's plate as a number, (N,) int64: code of the experiment * ``base`` + number of the plate."""
    return table["experiment"].cat.codes.to_numpy(dtype=np.int64) * base + table["plate"].to_numpy()
