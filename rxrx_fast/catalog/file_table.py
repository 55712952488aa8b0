"""The paths of a table's files."""

from __future__ import annotations

import os
import string
from collections.abc import Iterable, Sequence
from operator import add

import numpy as np
import pandas as pd

from rxrx_fast.catalog.layout import Layout

__all__ = ["FileTable"]


class FileTable:
    """The paths of a table's files, as few folders, few names, and two codes a site.

    Each plate has one folder, and wells have the same names on every plate: 753,060 paths are 204 folders and about
    3,700 names.

    Parameters
    ----------
    root : str
        Absolute path of the folder that paths start from.
    layout : Layout
    table : pandas.DataFrame
        One row a site.

    Attributes
    ----------
    folders, names : list of tuple of str
        The distinct folders, each ending in a separator, and file names; each tuple is over the files of a site.
    folder_of, name_of : list of int
        For each site, positions in ``folders`` and ``names``.
    """

    def __init__(self, root: str, layout: Layout, table: pd.DataFrame) -> None:
        folder, _, name = layout.path.rpartition("/")
        channels = range(1, layout.files_per_site + 1)
        folders, folder_of = _fill(folder, table, channels)
        self.names, name_of = _fill(name, table, channels)
        self.folders = [tuple(os.path.join(root, part, "") for part in parts) for parts in folders]
        # Lists, because indexing them with single numbers is faster.
        self.folder_of: list[int] = folder_of.tolist()
        self.name_of: list[int] = name_of.tolist()
        # Folders and names, each cut down to some of a site's files.
        self._selected: dict[tuple[int, ...], tuple[list[tuple[str, ...]], list[tuple[str, ...]]]] = {}

    def index(self, files: Sequence[int]) -> dict[str, int]:
        """Return the code of each name of the files at these positions: place in ``names`` * files a site + file."""
        size = len(self.names[0])
        return {name[f]: code * size + f for code, name in enumerate(self.names) for f in files}

    def paths(self, rows: Sequence[int], files: tuple[int, ...]) -> list[tuple[str, ...]]:
        """Return, for each of these rows of the table, the files at these positions of a site's files."""
        if files not in self._selected:
            self._selected[files] = _select(self.folders, files), _select(self.names, files)
        folders, names = self._selected[files]
        folder_of, name_of = self.folder_of, self.name_of
        return [tuple(map(add, folders[folder_of[row]], names[name_of[row]])) for row in rows]


def _select(parts: list[tuple[str, ...]], files: tuple[int, ...]) -> list[tuple[str, ...]]:
    return [tuple(part[f] for f in files) for part in parts]


def _fill(template: str, table: pd.DataFrame, channels: Iterable[int]) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """Fill a template: its distinct texts, each a tuple over channels, and the position of each row's text."""
    fields = {name for _, name, _, _ in string.Formatter().parse(template) if name and name != "channel"}
    code = np.zeros(len(table), dtype=np.int64)
    for name in sorted(fields):
        part, _ = pd.factorize(table[name])
        code, _ = pd.factorize(code * (part.max(initial=0) + 1) + part)
    _, first = np.unique(code, return_index=True)
    values = {name: table[name].iloc[first].tolist() for name in fields}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)] if fields else [{}]
    return [tuple(template.format(**row, channel=c) for c in channels) for row in rows], code
