"""Rows of CSV files that know where they came from, so that errors name the file and the line."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rxrx_fast.errors import DataError

__all__ = ["INTEGER", "Rows", "join", "path_fault", "read_csv"]

INTEGER = re.compile(r"[0-9]{1,9}(\.0+)?")  # spreadsheets, and pandas in a column with gaps, write 1 as "1.0"
_UNSAFE = re.compile(r"[/\\\x00]|\.\.|^\.$|^[A-Za-z]:")


@dataclass
class Rows:
    """Rows of one or several CSV files, or of a frame, each with the place it came from.

    Attributes
    ----------
    frame : pandas.DataFrame
        The rows. From a CSV file: strings, ``""`` where nothing was given.
    files : list of str
        The files' names.
    file, line : ndarray of int64, shape (len(frame),)
        Each row's file, as a position in ``files``, and its line there; the header is line 1.
    unit : str
        What ``line`` counts, for messages.
    """

    frame: pd.DataFrame
    files: list[str]
    file: np.ndarray
    line: np.ndarray
    unit: str = "line"

    def place(self, row: int) -> str:
        """Name the place a row came from: ``train.csv line 7``."""
        return f"{self.files[self.file[row]]} {self.unit} {self.line[row]}"

    def take(self, positions: np.ndarray) -> Rows:
        """Select the rows at these positions."""
        frame = self.frame.take(positions).reset_index(drop=True)
        return Rows(frame, self.files, self.file[positions], self.line[positions], self.unit)

    def refuse(self, column: str, why: Callable[[object], str | None]) -> None:
        """Raise DataError for the first row whose value in ``column`` has a fault.

        Parameters
        ----------
        column : str
        why : callable
            Returns what is wrong with a value and what to do, or None. It sees each distinct value once.
        """
        codes, values = pd.factorize(self.frame[column], use_na_sentinel=False)
        reasons = [why(value) for value in values]
        faulty = np.array([reason is not None for reason in reasons], dtype=bool)[codes]
        if faulty.any():
            row = int(faulty.argmax())
            raise DataError(f"{self.place(row)}: {column} {values[codes[row]]!r} {reasons[codes[row]]}")

    def integers(self, column: str, blank: int | None = None) -> np.ndarray:
        """Return a column as int64; ``blank`` replaces empty values, which are refused if it is None."""
        series = self.frame[column]
        if pd.api.types.is_integer_dtype(series.dtype) and not series.hasnans:
            return series.to_numpy(dtype=np.int64)

        def why(value: object) -> str | None:
            if (blank is not None and value == "") or INTEGER.fullmatch(str(value)):
                return None
            return "is not a whole number; correct the row"

        self.refuse(column, why)
        codes, values = pd.factorize(series)
        numbers = [blank if value == "" else int(float(value)) for value in values]
        return np.array(numbers, dtype=np.int64)[codes]


def read_csv(
    root: str,
    name: str,
    need: Sequence[str],
    optional: Sequence[str] = (),
    check: bool = True,
    may_be_empty: bool = False,
) -> Rows:
    """Read columns of a CSV file as strings.

    Parameters
    ----------
    root, name : str
        Folder and file.
    need : sequence of str
        Columns that must exist.
    optional : sequence of str
        Columns that are read where they exist.
    check : bool
        Whether to parse all columns. False is faster for a wide file, but accepts rows with too many values.
    may_be_empty : bool
        Whether the file may have no rows.

    Raises
    ------
    DataError
        The file can't be read, is no CSV file, or lacks a column or rows.
    """
    path = os.path.join(root, name)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    # pandas silently ends a value at a NUL, so look for it in the bytes.
    nul = data.find(b"\0")
    if nul >= 0:
        line = data.count(b"\n", 0, nul) + 1
        raise DataError(f"{path} line {line}: holds a NUL byte, so it is no CSV file or is damaged; restore the file")
    try:
        header = list(pd.read_csv(io.BytesIO(data), nrows=0, dtype=str).columns)
        missing = [column for column in need if column not in header]
        if missing:
            raise DataError(
                f"{path}: column {', '.join(missing)} is missing; it has {', '.join(header[:20])}; restore the file"
            )
        with warnings.catch_warnings():  # pandas only warns of a row with too many values
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.BytesIO(data), dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False,
                usecols=None if check else list(need),
            )  # fmt: skip
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: the file is empty; restore the file") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a CSV file ({reason}); restore the file") from None
    frame = frame.fillna("")
    lines = np.arange(2, len(frame) + 2, dtype=np.int64)
    filled = (frame != "").any(axis=1).to_numpy()  # blank lines are no rows, but count as lines
    if not filled.any() and not may_be_empty:
        raise DataError(f"{path}: a header without rows; restore the file")
    frame = frame[[column for column in header if column in need or column in optional]]
    rows = Rows(frame, [path], np.zeros(len(frame), dtype=np.int64), lines)
    return rows if filled.all() else rows.take(np.flatnonzero(filled))


def join(parts: Sequence[Rows]) -> Rows:
    """Concatenate the rows of several files; a column that a file lacks is empty there."""
    frame = pd.concat([part.frame for part in parts], ignore_index=True).fillna("")
    files = [file for part in parts for file in part.files]
    file_of = np.repeat(np.arange(len(parts)), [len(part.frame) for part in parts])
    return Rows(frame, files, file_of, np.concatenate([part.line for part in parts]))


def path_fault(value: object) -> str | None:
    """Say what is wrong with a value as a part of a path; None if nothing is."""
    text = str(value)
    if not text:
        return "is empty, but the path of an image needs it; fill it in"
    return "would leave the root; correct the row" if _UNSAFE.search(text) else None
