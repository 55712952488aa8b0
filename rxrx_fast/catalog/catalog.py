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
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rxrx_fast.catalog.frames import read_frame
from rxrx_fast.catalog.layouts import Layout, read_records
from rxrx_fast.catalog.listing import FileTable, list_images
from rxrx_fast.catalog.origin import Origin, treatment_groups
from rxrx_fast.catalog.presence import Presence
from rxrx_fast.catalog.summary import summary
from rxrx_fast.catalog.table import COLUMNS, canonical_table
from rxrx_fast.errors import UsageError

__all__ = ["Catalog"]

_CATEGORIES = ("experiment", "cell_type", "well", "well_type", "split")


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

    def __init__(self, table: pd.DataFrame, layout: Layout, root: str, origin: Origin) -> None:
        self.table = table
        self.layout = layout
        self.root = root
        self._origin = origin
        self._files: FileTable | None = None

    def __getstate__(self) -> dict[str, Any]:
        # File names are quick to make again and large to send to a worker process.
        return self.__dict__ | {"_files": None}

    # ------------------------------------------------------------------------------------------------- making one

    @classmethod
    def read(cls, root: str | os.PathLike[str], *, list_images: bool = True, progress: bool = False) -> Catalog:
        """Read a data set, whichever of the layouts of :mod:`rxrx_fast.catalog.layouts` it has.

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
        table, layout = read_frame(frame, path, channels, root)
        return cls._finish(table, layout, root, [], list_images, progress, False)

    @classmethod
    def _finish(
        cls,
        table: pd.DataFrame,
        layout: Layout,
        root: str,
        notes: Iterable[str],
        listed: bool,
        progress: bool,
        wells_only: bool,
    ) -> Catalog:
        """List the images, add what needs the whole table, and put the columns in order."""
        notes = list(notes)
        table["present"] = np.int64(-1)
        if listed:
            table = list_images(table, layout, root, notes, progress, wells_only)
        table["group"] = treatment_groups(table)
        table = table[[*COLUMNS, *(name for name in table.columns if name not in COLUMNS)]]
        return cls(table, layout, root, Origin.of(table, notes))

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
            self._origin.refuse_unknown(self.table, column, values)
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
        wanted = self._presence.mask(channels)
        return self.take(np.flatnonzero((self._presence.masks() & wanted) == wanted))

    # ------------------------------------------------------------------------------------------------ what it holds

    def __len__(self) -> int:
        """Number of sites."""
        return len(self.table)

    def __repr__(self) -> str:
        images = f"{self._presence.counts()[-1]:,} complete" if self._presence.listed else "images not listed"
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
        return self._origin.group_keys(self.table, level)

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
            self._files = FileTable(self.root, self.layout, self.table)
        if channels is None:
            wanted = range(self.layout.files_per_site)
        else:
            self._presence.mask(channels)  # refuses channels that don't exist
            wanted = [channel - 1 for channel in channels] if self.layout.files_per_site > 1 else [0]
        return self._files.paths(_positions(rows).tolist(), tuple(wanted))

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
        return self._presence.incomplete()

    def summary(self) -> str:
        """What the catalog holds and what it lacks, for people: several lines of text."""
        return summary(self, self._presence, self._origin.notes)

    @property
    def _presence(self) -> Presence:
        return Presence(self.table, self.layout.channels, self.root)


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
