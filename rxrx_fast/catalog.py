"""The catalog: one table with a row a site, read from any layout of RxRx1, and the names of each site's files.

A catalog is read once and then only narrowed: :meth:`Catalog.split`, :meth:`Catalog.where`, :meth:`Catalog.available`
and :meth:`Catalog.take` give a catalog again. The label of a row in the table's index, the codes of categories and the
numbers of plates are those of the table first read, so they mean the same in every part of it.

Images are found by listing folders, one listing a plate and no look at any single file: 753,060 images lie in 204
folders. The bit mask ``present`` says which channels a site has.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import Any

import numpy as np
import pandas as pd

from rxrx_fast import listing
from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.layouts import WELL_TYPES, Layout, canonical_table, read_records
from rxrx_fast.rows import Rows

__all__ = ["Catalog"]

COLUMNS = (
    "site_id", "well_id", "cell_type", "split", "experiment", "plate", "well", "site", "well_type", "sirna",
    "sirna_id", "group", "present",
)  # fmt: skip
_CATEGORIES = ("experiment", "cell_type", "well", "well_type", "split")
_NUMBERS = ("plate", "site", "sirna_id", "group")
_LEVELS = ("global", "cell_type", "experiment", "plate", "site")


@dataclass(frozen=True)
class _Origin:
    """What every part of a catalog shares with the table first read."""

    sites: int
    plate_keys: np.ndarray  # sorted, one a plate: experiment code * plate_base + plate number
    plate_base: int
    numbers: Mapping[str, np.ndarray]  # the distinct values of the columns that hold numbers
    notes: tuple[str, ...]


class Catalog:
    """One table of sites and where their files are. Made by :meth:`read` and :meth:`from_frame`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a site. The index, ``site_index``, is int64 and unique, and filtering keeps it. Columns:

        ============== ======== ==================================================================================
        ``site_id``    str      ``HEPG2-01_1_B03_1``
        ``well_id``    str      ``HEPG2-01_1_B03``
        ``cell_type``  category ``HEPG2``, ``HUVEC``, ``RPE``, ``U2OS``
        ``split``      category ``train``, ``test``; WILDS: ``train``, ``val``, ``test``, ``id_test``
        ``experiment`` category ``HEPG2-01``
        ``plate``      int64    1 to 4
        ``well``       category ``B03``
        ``site``       int64    1 or 2 in RxRx1; nothing here relies on that
        ``well_type``  category ``treatment``, ``positive_control``, ``negative_control``
        ``sirna``      category name as the CSV has it (Kaggle 2019: the number); ``""`` where it is not known
        ``sirna_id``   int64    label: 0..1107 treatments, 1108..1137 positive controls, 1138 untreated; -1 unknown
        ``group``      int64    which set of treatments, never mixed with another on a plate, the plate carries: 0..3
                                in RxRx1, by the smallest label in them; -1 if no treatment of the plate is labelled
        ``present``    int64    bit ``c - 1`` is set if channel ``c`` was found on the disk; -1 if nothing was listed
        ============== ======== ==================================================================================

        Don't write to it: catalogs share it.
    layout : Layout
        How files are named: ``name``, ``path``, ``channels``, ``files_per_site``.
    root : str
        The absolute path of the folder read.
    """

    def __init__(self, table: pd.DataFrame, layout: Layout, root: str, origin: _Origin) -> None:
        self.table = table
        self.layout = layout
        self.root = root
        self._origin = origin
        self._files: listing.FileTable | None = None
        self._parts: dict[tuple[int, ...] | None, tuple[list[tuple[str, ...]], list[tuple[str, ...]]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # File names are quick to make again and large to send to a worker process.
        return self.__dict__ | {"_files": None, "_parts": {}}

    # ------------------------------------------------------------------------------------------------- making one

    @classmethod
    def read(cls, root: str | os.PathLike[str], *, list_images: bool = True, progress: bool = False) -> Catalog:
        """Read a data set, whichever of the layouts of :mod:`rxrx_fast.layouts` it has.

        Parameters
        ----------
        root : str or path
            The folder that holds ``metadata.csv`` (rxrx.ai, WILDS) or ``train.csv`` and ``test.csv`` (Kaggle).
        list_images : bool
            List the folders of images, to fill ``present`` and to find sites that no CSV names.
        progress : bool
            Show a progress bar on a terminal while folders are listed.

        Returns
        -------
        Catalog
            In the order of ``metadata.csv``, or for Kaggle by split, experiment, plate, well and site. Sites that
            only the disk knows come last, so that the labels of the others do not depend on the disk.

        Raises
        ------
        DataError
            The folder is missing, empty, a file or of no known layout; a CSV file is unreadable or lacks a column; a
            value would leave the root or contradicts another; a site is given twice. Messages name file and line.
        UsageError
            ``root`` is a URL.

        Notes
        -----
        What the CSV files don't tell. Those of rxrx.ai and WILDS list sites; those of Kaggle list wells: 62,755 in
        2019 and 62,759 in 2023, on the same 204 plates of 51 experiments. How many sites a well has, no Kaggle CSV
        says but ``pixel_stats.csv``. Where that file lies in the root, its pairs of ``id_code`` and ``site`` are the
        sites; otherwise sites 1 and 2 of every well are assumed. That gives 81,224 train and 44,286 test sites for
        2019, the true number of RxRx1, and 81,228 and 44,290 for 2023. The difference is 8 sites of 4 wells that only
        2023 has: HUVEC-06_1_B18 and RPE-04_3_E04 (train), HUVEC-18_3_D23 and RPE-09_2_J16 (test).
        Users report that images of them are missing; the listing says which, and :meth:`available` drops those sites.
        A site 3 found on the disk for a known Kaggle well is added. Nor do the Kaggle files tell the siRNAs of test
        treatments (their ``sirna_id`` is -1), and so the group of a test plate (-1).
        """
        root = _local_root(root)
        records = read_records(root)
        table = canonical_table(records.rows, records.splits)
        return cls._finish(table, records.layout, root, records.notes, list_images, progress, records.wells_only)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        path: str = "{experiment}/Plate{plate}/{well}_s{site}_w{channel}.tif",
        channels: int = 6,
        *,
        root: str | os.PathLike[str],
        list_images: bool = True,
        progress: bool = False,
    ) -> Catalog:
        """A catalog of another screen, from a table with one row a site.

        Parameters
        ----------
        frame : pandas.DataFrame
            Needs the columns that ``path`` uses. Canonical columns that it lacks are filled in: ``cell_type`` from the
            part of ``experiment`` before its last hyphen, ``sirna_id`` from a column ``label`` or -1, ``well_type``
            as treatment, ``plate`` and ``site`` as 1, texts as ``""``, ``site_id`` from experiment, plate, well and
            site. ``plate`` and ``site`` are whole numbers; put a plate's name in a column of your own. Other columns
            are kept, after the canonical ones.
        path : str
            Template of a file's path below ``root``; ``{channel}`` is the 1-based channel, and a format such as
            ``{channel:02d}`` is allowed. Without ``{channel}`` one file holds all channels.
        channels : int
            Channels of a site, 1 to 62.
        root : str or path
            The folder that the paths start from.
        list_images, progress : bool
            As for :meth:`read`.

        Raises
        ------
        UsageError
            The template is faulty or uses a column that ``frame`` lacks, or ``channels`` is out of range.
        DataError
            A value would leave the root or is of the wrong kind, or two rows are one site; the message gives the row,
            counted from 0.
        """
        root = _local_root(root)
        if not os.path.isdir(root):
            raise DataError(f"{root}: no such folder; give the folder that the paths of the images start from")
        if isinstance(channels, bool) or not isinstance(channels, (int, np.integer)) or not 1 <= channels <= 62:
            raise UsageError(f"channels={channels!r}: give the number of channels of a site, 1 to 62")
        columns = _template_columns(path, frame.columns)
        if not len(frame):
            raise DataError("the frame has no rows; give one row a site")
        columns_given = {name: _texts(frame[name], name in _NUMBERS) for name in COLUMNS if name in frame}
        given = pd.DataFrame(columns_given, index=pd.RangeIndex(len(frame)))
        for name in ("experiment", "well"):
            if name not in given:
                given[name] = ""
        for name in ("plate", "site"):
            if name not in given:
                given[name] = 1
        if "cell_type" not in given:
            given["cell_type"] = given["experiment"].map(lambda name: name.rpartition("-")[0])
        for name in ("split", "well_type", "sirna"):
            if name not in given:
                given[name] = ""
        if "sirna_id" not in given:
            given["sirna_id"] = _texts(frame["label"], True) if "label" in frame else -1
        extra = frame[[name for name in frame.columns if name not in COLUMNS]].reset_index(drop=True)
        for name in set(columns) & set(extra.columns):
            given[name] = extra[name]
        rows = Rows(given, ["frame"], np.zeros(len(given), dtype=np.int64), np.arange(len(given)), unit="row")
        table = canonical_table(rows, (), columns, rxrx1=False)
        for name in extra.columns:
            table[name] = extra[name]
        layout = Layout("custom", path, int(channels))
        _check_paths(root, layout, table, rows)
        return cls._finish(table, layout, root, [], list_images, progress, False)

    @classmethod
    def _finish(
        cls,
        table: pd.DataFrame,
        layout: Layout,
        root: str,
        notes: Iterable[str],
        list_images: bool,
        progress: bool,
        wells_only: bool,
    ) -> Catalog:
        """List the images, add what needs the whole table, and put the columns in order."""
        notes = list(notes)
        table["present"] = np.int64(-1)
        if list_images:
            table = listing.list_images(table, layout, root, notes, progress, wells_only)
        base = int(table["plate"].max()) + 1
        key = table["experiment"].cat.codes.to_numpy(dtype=np.int64) * base + table["plate"].to_numpy()
        plate_keys, plate = np.unique(key, return_inverse=True)
        treated = (table["well_type"] == WELL_TYPES[0]).to_numpy()
        table["group"] = _plate_groups(plate, table["sirna_id"].to_numpy(), treated)
        table = table[[*COLUMNS, *(name for name in table.columns if name not in COLUMNS)]]
        numbers = {name: np.unique(table[name].to_numpy()) for name in _NUMBERS}
        return cls(table, layout, root, _Origin(len(table), plate_keys, base, numbers, tuple(notes)))

    # -------------------------------------------------------------------------------------------------- narrowing

    def take(self, positions: Sequence[int] | np.ndarray) -> Catalog:
        """The sites at these positions (0 to ``len(self) - 1``), in this order.

        Parameters
        ----------
        positions : sequence of int, shape (n,)
            As for ``DataFrame.iloc``.
        """
        return Catalog(self.table.iloc[_positions(positions)], self.layout, self.root, self._origin)

    def split(self, name: str) -> Catalog:
        """The sites of one split, for instance ``"train"``. Raises UsageError for a name that the layout lacks."""
        return self.where(split=name)

    def where(self, **conditions: object) -> Catalog:
        """The sites whose columns have the given values: ``where(cell_type="HUVEC", plate=[1, 2])``.

        Parameters
        ----------
        **conditions : value or list of values
            By column of the table. All conditions hold at once; one of a list's values is enough.

        Returns
        -------
        Catalog
            Possibly empty: a value that occurs in the table first read, but not in this part of it, matches nothing.

        Raises
        ------
        UsageError
            A column or a value that does not exist; the message lists those that do.
        """
        keep = np.ones(len(self), dtype=bool)
        for column, wanted in conditions.items():
            if column not in self.table:
                raise UsageError(f"no column {column!r}; choose from {', '.join(self.table.columns)}")
            listed = isinstance(wanted, Iterable) and not isinstance(wanted, (str, bytes))
            values = list(wanted) if listed else [wanted]
            known = self._known(column)
            lookup = set(known)
            # True equals 1, but who asks for plate True has made a mistake.
            flags = pd.api.types.is_bool_dtype(self.table[column].dtype)
            for value in values:
                mistaken = isinstance(value, (bool, np.bool_)) and not flags
                if mistaken or not isinstance(value, Hashable) or value not in lookup:
                    choices = ", ".join(str(name) for name in known[:20])
                    more = f" and {len(known) - 20:,} more" if len(known) > 20 else ""
                    raise UsageError(f"no {column} {value!r}; choose from {choices or 'nothing: it is empty'}{more}")
            keep &= self.table[column].isin(values).to_numpy()
        return self.take(np.flatnonzero(keep))

    def available(self, channels: Sequence[int] | None = None) -> Catalog:
        """The complete sites: those whose images of these channels were all found.

        Parameters
        ----------
        channels : sequence of int, optional
            1-based channels that are needed; all of them by default.

        Raises
        ------
        DataError
            No images were found or listed, so that nothing is known of any site.
        """
        wanted = self._mask(channels)
        present = self._listed()
        return self.take(np.flatnonzero((present & wanted) == wanted))

    # ------------------------------------------------------------------------------------------------ what it holds

    def __len__(self) -> int:
        """Number of sites."""
        return len(self.table)

    def __repr__(self) -> str:
        _, _, complete = self._counts()
        images = "images not listed" if complete is None else f"{complete:,} complete"
        return f"<Catalog {self.layout.name} at {self.root}: {len(self):,} sites, {images}>"

    @property
    def categories(self) -> dict[str, list[str]]:
        """Names by code, for the columns experiment, cell_type, well, well_type and split; the same in every part."""
        return {name: list(self.table[name].cat.categories) for name in _CATEGORIES}

    @property
    def labels(self) -> np.ndarray:
        """The label of each site: int64, shape (len(self),), -1 where it is not known."""
        return self.table["sirna_id"].to_numpy(dtype=np.int64)

    def codes(self) -> dict[str, np.ndarray]:
        """What travels with a batch.

        Returns
        -------
        dict of str to ndarray of int64, shape (len(self),)
            ``site_index``, ``plate`` and ``site`` as they are; ``experiment``, ``well``, ``cell_type`` and
            ``well_type`` as positions in :attr:`categories`.
        """
        numbers = {name: self.table[name].to_numpy(dtype=np.int64) for name in ("plate", "site")}
        names = ("experiment", "well", "cell_type", "well_type")
        coded = {name: self.table[name].cat.codes.to_numpy(dtype=np.int64) for name in names}
        every = {"site_index": self.table.index.to_numpy(dtype=np.int64)} | numbers | coded
        order = ("site_index", "experiment", "plate", "well", "site", "cell_type", "well_type")
        return {name: every[name] for name in order}

    def plate_keys(self) -> tuple[np.ndarray, list[str]]:
        """The plate of each site as a dense number, and the plates' names: ``group_keys("plate")``."""
        return self.group_keys("plate")

    def group_keys(self, level: str) -> tuple[np.ndarray, list[str]]:
        """Which group of sites each site belongs to, for statistics at that level.

        Parameters
        ----------
        level : str
            ``"global"``, ``"cell_type"``, ``"experiment"``, ``"plate"`` or ``"site"``.

        Returns
        -------
        codes : ndarray of int64, shape (len(self),)
            Positions in ``names``. They are those of the table first read, in every part of it.
        names : list of str
            ``["all"]``, cell types, experiments, plates as ``HEPG2-01/1``, or site_ids. Names of sites that are not
            in this part are ``""``.
        """
        table, origin = self.table, self._origin
        if level == "global":
            return np.zeros(len(table), dtype=np.int64), ["all"]
        if level in ("cell_type", "experiment"):
            return table[level].cat.codes.to_numpy(dtype=np.int64), list(table[level].cat.categories)
        if level == "plate":
            experiments = table["experiment"].cat
            key = experiments.codes.to_numpy(dtype=np.int64) * origin.plate_base + table["plate"].to_numpy()
            names = [f"{experiments.categories[k // origin.plate_base]}/{k % origin.plate_base}"
                     for k in origin.plate_keys.tolist()]  # fmt: skip
            return np.searchsorted(origin.plate_keys, key).astype(np.int64), names
        if level == "site":
            codes = table.index.to_numpy(dtype=np.int64)
            names = [""] * origin.sites
            for code, name in zip(codes.tolist(), table["site_id"].tolist(), strict=True):
                names[code] = name
            return codes, names
        raise UsageError(f"no level {level!r}; choose from {', '.join(_LEVELS)}")

    # ------------------------------------------------------------------------------------------------------- files

    def files(self, rows: Sequence[int] | np.ndarray, channels: Sequence[int] | None = None) -> list[tuple[str, ...]]:
        """The absolute paths of the files of some sites, whether the files exist or not.

        Parameters
        ----------
        rows : sequence of int, shape (n,)
            Positions in the table, as for ``DataFrame.iloc``.
        channels : sequence of int, optional
            1-based channels, in the order wanted; all by default. Where one file holds all channels, it is given once.

        Returns
        -------
        list of tuple of str, length n
            The files of each site, one a channel.
        """
        if self._files is None:
            self._files = listing.FileTable(self.root, self.layout, self.table)
        key = None if channels is None else tuple(channels)
        if key not in self._parts:
            self._parts[key] = self._files.parts(self._files_wanted(key))
        folders, names = self._parts[key]
        folder_of, name_of = self._files.folder_of, self._files.name_of
        return [tuple(map(add, folders[folder_of[row]], names[name_of[row]])) for row in _positions(rows).tolist()]

    def _files_wanted(self, channels: tuple[int, ...] | None) -> list[int]:
        if channels is None:
            return list(range(self.layout.files_per_site))
        self._mask(channels)  # refuses channels that don't exist
        return [c - 1 for c in channels] if self.layout.files_per_site > 1 else [0]

    # --------------------------------------------------------------------------------------------------- completeness

    def faults(self) -> pd.DataFrame:
        """The incomplete sites, of which some channels are present and others not.

        Returns
        -------
        pandas.DataFrame
            Columns ``site_id``, ``present`` (bit mask) and ``missing`` (str, such as ``"5,6"``), index ``site_index``.
            Sites without any image are not in it.

        Raises
        ------
        DataError
            No images were found or listed.
        """
        present, full = self._listed(), self._mask(None)
        found = self.table.loc[(present > 0) & (present != full), ["site_id", "present"]].copy()
        texts = {mask: ",".join(str(c) for c in self._missing(mask)) for mask in found["present"].unique().tolist()}
        found["missing"] = found["present"].map(texts)
        return found

    def summary(self) -> str:
        """What the catalog holds and what it lacks, for people: several lines of text."""
        table = self.table
        _, plates = np.unique(self.plate_keys()[0], return_counts=True)
        lines = [
            f"{self.layout.name} at {self.root}",
            f"{len(table):,} sites of {table['well_id'].nunique():,} wells on {len(plates):,} plates of "
            f"{table['experiment'].nunique():,} experiments; {int((self.labels >= 0).sum()):,} labelled",
        ]
        for name in self.categories["split"]:
            part = table[table["split"] == name]
            if len(part):
                known = int((part["sirna_id"] >= 0).sum())
                wells = part["well_id"].nunique()
                lines.append(f"  {name or 'no split'}: {len(part):,} sites of {wells:,} wells, {known:,} labelled")
        absent, incomplete, complete = self._counts()
        if complete is None:
            lines.append("images: none listed; this is metadata only")
        else:
            lines.append(f"images: complete {complete:,}, incomplete {incomplete:,}, absent {absent:,} sites")
            for missing, part in self.faults().groupby("missing"):
                first = ", ".join(part["site_id"].head(3)) + (", ..." if len(part) > 3 else "")
                lines.append(f"  without channel {missing}: {len(part):,} ({first})")
        return "\n".join([*lines, *(f"note: {note}" for note in self._origin.notes)])

    def _counts(self) -> tuple[int, int, int | None]:
        """Sites absent, incomplete and complete; None as the last if nothing was listed."""
        present = self.table["present"].to_numpy()
        if (present < 0).any():
            return 0, 0, None
        absent, complete = int((present == 0).sum()), int((present == self._mask(None)).sum())
        return absent, len(present) - absent - complete, complete

    def _listed(self) -> np.ndarray:
        present = self.table["present"].to_numpy()
        if (present < 0).any():
            raise DataError(
                f"no images were found under {self.root}: the catalog holds metadata only; put the images there, or "
                f"read it again with list_images=True"
            )
        return present

    def _mask(self, channels: Sequence[int] | None) -> int:
        count = self.layout.channels
        if channels is None:
            return (1 << count) - 1
        whole = all(isinstance(c, (int, np.integer)) and not isinstance(c, bool) for c in channels)
        if not len(channels) or not whole or not all(1 <= channel <= count for channel in channels):
            raise UsageError(f"channels={tuple(channels)}: choose from 1 to {count}")
        return sum({1 << (int(channel) - 1) for channel in channels})

    def _missing(self, present: int) -> list[int]:
        return [channel for channel in range(1, self.layout.channels + 1) if not present >> (channel - 1) & 1]

    def _known(self, column: str) -> Sequence[object]:
        """The values of a column, in the table first read where it is known."""
        if column in self._origin.numbers:
            return self._origin.numbers[column].tolist()
        series = self.table[column]
        return list(series.cat.categories) if isinstance(series.dtype, pd.CategoricalDtype) else list(series.unique())


# ---------------------------------------------------------------------------------------------------------- helpers


def _positions(rows: Sequence[int] | np.ndarray) -> np.ndarray:
    positions = np.asarray(rows)
    if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
        raise UsageError(f"give positions as one list of whole numbers, not {positions.dtype} {positions.shape}")
    return positions.astype(np.int64, copy=False)


def _local_root(root: str | os.PathLike[str]) -> str:
    text = os.fspath(root)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise UsageError(f"{text}: a catalog can be read from a local folder only; copy or mount the data")
    if not text or "\0" in text:
        raise UsageError(f"root={text!r}: give the path of a folder")
    return os.path.abspath(os.path.expanduser(text))


def _texts(series: pd.Series, numbers: bool) -> pd.Series:
    """Values as a CSV file would give them, as text and ``""`` where missing; whole numbers stay if ``numbers``."""
    if numbers and pd.api.types.is_integer_dtype(series.dtype) and not series.hasnans:
        return series.reset_index(drop=True).astype(np.int64)
    codes, values = pd.factorize(series, use_na_sentinel=False)
    texts = np.array(["" if pd.isna(value) else str(value) for value in values], dtype=object)
    return pd.Series(texts[codes], dtype=object)


def _template_columns(path: str, columns: Iterable[str]) -> list[str]:
    """The columns that a template uses; UsageError if it is none, or leaves the root."""
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


def _plate_groups(plate: np.ndarray, label: np.ndarray, treated: np.ndarray) -> np.ndarray:
    """Number the sets of treatments that plates share, for each site.

    Plates and treatments are the two sides of a graph. Every plate takes the smallest treatment it carries, every
    treatment the smallest of its plates, until nothing changes; what is left is the smallest of each component.
    """
    edge = treated & (label >= 0)
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


def _check_paths(root: str, layout: Layout, table: pd.DataFrame, rows: Rows) -> None:
    """Refuse a template of the user's that two sites share, or that a format such as ``{a:.1}`` leads out of root."""
    try:
        files = listing.FileTable(root, layout, table)
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
