"""A listing of the folders of images: which files of the table's sites exist, and which belong to no site.

Folders are listed and no single file is looked at: 753,060 images lie in 204 folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import repeat
from typing import NamedTuple

import numpy as np
import pandas as pd

from rxrx_fast.catalog.file_table import FileTable
from rxrx_fast.catalog.layout import Layout
from rxrx_fast.errors import DataError
from rxrx_fast.runtime.progress import bar

__all__ = ["list_images"]


class _Stray(NamedTuple):
    """A file in a plate's folder that no site of the table expects; ``rows`` are the folder's sites."""

    rows: np.ndarray
    folder: str
    name: str


def list_images(
    table: pd.DataFrame, layout: Layout, root: str, notes: list[str], progress: bool, wells_only: bool
) -> pd.DataFrame:
    """Fill the column ``present``, and settle the images of no site.

    Parameters
    ----------
    table : pandas.DataFrame
        The canonical table; ``present`` is overwritten.
    layout : Layout
    root : str
        Absolute path.
    notes : list of str
        Takes a note on images of no site.
    progress : bool
        Show a progress bar.
    wells_only : bool
        Add sites that only the disk knows, if the table knows their well.

    Returns
    -------
    pandas.DataFrame
        The table itself, or a longer one with the added sites at its end. Without any folder of images, ``present``
        is left as it is.
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
    found = np.zeros(len(files.names), dtype=np.int64)  # by name, for one folder at a time
    indices: dict[tuple[int, ...], dict[str, int]] = {}
    bits = np.int64(1) << np.arange(layout.channels, dtype=np.int64)
    if layout.files_per_site == 1:
        bits = bits.sum(keepdims=True)  # one file holds all channels
    strays: list[_Stray] = []
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
                np.bitwise_or.at(found, name[ours], bits[hits[ours] % len(bits)])
                if layout.folders:
                    strays += [_Stray(rows, folder, names[i]) for i in np.flatnonzero(~ours)]
            present[rows] = found[wanted]
            found[wanted] = 0
            shown.update(1)
        for folder in unknown:
            strays += [_Stray(order[:0], folder, name) for name in _names_in(folder)]
            shown.update(1)
    table["present"] = present
    return _settle_strays(table, layout, strays, notes, wells_only)


def _settle_strays(
    table: pd.DataFrame, layout: Layout, strays: Iterable[_Stray], notes: list[str], wells_only: bool
) -> pd.DataFrame:
    """Give strays to a new site of their well, or count them in a note. Other files than images are ignored."""
    pattern = layout.file_name
    wells = table["well"].tolist()
    row_of: dict[str, dict[str, int]] = {}
    found: dict[tuple[int, int], int] = {}
    homeless: list[str] = []
    for rows, folder, name in strays:
        match = pattern.fullmatch(name)
        if not match:
            continue
        parts = match.groupdict()
        if folder not in row_of:
            row_of[folder] = {wells[row]: row for row in rows.tolist()}
        row = row_of[folder].get(parts.get("well", ""))
        site, channel = parts.get("site", ""), parts.get("channel", "1")
        if wells_only and row is not None and 0 < len(site) < 10 and channel in map(str, range(1, layout.channels + 1)):
            key = (row, int(site))
            found[key] = found.get(key, 0) | 1 << (int(channel) - 1)
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
    """List the folders of plates below those of the layout, as deep as its template says, each with a separator."""
    folders = [os.path.join(root, name) for name in layout.folders]
    for _ in range(layout.path.count("/") - 1):
        folders = [inner for folder in folders for inner in _folders_in(folder)]
    return {os.path.join(folder, "") for folder in folders}


def _folders_in(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _not_listed(folder, error) from None


def _names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # sorted, because file systems list in any order
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _not_listed(folder, error) from None


def _not_listed(folder: str, error: OSError) -> DataError:
    return DataError(f"{folder}: cannot be listed ({error.strerror}); check its permissions")
