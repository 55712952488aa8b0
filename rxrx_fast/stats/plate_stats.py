"""The statistics of a catalog's pixels: histograms by plate and channel.

The histogram is the statistic. Counts add up over sites, workers and machines without rounding, so statistics fitted
in parts and merged equal those fitted at once, bit for bit. 16-bit pixels are counted in bins, beside exact sums:
:mod:`rxrx_kernels.histogram.uint16` says which statistics of them are exact.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from rxrx_kernels.histogram import uint8 as moments
from rxrx_kernels.histogram.uint16 import BINS16, Histogram, coarsened

from rxrx_fast.catalog import Catalog
from rxrx_fast.catalog.table import WELL_TYPES
from rxrx_fast.errors import DataError
from rxrx_fast.stats import file
from rxrx_fast.stats.data_frame import data_frame, extremes
from rxrx_fast.stats.fitting import fit, fit_beside
from rxrx_fast.stats.illumination import block_shift, illumination_factors
from rxrx_fast.stats.merging import merge
from rxrx_fast.stats.normalize import Normalize
from rxrx_fast.stats.normalizer import Normalizer, group_rows, make_normalizer

__all__ = ["SITE_MOMENTS", "PlateStats"]

#: Kept of each site and channel.
SITE_MOMENTS = ("mean", "std", "median", "min", "max")


class PlateStats:
    """Histograms of each plate and well type, and the moments of each site. Made by :meth:`fit` and :meth:`load`.

    Parameters
    ----------
    channels : int
        Channels of a site.
    bits : {8, 16}
        Bits of a pixel.

    Attributes
    ----------
    plates : list of str, length P
        Names such as "HEPG2-01/1".
    cell_types, experiments : list of str, length P
        Those of each plate.
    counts : (P, 3, C, 256) int64, or with 16 bits (P, 3, C, 4096)
        Pixels by plate, well type (treatment, positive control, negative control), channel and value. With 16 bits by
        bins of ``1 << bin_shift`` values: 1 while no pixel passes 4095, and at most 16.
    bin_shift : int
        Binary logarithm of the bins' width.
    sums : (P, 3, C, 4) int64
        With 16 bits, the exact sums of :class:`rxrx_kernels.histogram.uint16.Histogram`; zeros with 8.
    image_size : (int, int) or None
        (height, width) of the images in pixels; None before the first.
    block_sums : (P, C, GH, GW) int64
        Sums of the pixels of square blocks, at most 32 on a side, over a plate's sites.
    sites : pandas.DataFrame
        One row a site: site_id, well, plate (position in ``plates``), kind (0 to 2, of its well type).
    moments : dict of (S, C) arrays
        mean, std (ddof=0), median float64; min, max uint8 or uint16.
    faults : list of (str, str, str)
        Sites that could not be read: site_id, path, reason.

    Examples
    --------
    >>> catalog = rx.Catalog.read(root)
    >>> stats = rx.PlateStats.fit(catalog)
    >>> stats
    PlateStats(48 sites on 4 plates, 6 channels)
    >>> center, scale = stats.normalizer(rx.Normalize(level="plate"), catalog)[1:3]
    >>> center.shape
    (4, 6)
    """

    def __init__(self, channels: int, bits: int = 8):
        self.channels, self.bits, self.bin_shift = int(channels), int(bits), 0
        self.plates: list[str] = []
        self.cell_types: list[str] = []
        self.experiments: list[str] = []
        bins = moments.BINS if bits == 8 else BINS16
        self.counts = np.zeros((0, len(WELL_TYPES), self.channels, bins), np.int64)
        self.sums = np.zeros((0, len(WELL_TYPES), self.channels, 4), np.int64)
        self.image_size: tuple[int, int] | None = None
        self.block_sums = np.zeros((0, self.channels, 0, 0), np.int64)
        self.sites = pd.DataFrame(
            {
                "site_id": pd.Series(dtype=str),
                "well": pd.Series(dtype=str),
                "plate": np.zeros(0, int),
                "kind": np.zeros(0, int),
            }
        )
        self.moments = {name: np.zeros((0, self.channels), self._dtype(name)) for name in SITE_MOMENTS}
        self.faults: list[tuple[str, str, str]] = []

    def _dtype(self, moment: str) -> np.dtype:
        return np.dtype(f"u{self.bits // 8}" if moment in ("min", "max") else np.float64)

    def __len__(self) -> int:
        return len(self.sites)

    def __repr__(self) -> str:
        return f"PlateStats({len(self)} sites on {len(self.plates)} plates, {self.channels} channels)"

    @classmethod
    def fit(
        cls,
        catalog: Catalog,
        *,
        path: str | os.PathLike[str] | None = None,
        num_threads: int | None = None,
        batch_size: int = 32,
        on_error: str = "raise",
        quiet: bool = False,
    ) -> PlateStats:
        """Count every complete site of a catalog, once, in parallel.

        Parameters
        ----------
        catalog : Catalog
        path : path, optional
            Where to save. The sites of a file that is already there are not counted again. The file is saved every
            minute and when interrupted, so a second call goes on from there.
        num_threads : int, optional
            By default one for each core.
        batch_size : int
            Sites that are decoded together.
        on_error : {"raise", "skip"}
            With "skip", sites that can't be read are listed in ``faults``.
        quiet : bool
            Show no progress bar.

        Raises
        ------
        SiteError
            At the first site that can't be read, with ``on_error="raise"``.
        DataError
            The file at ``path`` holds other statistics, or can't be written.

        Examples
        --------
        >>> rx.PlateStats.fit(rx.Catalog.read(root).split("train"))
        PlateStats(24 sites on 2 plates, 6 channels)
        """
        return fit(
            cls, catalog, path=path, num_threads=num_threads, batch_size=batch_size, on_error=on_error, quiet=quiet
        )

    @classmethod
    def beside(cls, catalog: Catalog) -> PlateStats:
        """Load a data set's own statistics, from where :func:`default_path` says; fit them if they are not there."""
        return fit_beside(cls, catalog)

    def fix_size(self, image_size: tuple[int, int]) -> None:
        """Set the (height, width) of the images; DataError if images of another size were counted."""
        height, width = (int(side) for side in image_size)
        if self.image_size is None:
            self.image_size = height, width
            image = np.zeros((1, height, width), np.uint8)
            blocks = moments.block_sums(image, block_shift(self.image_size)).shape
            self.block_sums = np.zeros((len(self.plates), self.channels, *blocks[1:]), np.int64)
        elif self.image_size != (height, width):
            raise DataError(f"statistics of {self.image_size} and of {height, width} pixels can't go together")

    def add(
        self,
        rows: pd.DataFrame,
        plates: Sequence[str],
        kinds: np.ndarray,
        counts: np.ndarray | Histogram,
        block_sums: np.ndarray,
    ) -> None:
        """Add N sites that are not counted yet; call :meth:`fix_size` before.

        Parameters
        ----------
        rows : pandas.DataFrame
            The sites' rows of a catalog's table.
        plates : (N,) list of str
            Names such as "HEPG2-01/1".
        kinds : (N,) int64
            Well types, 0 to 2.
        counts : (N, C, 256) int64, or with 16 bits a Histogram
        block_sums : (N, C, GH, GW) int64
            As the attribute.
        """
        codes = self.plate_codes(plates, rows["cell_type"].astype(str), rows["experiment"].astype(str))
        histogram = Histogram.of(counts)
        self.coarsen(int(histogram.shift.max(initial=0)))
        np.add.at(self.counts, (codes, kinds), coarsened(histogram.counts, histogram.shift, self.bin_shift))
        if histogram.sums is not None:
            np.add.at(self.sums, (codes, kinds), histogram.sums)
        np.add.at(self.block_sums, codes, block_sums)
        names = {name: rows[name].astype(str).to_numpy() for name in ("site_id", "well")}
        sites = pd.DataFrame({**names, "plate": codes, "kind": kinds})
        self.sites = pd.concat([self.sites, sites], ignore_index=True)
        mean, std = histogram.mean_std()
        if histogram.least is None or histogram.most is None:
            least, most = extremes(histogram.counts)
        else:
            least, most = histogram.least, histogram.most
        found = {"mean": mean, "std": std, "median": histogram.quantile(0.5), "min": least, "max": most}
        for name in SITE_MOMENTS:
            self.moments[name] = np.concatenate([self.moments[name], found[name].astype(self._dtype(name))])

    def plate_codes(self, plates: Sequence[str], cell_types: Iterable[str], experiments: Iterable[str]) -> np.ndarray:
        """Return positions in the attribute ``plates``, (N,) int64; new plates are appended, with empty counts."""
        index = {name: i for i, name in enumerate(self.plates)}
        for name, cell_type, experiment in zip(plates, cell_types, experiments):
            if name not in index:
                index[name] = len(self.plates)
                self.plates.append(name)
                self.cell_types.append(cell_type)
                self.experiments.append(experiment)
        new = len(self.plates) - len(self.counts)
        for name in ("counts", "sums", "block_sums") if new else ():
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros((new, *array.shape[1:]), np.int64)]))
        return np.array([index[name] for name in plates], np.int64)

    def coarsen(self, bin_shift: int) -> None:
        """Widen the bins to ``1 << bin_shift`` grey values, if they are narrower."""
        if bin_shift > self.bin_shift:
            self.counts = coarsened(self.counts, np.array(self.bin_shift), bin_shift)
            self.bin_shift = bin_shift

    def histogram(self, plates: np.ndarray, kinds: Sequence[int]) -> Histogram:
        """Sum the counts of these plates and well types, for (C,) channels."""
        counts, sums = (array[np.ix_(plates, np.array(kinds))].sum((0, 1)) for array in (self.counts, self.sums))
        return Histogram(counts, np.full(self.channels, self.bin_shift), sums if self.bits == 16 else None)

    def merge(self, other: PlateStats) -> PlateStats:
        """Add up statistics of disjoint sites, as if they had been fitted together.

        Parameters
        ----------
        other : PlateStats

        Returns
        -------
        PlateStats
            New ones; neither part changes.

        Raises
        ------
        DataError
            A site was counted in both, or the numbers of channels, of bits or the sizes of images differ.

        Examples
        --------
        >>> catalog = rx.Catalog.read(root)
        >>> parts = [rx.PlateStats.fit(catalog.split(name)) for name in ("train", "test")]
        >>> parts[0].merge(parts[1])
        PlateStats(48 sites on 4 plates, 6 channels)
        """
        return merge(PlateStats, self, other)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to an ``.npz`` file, in one step: a reader sees the old file or the new one, never half of one.

        Parameters
        ----------
        path : path

        Raises
        ------
        DataError
            The file can't be written; an older one is then untouched.

        Examples
        --------
        >>> rx.PlateStats.fit(rx.Catalog.read(root)).save("stats.npz")
        >>> rx.PlateStats.load("stats.npz")
        PlateStats(48 sites on 4 plates, 6 channels)
        """
        file.write(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PlateStats:
        """Read what :meth:`save` wrote. Nothing in the file is executed.

        Parameters
        ----------
        path : path

        Raises
        ------
        DataError
            The file is missing, holds something else, or is of another version.

        Examples
        --------
        >>> rx.PlateStats.fit(rx.Catalog.read(root), path="stats.npz").save("copy.npz")
        >>> rx.PlateStats.load("copy.npz").plates
        ['HUVEC-01/1', 'HUVEC-01/2', 'HUVEC-17/1', 'HUVEC-17/2']
        """
        return file.read(path, cls)

    def normalizer(self, normalize: Normalize, catalog: Catalog) -> Normalizer:
        """Compute what normalises each site of a catalog.

        Raises
        ------
        DataError
            A group of the catalog was not counted, or no level has enough wells of the wanted kind.
        """
        return make_normalizer(self, normalize, catalog)

    def illumination(self, catalog: Catalog) -> tuple[np.ndarray, np.ndarray, int]:
        """Estimate each plate's uneven illumination from the mean of its images, and return factors that undo it.

        Cells average out over a plate's wells; the illumination remains (as in Smith et al., "CIDRE", Nature Methods
        2015, and Peng et al., "BaSiC", Nature Communications 2017). Dark current is not modelled.

        Returns
        -------
        plates : (N,) int64
            Row of ``factors`` for each site of the catalog.
        factors : (P, C, GH, GW) float32
        block_shift : int
            See :func:`rxrx_fast.stats.illumination.illumination_factors`.
        """
        if self.image_size is None:
            raise DataError("the statistics hold no site: fit them over this catalog")
        return group_rows(self.plates, "plate", catalog), *illumination_factors(self.block_sums, self.image_size)

    def groups(self, level: str) -> tuple[list[str], list[np.ndarray]]:
        """List a level's groups and the plates of each.

        Parameters
        ----------
        level : {"global", "cell_type", "experiment", "plate"}

        Returns
        -------
        names : list of str
        plates : list of ndarray of int64
            Positions in the attribute ``plates``.
        """
        of_plate = {
            "plate": self.plates,
            "experiment": self.experiments,
            "cell_type": self.cell_types,
            "global": ["all"] * len(self.plates),
        }[level]
        names = list(dict.fromkeys(of_plate))
        keys = np.array(of_plate, dtype=object)
        return names, [np.flatnonzero(keys == name) for name in names]

    def frame(self, level: str = "plate") -> pd.DataFrame:
        """Return the statistics as a table, one row for each group and channel.

        Parameters
        ----------
        level : {"global", "cell_type", "experiment", "plate", "site"}

        Returns
        -------
        pandas.DataFrame
            Columns: the level's name, channel (from 1), sites, mean, std (ddof=0), median, min, max; and mad
            (unscaled) unless the level is "site".

        Examples
        --------
        >>> table = rx.PlateStats.fit(rx.Catalog.read(root)).frame("experiment")
        >>> table[["experiment", "channel", "sites", "min"]].head(2)
          experiment  channel  sites  min
        0   HUVEC-01        1     24    0
        1   HUVEC-01        2     24    3
        """
        return data_frame(self, level)
