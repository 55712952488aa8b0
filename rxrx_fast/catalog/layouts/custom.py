"""Another screen: a table with a row a site, and a template of the paths of their files."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterable

import numpy as np
import pandas as pd

from rxrx_fast.catalog.file_table import FileTable
from rxrx_fast.catalog.layout import Layout
from rxrx_fast.catalog.rows import Rows
from rxrx_fast.catalog.table import COLUMNS, NUMBERS, canonical_table
from rxrx_fast.errors import DataError, UsageError

__all__ = ["read_frame"]

#: Values of canonical columns that a frame lacks.
_DEFAULTS: dict[str, str | int] = {
    "experiment": "",
    "plate": 1,
    "well": "",
    "site": 1,
    "split": "",
    "well_type": "",
    "sirna": "",
}


def read_frame(frame: pd.DataFrame, path: str, channels: int, root: str) -> tuple[pd.DataFrame, Layout]:
    """Make the canonical table of a frame, and its layout.

    Parameters and errors are those of :meth:`rxrx_fast.Catalog.from_frame`.
    """
    if not os.path.isdir(root):
        raise DataError(f"{root}: no such folder; give the folder that the paths of the images start from")
    if isinstance(channels, bool) or not isinstance(channels, (int, np.integer)) or not 1 <= channels <= 62:
        raise UsageError(f"channels={channels!r}: give the number of channels of a site, 1 to 62")
    columns = _template_columns(path, frame.columns)
    if not len(frame):
        raise DataError("the frame has no rows; give one row a site")
    extra = frame[[name for name in frame.columns if name not in COLUMNS]].reset_index(drop=True)
    given = _canonical(frame)
    for name in set(columns) & set(extra.columns):
        given[name] = extra[name]
    rows = Rows(given, ["frame"], np.zeros(len(given), dtype=np.int64), np.arange(len(given)), unit="row")
    table = canonical_table(rows, (), columns, rxrx1=False)
    for name in extra.columns:
        table[name] = extra[name]
    layout = Layout("custom", path, int(channels))
    _check_paths(root, layout, table, rows)
    return table, layout


def _canonical(frame: pd.DataFrame) -> pd.DataFrame:
    """Take the canonical columns of a frame, and fill in those it lacks."""
    columns = {name: _texts(frame[name], name in NUMBERS) for name in COLUMNS if name in frame}
    given = pd.DataFrame(columns, index=pd.RangeIndex(len(frame)))
    for name, value in _DEFAULTS.items():
        if name not in given:
            given[name] = value
    if "cell_type" not in given:
        given["cell_type"] = given["experiment"].map(lambda name: name.rpartition("-")[0])
    if "sirna_id" not in given:
        given["sirna_id"] = _texts(frame["label"], True) if "label" in frame else -1
    return given


def _texts(series: pd.Series, numbers: bool) -> pd.Series:
    """Values as a CSV file would give them, as text and ``""`` where missing; whole numbers stay if ``numbers``."""
    if numbers and pd.api.types.is_integer_dtype(series.dtype) and not series.hasnans:
        return series.reset_index(drop=True).astype(np.int64)
    codes, values = pd.factorize(series, use_na_sentinel=False)
    texts = np.array(["" if pd.isna(value) else str(value) for value in values], dtype=object)
    return pd.Series(texts[codes], dtype=object)


def _template_columns(path: str, columns: Iterable[str]) -> list[str]:
    """List the columns that a template uses; UsageError if it is faulty or leaves the root."""
    try:
        parsed = list(string.Formatter().parse(path))
    except ValueError as error:
        raise UsageError(f"path={path!r}: {error}; write columns as in {{well}}_w{{channel}}.tif") from None
    parts = "".join(text for text, *_ in parsed).replace("\\", "/").split("/")
    if not path or path.endswith("/"):
        raise UsageError(f"path={path!r}: give the path of a file, not of a folder")
    if path.startswith("/") or ".." in parts or "\\" in path or "\0" in path or re.match(r"[A-Za-z]:", path):
        raise UsageError(f"path={path!r}: give a path below the root, with / between folders")
    names = []
    available = [*columns]
    for _, name, spec, conversion in parsed:
        if name is None or (name == "channel" and not conversion):
            continue
        if conversion or "{" in (spec or "") or re.search(r"[.\[]|^[0-9]*$", name) or name not in available:
            raise UsageError(f"path={path!r}: no column {name!r}; the frame has {', '.join(map(str, available))}")
        names.append(name)
    return list(dict.fromkeys(names))


def _check_paths(root: str, layout: Layout, table: pd.DataFrame, rows: Rows) -> None:
    """Refuse a template that gives two sites one file, or whose format, such as ``{a:.1}``, leaves the root."""
    try:
        files = FileTable(root, layout, table)
    except (ValueError, TypeError) as error:
        raise UsageError(f"path={layout.path!r}: {error}; the format does not suit the column") from None
    outside = [part for parts in (*files.folders, *files.names) for part in parts if ".." in re.split(r"[/\\]", part)]
    if outside:
        raise UsageError(f"path={layout.path!r}: its format makes {outside[0]!r}, which would leave the root")
    twice = pd.DataFrame({"folder": files.folder_of, "name": files.name_of}).duplicated().to_numpy()
    if twice.any():
        row = int(twice.argmax())
        path = files.folders[files.folder_of[row]][0] + files.names[files.name_of[row]][0]
        raise DataError(f"{rows.place(row)}: {path} is another site's file too; the path needs one more column")
