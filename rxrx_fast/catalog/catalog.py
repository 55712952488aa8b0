"""The catalog: one table with a row a site, read from any layout, and the names of each site's files.

A catalog is read once and then only narrowed: :meth:`Catalog.split`, :meth:`Catalog.where`, :meth:`Catalog.available`
and :meth:`Catalog.take` return a catalog again. Row labels, codes of categories and numbers of plates are those of the
table first read, so they mean the same in every part of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from rxrx_fast.catalog.completion import complete_table
from rxrx_fast.catalog.file_table import FileTable
from rxrx_fast.catalog.layout import Layout
from rxrx_fast.catalog.layouts.custom import read_frame
from rxrx_fast.catalog.origin import Origin
from rxrx_fast.catalog.presence import Presence
from rxrx_fast.catalog.recognition import read_root
from rxrx_fast.catalog.root import local_path
from rxrx_fast.catalog.summary import summary
from rxrx_fast.catalog.table import canonical_table, row_positions

__all__ = ["Catalog"]

_CATEGORIES = ("experiment", "cell_type", "well", "well_type", "split")


class Catalog:
    """One table of sites, and where their files are. Made by :meth:`read` and :meth:`from_frame`.

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
        ``group``      int64    which set of treatments the plate carries. Sets are disjoint, 0..3 in RxRx1, numbered by
                                their smallest label; -1 if no treatment of the plate is labelled
        ``present``    int64    bit ``c - 1`` is set if channel ``c`` was found on the disk; -1 if nothing was listed
        ============== ======== ==================================================================================

        Don't write to it: catalogs share it.
    layout : Layout
        How files are named: ``name``, ``path``, ``channels``, ``files_per_site``.
    root : str
        The absolute path of the folder read.

    Examples
    --------
    >>> catalog = rx.Catalog.read(root)
    >>> len(catalog), catalog.layout.name
    (48, 'rxrx.ai')
    >>> catalog.table[["site_id", "cell_type", "well_type", "sirna_id"]].head(2)
                         site_id cell_type         well_type  sirna_id
    site_index
    0           HUVEC-01_1_B02_1     HUVEC  negative_control      1138
    1           HUVEC-01_1_B02_2     HUVEC  negative_control      1138
    >>> catalog.categories["experiment"]
    ['HUVEC-01', 'HUVEC-17']
    """

    def __init__(self, table: pd.DataFrame, layout: Layout, root: str, origin: Origin) -> None:
        self.table = table
        self.layout = layout
        self.root = root
        self._origin = origin
        self._files: FileTable | None = None

    def __getstate__(self) -> dict[str, Any]:
        # File names are quick to make again, and large to send to a worker process.
        return self.__dict__ | {"_files": None}

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
            only the disk knows come last, so that row labels of the others don't depend on the disk.

        Raises
        ------
        DataError
            The folder is missing, empty, a file or of no known layout; a CSV file is unreadable or lacks a column; a
            value would leave the root or contradicts another; a site is given twice. Messages name file and line.
        UsageError
            ``root`` is a URL.

        Notes
        -----
        The CSV files of rxrx.ai and WILDS list sites, those of Kaggle list wells. What is assumed there, and how many
        sites result, is in :mod:`rxrx_fast.catalog.layouts.kaggle`.

        Examples
        --------
        >>> rx.Catalog.read(root)
        <Catalog rxrx.ai at ...: 48 sites, 48 complete>
        """
        root = local_path(root)
        layout, records = read_root(root)
        table = canonical_table(records.rows, records.splits)
        table, origin = complete_table(table, layout, root, records, list_images=list_images, progress=progress)
        return cls(table, layout, root, origin)

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
        """Make the catalog of another screen, from a table with one row a site.

        Parameters
        ----------
        frame : pandas.DataFrame
            Needs ``experiment``, ``well`` and the columns that ``path`` uses. Other canonical columns that it lacks
            are filled in: ``cell_type`` from the part of ``experiment`` before its last hyphen, ``sirna_id`` from a
            column ``label`` or -1, ``well_type`` as treatment, ``plate`` and ``site`` as 1, ``split`` and ``sirna`` as
            ``""``, ``site_id`` from experiment, plate, well and site. ``plate`` and ``site`` are whole numbers; put a
            plate's name in a column of your own. Such columns are kept, after the canonical ones.
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
            A value would leave the root or is of the wrong kind, or two rows are one site. The message gives the row,
            counted from 0.

        Examples
        --------
        >>> frame = pd.DataFrame({"experiment": "screen", "barcode": "P7", "well": ["A01", "A02"]})
        >>> rx.Catalog.from_frame(frame, "{barcode}/{well}_c{channel:02d}.tif", channels=5, root=root)
        <Catalog custom at ...: 2 sites, images not listed>
        """
        root = local_path(root)
        table, layout = read_frame(frame, path, channels, root)
        table, origin = complete_table(table, layout, root, list_images=list_images, progress=progress)
        return cls(table, layout, root, origin)

    def take(self, positions: Sequence[int] | np.ndarray) -> Catalog:
        """Select the sites at these positions, in this order.

        Parameters
        ----------
        positions : sequence of int, shape (n,)
            0 to ``len(self) - 1``, as for ``DataFrame.iloc``.
        """
        return Catalog(self.table.iloc[row_positions(positions)], self.layout, self.root, self._origin)

    def split(self, name: str) -> Catalog:
        """Select the sites of one split.

        Parameters
        ----------
        name : str
            ``"train"``, ``"test"``; WILDS also has ``"val"`` and ``"id_test"``.

        Raises
        ------
        UsageError
            The layout has no split of this name.

        Examples
        --------
        >>> len(rx.Catalog.read(root).split("train"))
        24
        """
        return self.where(split=name)

    def where(self, **conditions: object) -> Catalog:
        """Select the sites whose columns have the given values.

        Parameters
        ----------
        **conditions : value or list of values
            By column of the table. All conditions hold at once; one of a list's values is enough.

        Returns
        -------
        Catalog
            Possibly empty: a value may occur in the table first read and not in this part of it.

        Raises
        ------
        UsageError
            A column or a value that does not exist; the message lists those that do.

        Examples
        --------
        >>> catalog = rx.Catalog.read(root)
        >>> catalog.where(cell_type="HUVEC", plate=[1, 2], well_type="treatment")
        <Catalog rxrx.ai at ...: 32 sites, 32 complete>
        """
        return self.take(np.flatnonzero(self._origin.matches(self.table, conditions)))

    def available(self, channels: Sequence[int] | None = None) -> Catalog:
        """Select the complete sites: those whose images of these channels were all found.

        Parameters
        ----------
        channels : sequence of int, optional
            1-based channels that are needed; all of them by default.

        Raises
        ------
        DataError
            No images were found or listed, so nothing is known of any site.

        Examples
        --------
        >>> import os
        >>> catalog = rx.Catalog.read(root)
        >>> os.remove(catalog.files([0], channels=[6])[0][0])
        >>> catalog = rx.Catalog.read(root)
        >>> len(catalog.available()), len(catalog.available(channels=[1, 2, 3]))
        (47, 48)
        """
        wanted = self._presence.mask(channels)
        return self.take(np.flatnonzero((self._presence.masks() & wanted) == wanted))

    def __len__(self) -> int:
        """Return the number of sites."""
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
        """Return what travels with a batch.

        Returns
        -------
        dict of str to ndarray of int64, shape (len(self),)
            ``site_index``, ``plate`` and ``site`` as they are; ``experiment``, ``well``, ``cell_type`` and
            ``well_type`` as positions in :attr:`categories`.
        """
        codes: dict[str, np.ndarray] = {"site_index": self.table.index.to_numpy(dtype=np.int64)}
        for name in ("experiment", "plate", "well", "site", "cell_type", "well_type"):
            column = self.table[name] if name in ("plate", "site") else self.table[name].cat.codes
            codes[name] = column.to_numpy(dtype=np.int64)
        return codes

    def plate_keys(self) -> tuple[np.ndarray, list[str]]:
        """Return ``group_keys("plate")``: each site's plate as a number, and the plates' names."""
        return self.group_keys("plate")

    def group_keys(self, level: str) -> tuple[np.ndarray, list[str]]:
        """Return each site's group at one level as a number, and the groups' names.

        Parameters
        ----------
        level : str
            ``"global"``, ``"cell_type"``, ``"experiment"``, ``"plate"`` or ``"site"``.

        Returns
        -------
        codes : ndarray of int64, shape (len(self),)
            Positions in ``names``, the same in every part of the table first read.
        names : list of str
            ``["all"]``, cell types, experiments, plates as ``HEPG2-01/1``, or site_ids. Names of sites that are not
            in this part are ``""``.

        Raises
        ------
        UsageError
            There is no such level.

        Examples
        --------
        >>> codes, names = rx.Catalog.read(root).group_keys("plate")
        >>> names
        ['HUVEC-01/1', 'HUVEC-01/2', 'HUVEC-17/1', 'HUVEC-17/2']
        >>> codes[[0, 12, 47]]
        array([0, 1, 3])
        """
        return self._origin.group_keys(self.table, level)

    def files(self, rows: Sequence[int] | np.ndarray, channels: Sequence[int] | None = None) -> list[tuple[str, ...]]:
        """Return the absolute paths of the files of some sites, whether the files exist or not.

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

        Examples
        --------
        >>> rx.Catalog.read(root).files([0], channels=[1, 2])
        [('.../images/HUVEC-01/Plate1/B02_s1_w1.png', '.../images/HUVEC-01/Plate1/B02_s1_w2.png')]
        """
        if self._files is None:
            self._files = FileTable(self.root, self.layout, self.table)
        wanted = tuple(range(self.layout.files_per_site))
        if channels is not None:
            self._presence.mask(channels)  # refuses channels that don't exist
            if self.layout.files_per_site > 1:
                wanted = tuple(channel - 1 for channel in channels)
        return self._files.paths(row_positions(rows).tolist(), wanted)

    def faults(self) -> pd.DataFrame:
        """List the incomplete sites: some of their channels are present and others not.

        Returns
        -------
        pandas.DataFrame
            Columns ``site_id``, ``present`` (bit mask) and ``missing`` (str, such as ``"5,6"``), index ``site_index``.
            Sites without any image are left out.

        Raises
        ------
        DataError
            No images were found or listed.
        """
        return self._presence.incomplete()

    def summary(self) -> str:
        """Describe in several lines of text what the catalog holds and what it lacks.

        Examples
        --------
        >>> print(rx.Catalog.read(root).summary())
        rxrx.ai at ...
        48 sites of 24 wells on 4 plates of 2 experiments; 48 labelled
          train: 24 sites of 12 wells, 24 labelled
          test: 24 sites of 12 wells, 24 labelled
        images: complete 48, incomplete 0, absent 0 sites
        """
        return summary(self, self._presence, self._origin.notes)

    @property
    def _presence(self) -> Presence:
        return Presence(self.table, self.layout.channels, self.root)
