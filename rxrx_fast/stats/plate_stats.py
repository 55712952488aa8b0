"""PlateStats: additive histograms by plate and channel, and every normalisation that follows from them.

The histogram is the statistic: counts add up over sites, workers and machines without rounding, so statistics fitted
in parts and merged equal those fitted at once, bit for bit. Those of 16-bit pixels go by bins, beside sums that are
exact: see :mod:`rxrx_kernels.histogram.uint16` for what that means for each statistic.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from rxrx_kernels.histogram import uint8 as moments
from rxrx_kernels.histogram.uint16 import BINS16, Histogram, coarsened

from rxrx_fast.catalog.table import WELL_TYPES
from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.stats import file
from rxrx_fast.stats.counting import bits_of, count
from rxrx_fast.stats.frame import extremes, frame
from rxrx_fast.stats.illumination import block_shift, light_factors
from rxrx_fast.stats.normalize import Normalize
from rxrx_fast.stats.normalizer import Normalizer, normalizer, rows_of

__all__ = ["PlateStats"]

_SITE_FIELDS = ("mean", "std", "median", "min", "max")


class PlateStats:
    """Histograms of each plate and kind of well, and the moments of each site.

    Attributes
    ----------
    plates : list of str
        Names such as "HEPG2-01/1".
    cell_types, experiments : list of str
        Of each plate.
    bits : int
        8 or 16, of the pixels.
    counts : (P, 3, C, 256) int64, or (P, 3, C, 4096)
        Pixels by plate, kind of well (treatment, positive control, negative control), channel and value; with 16 bits
        by bins of ``1 << shift`` values: 1 while no pixel passes 4095, and at most 16.
    shift : int
    sums : (P, 3, C, 4) int64
        With 16 bits, the exact sums of :class:`rxrx_kernels.histogram.uint16.Histogram`; zeros with 8.
    field : (P, C, GH, GW) int64
        Sums of the pixels of square blocks, at most 32 on a side, over a plate's sites.
    sites : pandas.DataFrame
        One row a site: site_id, well, plate (index into ``plates``), kind (0 to 2).
    moments : dict of (S, C) arrays
        mean, std (ddof=0), median float64; min, max uint8 or uint16.
    """

    def __init__(self, channels: int, bits: int = 8):
        self.channels, self.bits, self.shift = int(channels), int(bits), 0
        self.plates: list[str] = []
        self.cell_types: list[str] = []
        self.experiments: list[str] = []
        bins = moments.BINS if bits == 8 else BINS16
        self.counts = np.zeros((0, len(WELL_TYPES), self.channels, bins), np.int64)
        self.sums = np.zeros((0, len(WELL_TYPES), self.channels, 4), np.int64)
        #: (height, width) of the images; None before the first.
        self.image_size: tuple[int, int] | None = None
        self.field = np.zeros((0, self.channels, 0, 0), np.int64)
        self.sites = pd.DataFrame(
            {
                "site_id": pd.Series(dtype=str),
                "well": pd.Series(dtype=str),
                "plate": np.zeros(0, int),
                "kind": np.zeros(0, int),
            }
        )
        self.moments = {name: np.zeros((0, self.channels), self._kind(name)) for name in _SITE_FIELDS}
        #: Sites that could not be read, as (site_id, path, reason).
        self.faults: list[tuple[str, str, str]] = []

    def _kind(self, field: str) -> np.dtype:
        return np.dtype(f"u{self.bits // 8}" if field in ("min", "max") else np.float64)

    def __len__(self) -> int:
        return len(self.sites)

    def __repr__(self) -> str:
        return f"PlateStats({len(self)} sites on {len(self.plates)} plates, {self.channels} channels)"

    # Fitting ---------------------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        catalog,
        *,
        path: str | os.PathLike | None = None,
        num_threads: int | None = None,
        batch_size: int = 32,
        on_error: str = "raise",
        quiet: bool = False,
    ) -> PlateStats:
        """Count every available site of a catalog, once, in parallel.

        Parameters
        ----------
        catalog : Catalog
        path : path, optional
            Where to save. A file that is already there is taken up: its sites are not counted again. What was
            counted is saved every minute and when interrupted, so a second call goes on from there.
        num_threads : int, optional
            By default one a core.
        on_error : {"raise", "skip"}
            With "skip", sites that can't be read are listed in ``faults``.

        Raises
        ------
        SiteError
            At the first site that can't be read, with ``on_error="raise"``.
        """
        if on_error not in ("raise", "skip"):
            raise UsageError(f"on_error={on_error!r}: must be 'raise' or 'skip'")
        catalog = catalog.available()
        channels = catalog.layout.channels
        taken_up = path is not None and os.path.exists(path)
        stats = cls.load(path) if taken_up else cls(channels, bits_of(catalog))
        if stats.channels != channels:
            raise DataError(f"{path} holds statistics of {stats.channels} channels, not {channels}: name another file")
        todo = np.flatnonzero(~catalog.table["site_id"].isin(stats.sites["site_id"]).to_numpy())
        if len(todo):
            num_threads = num_threads or len(os.sched_getaffinity(0))
            options = {"batch_size": batch_size, "on_error": on_error, "quiet": quiet}
            count(stats, catalog, todo, path=path, num_threads=num_threads, **options)
        return stats

    @classmethod
    def beside(cls, catalog) -> PlateStats:
        """Statistics of a data set, from the file that :func:`default_path` names; fitted now if they are not there."""
        path = file.default_path(catalog.root)
        if path.exists() and file.is_older(path):
            # This file is made here and nowhere else, so it is made again; one that a user named is refused.
            warnings.warn(f"{path} is of an older version and is fitted again", stacklevel=3)
            path.unlink()
        if path.exists():
            stats = cls.load(path)
            if catalog.available().table["site_id"].isin(stats.sites["site_id"]).all():
                return stats
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls.fit(catalog, path=path)

    # Adding up -------------------------------------------------------------------------------------------------------

    def fix_size(self, image_size: tuple[int, int]) -> None:
        """Take the (height, width) of the images; DataError if images of another were counted."""
        if self.image_size is None:
            self.image_size = tuple(int(side) for side in image_size)
            blocks = moments.block_sums(np.zeros((1, *self.image_size), np.uint8), block_shift(self.image_size)).shape
            self.field = np.zeros((len(self.plates), self.channels, *blocks[1:]), np.int64)
        elif self.image_size != tuple(image_size):
            raise DataError(f"statistics of {self.image_size} and of {tuple(image_size)} pixels can't go together")

    def add(self, rows: pd.DataFrame, plates: Sequence[str], kinds: np.ndarray, counts, sums: np.ndarray) -> None:
        """Count in N sites that are not there yet, after :meth:`fix_size`.

        Parameters
        ----------
        rows : pandas.DataFrame
            Theirs of a catalog's table.
        plates : (N,) list of str
            Names such as "HEPG2-01/1".
        kinds : (N,) int64
            0 to 2, of the wells.
        counts : (N, C, 256) int64, or with 16 bits a Histogram
        sums : (N, C, GH, GW) int64
            As of ``field``.
        """
        codes = self._codes(plates, rows["cell_type"].astype(str), rows["experiment"].astype(str))
        histogram = Histogram.of(counts)
        self._coarsen(int(histogram.shift.max(initial=0)))
        np.add.at(self.counts, (codes, kinds), coarsened(histogram.counts, histogram.shift, self.shift))
        if histogram.sums is not None:
            np.add.at(self.sums, (codes, kinds), histogram.sums)
        np.add.at(self.field, codes, sums)
        names = {name: rows[name].astype(str).to_numpy() for name in ("site_id", "well")}
        sites = pd.DataFrame({**names, "plate": codes, "kind": kinds})
        self.sites = pd.concat([self.sites, sites], ignore_index=True)
        mean, std = histogram.mean_std()
        least, most = (histogram.least, histogram.most) if self.bits == 16 else extremes(counts)
        found = {"mean": mean, "std": std, "median": histogram.quantile(0.5), "min": least, "max": most}
        for name in _SITE_FIELDS:
            self.moments[name] = np.concatenate([self.moments[name], found[name].astype(self._kind(name))])

    def _codes(self, plates: Sequence[str], cell_types: Iterable[str], experiments: Iterable[str]) -> np.ndarray:
        """Positions of plates in ``plates``, where those that are new come last."""
        index = {name: i for i, name in enumerate(self.plates)}
        for name, cell_type, experiment in zip(plates, cell_types, experiments):
            if name not in index:
                index[name] = len(self.plates)
                self.plates.append(name)
                self.cell_types.append(cell_type)
                self.experiments.append(experiment)
        fresh = len(self.plates) - len(self.counts)
        for name in ("counts", "sums", "field") if fresh else ():
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros((fresh, *array.shape[1:]), np.int64)]))
        return np.array([index[name] for name in plates], np.int64)

    def _coarsen(self, shift: int) -> None:
        """Widen the bins to ``1 << shift`` grey values, if they are narrower."""
        if shift > self.shift:
            self.counts, self.shift = coarsened(self.counts, self.shift, shift), shift

    def histogram(self, plates: np.ndarray, kinds: list[int]) -> Histogram:
        """What was counted on these plates in wells of these kinds, of (C,) channels."""
        counts, sums = (array[np.ix_(plates, kinds)].sum((0, 1)) for array in (self.counts, self.sums))
        return Histogram(counts, np.full(self.channels, self.shift), sums if self.bits == 16 else None)

    def merge(self, other: PlateStats) -> PlateStats:
        """Both together, as if they had been fitted in one.

        Raises
        ------
        DataError
            If a site was counted in both, or the numbers of channels or of bits differ.
        """
        for name, mine, theirs in (("channels", self.channels, other.channels), ("bits", self.bits, other.bits)):
            if mine != theirs:
                raise DataError(f"statistics of {mine} and of {theirs} {name} can't be merged")
        twice = other.sites["site_id"][other.sites["site_id"].isin(self.sites["site_id"])]
        if len(twice):
            raise DataError(
                f"{len(twice)} sites are in both statistics, the first is {twice.iloc[0]}: merge disjoint parts"
            )
        merged = PlateStats(self.channels, self.bits)
        merged._coarsen(max(self.shift, other.shift))
        for part in (self, other):
            if part.image_size is not None:
                merged.fix_size(part.image_size)
            codes = merged._codes(part.plates, part.cell_types, part.experiments)
            merged.counts[codes] += coarsened(part.counts, part.shift, merged.shift)
            merged.sums[codes] += part.sums
            if part.image_size is not None:
                merged.field[codes] += part.field
            merged.sites = pd.concat(
                [merged.sites, part.sites.assign(plate=codes[part.sites["plate"].to_numpy()])], ignore_index=True
            )
            for name in _SITE_FIELDS:
                merged.moments[name] = np.concatenate([merged.moments[name], part.moments[name]])
            merged.faults += part.faults
        return merged

    # Keeping ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write to an ``.npz`` file, in one step: a reader sees the old file or the new one, never half of one."""
        file.write(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> PlateStats:
        """Read what :meth:`save` wrote. Nothing in the file is executed.

        Raises
        ------
        DataError
            If the file is missing or is not one of these.
        """
        return file.read(path, cls)

    # Use -------------------------------------------------------------------------------------------------------------

    def normalizer(self, normalize: Normalize, catalog) -> Normalizer:
        """What normalises each site of a catalog.

        Raises
        ------
        DataError
            If a group of the catalog was not counted, or no level has enough wells of the wanted kind.
        """
        return normalizer(self, normalize, catalog)

    def illumination(self, catalog) -> tuple[np.ndarray, np.ndarray, int]:
        """Factors that undo each plate's uneven illumination, estimated from the mean of its images.

        Cells average out over a plate's wells, and what stays is the light (Smith et al., "CIDRE", Nature Methods 2015,
        and Peng et al., "BaSiC", Nature Communications 2017, start there too). Dark current is not modelled.

        Returns
        -------
        plates : (N,) int64
            Row of the table for each site of the catalog.
        factors : (P, C, GH, GW) float32
        shift : int
            See :func:`rxrx_fast.stats.illumination.light_factors`.
        """
        return rows_of(self.plates, "plate", catalog), *light_factors(self.field, self.image_size)

    def groups(self, level: str) -> tuple[list[str], list[np.ndarray]]:
        """Names of a level's groups, and the plates of each: of "plate", "experiment", "cell_type" or "global"."""
        keys = {
            "plate": self.plates,
            "experiment": self.experiments,
            "cell_type": self.cell_types,
            "global": ["all"] * len(self.plates),
        }[level]
        names = list(dict.fromkeys(keys))
        keys = np.array(keys, dtype=object)
        return names, [np.flatnonzero(keys == name) for name in names]

    def frame(self, level: str = "plate") -> pd.DataFrame:
        """Statistics as a table, one row a group and channel.

        Parameters
        ----------
        level : {"global", "cell_type", "experiment", "plate", "site"}

        Returns
        -------
        pandas.DataFrame
            Columns: the level's name, channel (from 1), sites, mean, std (ddof=0), median, min, max; mad (unscaled)
            where the level is not "site".
        """
        return frame(self, level)
