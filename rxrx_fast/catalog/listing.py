"""Where a table's images lie: the paths that a layout gives, and which of them a listing of the folders finds."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import add

import numpy as np
import pandas as pd

from rxrx_fast.catalog.layouts import Layout
from rxrx_fast.errors import DataError
from rxrx_fast.runtime.progress import bar

__all__ = ["FileTable", "list_images"]


class FileTable:
    """The paths of a table's files, as few folders, few names, and two codes a site.

    Plates have one folder each and wells have the same names on every plate, so 753,060 paths are 204 folders and
    about 3,700 names.
    """

    def __init__(self, root: str, layout: Layout, table: pd.DataFrame) -> None:
        folder, _, name = layout.path.rpartition("/")
        channels = range(1, layout.files_per_site + 1)
        folders, folder_of = _fill(folder, table, channels)
        self.names, name_of = _fill(name, table, channels)
        self.folders = [tuple(os.path.join(root, part, "") for part in parts) for parts in folders]
        self.folder_of: list[int] = folder_of.tolist()  # lists, because single numbers come out of them faster
        self.name_of: list[int] = name_of.tolist()
        # Folders and names, each cut down to some of a site's files.
        self._parts: dict[tuple[int, ...], tuple[list[tuple[str, ...]], list[tuple[str, ...]]]] = {}

    def index(self, files: Sequence[int]) -> dict[str, int]:
        """Code of each name of the files at these positions: its place in ``names``, times files a site, plus file."""
        size = len(self.names[0])
        return {name[f]: code * size + f for code, name in enumerate(self.names) for f in files}

    def paths(self, rows: Sequence[int], files: tuple[int, ...]) -> list[tuple[str, ...]]:
        """Of each of these rows of the table, the files at these positions of a site's files."""
        if files not in self._parts:
            self._parts[files] = tuple(
                [tuple(part[f] for f in files) for part in parts] for parts in (self.folders, self.names)
            )
        folders, names = self._parts[files]
        folder_of, name_of = self.folder_of, self.name_of
        return [tuple(map(add, folders[folder_of[row]], names[name_of[row]])) for row in rows]


def _fill(template: str, table: pd.DataFrame, channels: Iterable[int]) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """The distinct texts that a template gives, each as a tuple over channels, and which of them each row has."""
    fields = {name for _, name, _, _ in string.Formatter().parse(template) if name and name != "channel"}
    code = np.zeros(len(table), dtype=np.int64)
    for name in sorted(fields):
        part, _ = pd.factorize(table[name])
        code, _ = pd.factorize(code * (part.max(initial=0) + 1) + part)
    _, first = np.unique(code, return_index=True)
    values = {name: table[name].iloc[first].tolist() for name in fields}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)] if fields else [{}]
    return [tuple(template.format(**row, channel=c) for c in channels) for row in rows], code


def list_images(
    table: pd.DataFrame, layout: Layout, root: str, notes: list[str], progress: bool, wells_only: bool
) -> pd.DataFrame:
    """Fill ``present``, add sites that only the disk knows (if ``wells_only``), and note the images of no site.

    Folders are listed and never searched: names are looked up in an index of the few that a plate can have.
    """
    files = FileTable(root, layout, table)
    expected = {folder for parts in files.folders for folder in parts}
    if not any(os.path.isdir(os.path.join(root, folder)) for folder in layout.folders or expected):
        return table
    unknown = sorted(_plate_folders(root, layout) - expected)
    folder_of, name_of = np.array(files.folder_of), np.array(files.name_of)
    order = np.argsort(folder_of, kind="stable")
    bounds = np.searchsorted(folder_of[order], np.arange(len(files.folders) + 1))
    present = np.zeros(len(table), dtype=np.int64)
    mask = np.zeros(len(files.names), dtype=np.int64)  # by name, for one folder at a time
    indices: dict[tuple[int, ...], dict[str, int]] = {}
    bits = np.int64(1) << np.arange(layout.channels, dtype=np.int64)
    if layout.files_per_site == 1:
        bits = bits.sum(keepdims=True)  # one file brings all channels
    strays: list[tuple[np.ndarray, str, str]] = []
    with bar(total=len(files.folders) + len(unknown), desc="listing images", unit="plate", quiet=not progress) as shown:
        for number, parts in enumerate(files.folders):
            rows = order[bounds[number] : bounds[number + 1]]
            wanted = name_of[rows]
            for folder in dict.fromkeys(parts):
                here = tuple(f for f, part in enumerate(parts) if part == folder)
                if here not in indices:
                    indices[here] = files.index(here)
                names = _names_in(folder)
                hits = np.fromiter(map(indices[here].get, names, repeat(-1)), dtype=np.int64, count=len(names))
                name = np.where(hits < 0, -1, hits // len(bits))
                ours = np.isin(name, wanted)
                np.bitwise_or.at(mask, name[ours], bits[hits[ours] % len(bits)])
                if layout.folders:
                    strays += [(rows, folder, names[i]) for i in np.flatnonzero(~ours)]
            present[rows] = mask[wanted]
            mask[wanted] = 0
            shown.update(1)
        for folder in unknown:
            strays += [(order[:0], folder, name) for name in _names_in(folder)]
            shown.update(1)
    table["present"] = present
    return _settle_strays(table, layout, strays, notes, wells_only)


def _settle_strays(
    table: pd.DataFrame,
    layout: Layout,
    strays: Iterable[tuple[np.ndarray, str, str]],
    notes: list[str],
    wells_only: bool,
) -> pd.DataFrame:
    """Give images that no site expects to a new site of their well, or count them in a note.

    Each stray is (rows of the table in its folder, folder, name). Names that are no image of the layout are ignored.
    """
    channel = "_w([0-9]+)" if layout.files_per_site > 1 else "()"
    pattern = re.compile(rf"([A-Z]+[0-9]+)_s(0|[1-9][0-9]*){channel}\.png")
    wells = table["well"].tolist()
    row_of: dict[str, dict[str, int]] = {}
    found: dict[tuple[int, int], int] = {}
    homeless: list[str] = []
    for rows, folder, name in strays:
        match = pattern.fullmatch(name)
        if not match:
            continue
        if folder not in row_of:
            row_of[folder] = {wells[row]: row for row in rows.tolist()}
        row, number = row_of[folder].get(match[1]), match[3] or "1"
        if wells_only and row is not None and len(match[2]) < 10 and number in map(str, range(1, layout.channels + 1)):
            site = (row, int(match[2]))
            found[site] = found.get(site, 0) | 1 << (int(number) - 1)
        else:
            homeless.append(folder + name)
    if homeless:
        notes.append(f"images that belong to no row of the CSV files: {len(homeless):,} (the first is {homeless[0]})")
    if not found:
        return table
    notes.append(f"sites found on the disk beside those that the CSV files tell: {len(found):,}")
    keys = sorted(found)
    new = table.iloc[[row for row, _ in keys]].copy()
    new["site"] = np.array([site for _, site in keys], dtype=np.int64)
    new["site_id"] = new["well_id"] + "_" + new["site"].astype(str)
    new["present"] = np.array([found[key] for key in keys], dtype=np.int64)
    whole = pd.concat([table, new], ignore_index=True)
    whole.index = pd.RangeIndex(len(whole), name="site_index")
    return whole


def _plate_folders(root: str, layout: Layout) -> set[str]:
    """The folders of plates on the disk, two levels below those of the layout, each ending in a separator."""
    folders = [os.path.join(root, name) for name in layout.folders]
    for _ in range(2):
        folders = [inner for folder in folders for inner in _folders_in(folder)]
    return {os.path.join(folder, "") for folder in folders}


def _folders_in(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from None


def _names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # sorted, because file systems list in any order
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from None
