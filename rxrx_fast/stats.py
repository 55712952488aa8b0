"""PlateStats: additive histograms by plate and channel, and every normalisation that follows from them.

The histogram is the statistic: counts add up over sites, workers and machines without rounding, so statistics fitted
in parts and merged equal those fitted at once, bit for bit. Those of 16-bit pixels go by bins, beside sums that are
exact: see :mod:`rxrx_kernels.moments16` for what that means for each statistic.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from rxrx_kernels import moments
from rxrx_kernels.moments16 import BINS16, Histogram, coarsened, histogram16

from rxrx_fast.errors import DataError, SiteError, UsageError
from rxrx_fast.illumination import block_shift, light_factors
from rxrx_fast.normalize import LEVELS, Normalize
from rxrx_fast.pipeline import SitePipeline
from rxrx_fast.progress import bar
from rxrx_fast.stores import FileStore

__all__ = ["FILE_NAME", "PlateStats", "default_path"]

#: Statistics of a data set, beside its metadata.
FILE_NAME = "rxrx_fast_stats.npz"

_VERSION = 2
_KINDS = ("treatment", "positive_control", "negative_control")
_WELLS = {"all": (0, 1, 2), "controls": (1, 2), "negative_control": (2,)}
# A lost interval costs a minute of work; a shorter one would spend more time saving a full data set's 15 MB.
_SAVE_EVERY_S = 60.0
_SITES_PENDING = 512
_SITE_FIELDS = ("mean", "std", "median", "min", "max")


def default_path(root: str | os.PathLike) -> Path:
    """Where a data set's statistics are kept: in its root, or, if that is read-only, in the user's cache folder."""
    # The superuser may write anywhere; a folder whose mode lets nobody write is meant to stay as it is.
    if os.access(root, os.W_OK) and os.stat(root).st_mode & 0o222:
        return Path(root) / FILE_NAME
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.blake2b(os.path.realpath(root).encode(), digest_size=8).hexdigest()
    return cache / "rxrx_fast" / f"{name}.npz"


def _is_older(path: Path) -> bool:
    """Whether a file was written by an older version of this package; what is no such file is not."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return int(file["version"]) < _VERSION
    except Exception:
        return False


class Normalizer(NamedTuple):
    """What normalises the sites of a catalog.

    groups : (N,) int64
        Row of the tables for each site.
    center, scale : (G, C) float64
    mapping : (G, C, N) float64, or None
        What grey values are mapped to before.
    """

    groups: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    mapping: np.ndarray | None


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
        With 16 bits, the exact sums of :class:`rxrx_kernels.moments16.Histogram`; zeros with 8.
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
        self.counts = np.zeros((0, len(_KINDS), self.channels, bins), np.int64)
        self.sums = np.zeros((0, len(_KINDS), self.channels, 4), np.int64)
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
        stats = cls.load(path) if taken_up else cls(channels, _bits(catalog))
        if taken_up:
            if stats.channels != channels:
                raise DataError(
                    f"{path} holds statistics of {stats.channels} channels, not {channels}: name another file"
                )
        todo = np.flatnonzero(~catalog.table["site_id"].isin(stats.sites["site_id"]).to_numpy())
        if len(todo):
            stats._count(catalog, todo, path, num_threads or len(os.sched_getaffinity(0)), batch_size, on_error, quiet)
        return stats

    @classmethod
    def beside(cls, catalog) -> PlateStats:
        """Statistics of a data set, from the file that :func:`default_path` names; fitted now if they are not there."""
        path = default_path(catalog.root)
        if path.exists() and _is_older(path):
            # This file is made here and nowhere else, so it is made again; one that a user named is refused.
            warnings.warn(f"{path} is of an older version and is fitted again", stacklevel=3)
            path.unlink()
        if path.exists():
            stats = cls.load(path)
            if catalog.available().table["site_id"].isin(stats.sites["site_id"]).all():
                return stats
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls.fit(catalog, path=path)

    def _count(self, catalog, todo, path, num_threads, batch_size, on_error, quiet) -> None:
        table = catalog.table
        plate_codes, plate_names = catalog.group_keys("plate")
        kinds = pd.Categorical(table["well_type"].astype(str), categories=_KINDS).codes
        store = FileStore(catalog, tuple(range(1, self.channels + 1)))
        if store.dtype.itemsize * 8 != self.bits:
            raise DataError(
                f"{path} holds statistics of {self.bits}-bit pixels, not of these files': name another file"
            )
        self._sized(store.image_size)
        shift = block_shift(store.image_size)
        histogram = moments.histogram if self.bits == 8 else histogram16

        def look(stack):
            return histogram(stack), moments.block_sums(stack, shift)

        # A plate at a time keeps reads in one directory.
        todo = todo[np.argsort(plate_codes[todo], kind="stable")]
        batches = [todo[i : i + batch_size] for i in range(0, len(todo), batch_size)]

        def on_fault(position, fault: SiteError):
            if on_error == "raise":
                raise fault
            self.faults.append((fault.site_id, fault.path, fault.reason))
            return None

        pending: list[tuple[np.ndarray, tuple, tuple]] = []

        def absorb() -> None:
            if pending:
                positions, counts, sums = (list(chain(*parts)) for parts in zip(*pending))
                rows = table.iloc[positions]
                plates = [plate_names[code] for code in plate_codes[positions]]
                counts = np.stack(counts) if self.bits == 8 else Histogram.stack(counts)
                self._add(rows, plates, np.maximum(kinds[positions], 0), counts, np.stack(sums))
                pending.clear()

        saved = time.monotonic()
        with ThreadPoolExecutor(num_threads) as pool, bar(len(todo), "statistics", quiet=quiet) as progress:
            pipeline = SitePipeline(
                store, batches, batch_size=batch_size, pool=pool, num_threads=num_threads, on_fault=on_fault
            )
            try:
                for decoded in pipeline:
                    pending.append((decoded.positions, *zip(*pool.map(look, decoded.stack))))
                    progress.update(len(decoded.positions))
                    # Histograms of 16-bit sites are a megabyte for every six or seven of them.
                    if self.bits == 16 and len(pending) * batch_size >= _SITES_PENDING:
                        absorb()
                    if time.monotonic() - saved > _SAVE_EVERY_S:
                        absorb()
                        if path is not None:
                            self.save(path)
                        saved = time.monotonic()
            finally:
                pipeline.close()
                absorb()
                if path is not None:
                    self.save(path)

    def _sized(self, image_size: tuple[int, int]) -> None:
        """Make sure that all images are of one size."""
        if self.image_size is None:
            self.image_size = tuple(int(side) for side in image_size)
            blocks = moments.block_sums(np.zeros((1, *self.image_size), np.uint8), block_shift(self.image_size)).shape
            self.field = np.zeros((len(self.plates), self.channels, *blocks[1:]), np.int64)
        elif self.image_size != tuple(image_size):
            raise DataError(f"statistics of {self.image_size} and of {tuple(image_size)} pixels can't go together")

    def _add(self, rows: pd.DataFrame, plates: Iterable[str], kinds: np.ndarray, counts, sums) -> None:
        """Count in sites that are not there yet."""
        plates = list(plates)
        index = {name: i for i, name in enumerate(self.plates)}
        first = pd.DataFrame({"plate": plates, "cell_type": rows["cell_type"].astype(str).to_numpy()})
        first["experiment"] = rows["experiment"].astype(str).to_numpy()
        for row in first.drop_duplicates("plate").itertuples():
            if row.plate not in index:
                index[row.plate] = len(self.plates)
                self.plates.append(row.plate)
                self.cell_types.append(row.cell_type)
                self.experiments.append(row.experiment)
        self._grow()
        codes = np.array([index[name] for name in plates], np.int64)
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
        least, most = (histogram.least, histogram.most) if self.bits == 16 else _extremes(counts)
        found = {"mean": mean, "std": std, "median": histogram.quantile(0.5), "min": least, "max": most}
        for name in _SITE_FIELDS:
            self.moments[name] = np.concatenate([self.moments[name], found[name].astype(self._kind(name))])

    def _grow(self) -> None:
        fresh = len(self.plates) - len(self.counts)
        for name in ("counts", "sums", "field") if fresh else ():
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros((fresh, *array.shape[1:]), np.int64)]))

    def _coarsen(self, shift: int) -> None:
        """Widen the bins to ``1 << shift`` grey values, if they are narrower."""
        if shift > self.shift:
            self.counts, self.shift = coarsened(self.counts, self.shift, shift), shift

    def _histogram(self, plates: np.ndarray, kinds: list[int]) -> Histogram:
        """What was counted on these plates in wells of these kinds, of (C,) channels."""
        counts, sums = (array[np.ix_(plates, kinds)].sum((0, 1)) for array in (self.counts, self.sums))
        return Histogram(counts, np.full(self.channels, self.shift), sums if self.bits == 16 else None)

    # Parts -----------------------------------------------------------------------------------------------------------

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
            index = {name: i for i, name in enumerate(merged.plates)}
            for name, cell_type, experiment in zip(part.plates, part.cell_types, part.experiments):
                if name not in index:
                    index[name] = len(merged.plates)
                    merged.plates.append(name)
                    merged.cell_types.append(cell_type)
                    merged.experiments.append(experiment)
            if part.image_size is not None:
                merged._sized(part.image_size)
            merged._grow()
            codes = np.array([index[name] for name in part.plates], np.int64)
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

    def save(self, path: str | os.PathLike) -> None:
        """Write to an ``.npz`` file, in one step: a reader sees the old file or the new one, never half of one."""
        path = Path(path)
        arrays = {
            "version": np.array(_VERSION),
            "plates": np.array(self.plates, dtype=np.str_),
            "cell_types": np.array(self.cell_types, dtype=np.str_),
            "experiments": np.array(self.experiments, dtype=np.str_),
            "counts": self.counts,
            "image_size": np.array(self.image_size or (0, 0), np.int64),
            "field": self.field,
            "site_well": np.array(self.sites["well"].tolist(), dtype=np.str_),
            "site_id": np.array(self.sites["site_id"].tolist(), dtype=np.str_),
            "site_plate": self.sites["plate"].to_numpy(np.int64),
            "site_kind": self.sites["kind"].to_numpy(np.int64),
            **{f"site_{name}": values for name, values in self.moments.items()},
        }
        if self.bits == 16:
            arrays |= {"sums": self.sums, "shift": np.array(self.shift)}
        # Named by the process and not by tempfile, which would keep the file from everybody else on the cluster.
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with open(temporary, "wb") as file:
                np.savez_compressed(file, **arrays)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise DataError(f"{path}: the statistics can't be saved ({error.strerror or error})") from None

    @classmethod
    def load(cls, path: str | os.PathLike) -> PlateStats:
        """Read what :meth:`save` wrote. Nothing in the file is executed.

        Raises
        ------
        DataError
            If the file is missing or is not one of these.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                if int(file["version"]) != _VERSION:
                    raise DataError(
                        f"{path}: of version {int(file['version'])}, and this reads version {_VERSION}: fit it again"
                    )
                counts = file["counts"]
                stats = cls(counts.shape[2], 16 if "sums" in file else 8)
                if stats.bits == 16:
                    stats.sums, stats.shift = file["sums"], int(file["shift"])
                else:
                    stats.sums = np.zeros((*counts.shape[:3], 4), np.int64)
                stats.plates, stats.cell_types = file["plates"].tolist(), file["cell_types"].tolist()
                stats.experiments = file["experiments"].tolist()
                stats.counts, stats.field = counts, file["field"]
                stats.image_size = tuple(file["image_size"].tolist()) if file["image_size"].any() else None
                columns = {"site_id": "site_id", "well": "site_well"}
                sites = {name: file[column].tolist() for name, column in columns.items()}
                stats.sites = pd.DataFrame({**sites, "plate": file["site_plate"], "kind": file["site_kind"]})
                stats.moments = {name: file[f"site_{name}"] for name in _SITE_FIELDS}
                return stats
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; fit statistics with `rxrx-fast stats ROOT -o FILE`") from None
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{path}: not a file of statistics ({type(error).__name__}); fit them again") from None

    # Use -------------------------------------------------------------------------------------------------------------

    def normalizer(self, normalize: Normalize, catalog) -> Normalizer:
        """What normalises each site of a catalog.

        Raises
        ------
        DataError
            If a group of the catalog was not counted, or no level has enough wells of the wanted kind.
        """
        names, _ = self._groups(normalize.level)
        index = {name: i for i, name in enumerate(names)}
        codes, catalog_names = catalog.group_keys(normalize.level)
        rows = np.array([index.get(name, -1) for name in catalog_names], np.int64)
        groups = rows[codes]
        if len(groups) and groups.min() < 0:
            name = catalog_names[codes[groups < 0][0]]
            raise DataError(f"the statistics hold no site of {normalize.level} {name!r}: fit them over this catalog")
        used = np.unique(groups)
        members = self._members(normalize, names, used)
        kinds = list(_WELLS[normalize.wells])
        counts = Histogram.stack([self._histogram(plates, kinds) for plates in members])
        site_std = None
        if normalize.scale == "mean_site_std":
            site_std = np.full((len(members), self.channels), np.nan)
            plate, kind = self.sites["plate"].to_numpy(), self.sites["kind"].to_numpy()
            for i, plates in enumerate(members):
                mine = np.isin(plate, plates) & np.isin(kind, kinds)
                if mine.any():
                    # Sorted, so that the sum does not depend on the order in which parts were merged.
                    site_std[i] = np.sort(self.moments["std"][mine], axis=0).mean(0)
        mapping = None
        with np.errstate(invalid="ignore"):
            if normalize.method == "quantile":
                everything = self._histogram(np.arange(len(self.plates)), kinds)
                mapping = normalize.mapping(counts, everything)
                center, scale = replace(normalize, clip=(0, 100)).statistics(everything)
                center, scale = (np.broadcast_to(part, (len(members), self.channels)) for part in (center, scale))
            else:
                mapping = normalize.mapping(counts) if normalize.maps else None
                center, scale = normalize.statistics(counts, site_std)
        return Normalizer(groups, center, scale, mapping)

    def _members(self, normalize: Normalize, names: list[str], used: np.ndarray) -> list[np.ndarray]:
        """The plates whose wells make the statistics of each group; of a coarser group, where wells are too few."""
        wells = self.sites.assign(wanted=np.isin(self.sites["kind"], list(_WELLS[normalize.wells])))
        wells = wells[wells["wanted"]].drop_duplicates(["plate", "well"])["plate"].value_counts()
        wells = wells.reindex(range(len(self.plates)), fill_value=0).to_numpy()
        levels = LEVELS[: LEVELS.index(normalize.level) + 1][::-1]
        coarser = [self._groups(level) for level in levels]
        members, fallen = list(coarser[0][1]), {}
        for group in used:
            inside = members[group]
            for level, (_, candidates) in zip(levels, coarser):
                plates = next(p for p in candidates if inside[0] in p)
                if wells[plates].sum() >= normalize.min_wells:
                    members[group] = plates
                    if level != normalize.level:
                        fallen.setdefault(level, []).append(names[group])
                    break
            else:
                kind = "" if normalize.wells == "all" else f" {normalize.wells}"
                raise DataError(
                    f"{normalize.level} {names[group]!r} has fewer than {normalize.min_wells} counted{kind} wells, and "
                    "so have all sites together: use wells='all' or a smaller min_wells"
                )
        for level, groups in fallen.items():
            warnings.warn(
                f"{len(groups)} of {len(used)} groups of level {normalize.level!r} have fewer than "
                f"{normalize.min_wells} {normalize.wells} wells and take the statistics of their {level} "
                f"(the first is {groups[0]})",
                stacklevel=4,
            )
        return members

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
            See :func:`rxrx_fast.illumination.light_factors`.
        """
        index = {name: i for i, name in enumerate(self.plates)}
        codes, names = catalog.group_keys("plate")
        rows = np.array([index.get(name, -1) for name in names], np.int64)[codes]
        if len(rows) and rows.min() < 0:
            name = names[codes[rows < 0][0]]
            raise DataError(f"the statistics hold no site of plate {name!r}: fit them over this catalog")
        return rows, *light_factors(self.field, self.image_size)

    def _groups(self, level: str) -> tuple[list[str], list[np.ndarray]]:
        """Names of a level's groups, and the plates of each."""
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
        if level == "site":
            count, names = len(self), self.sites["site_id"].to_numpy()
            columns = {name: values.reshape(-1) for name, values in self.moments.items()}
            sites = np.ones(count, np.int64)
        else:
            if level not in ("global", "cell_type", "experiment", "plate"):
                raise UsageError(f"level={level!r}: must be global, cell_type, experiment, plate or site")
            names, members = self._groups(level)
            kinds, wanted = range(len(_KINDS)), members or [np.zeros(0, np.int64)]
            histogram = Histogram.stack([self._histogram(plates, kinds) for plates in wanted])
            mean, std = histogram.mean_std()
            least, most = _extremes(histogram.counts) if self.bits == 8 else self._site_extremes(wanted)
            columns = {
                "mean": mean,
                "std": std,
                "median": histogram.quantile(0.5),
                "mad": histogram.mad(),
                "min": least,
                "max": most,
            }
            columns = {name: values[: len(members)] for name, values in columns.items()}
            columns = {name: values.reshape(-1) for name, values in columns.items()}
            plate = self.sites["plate"].to_numpy()
            sites = np.array([np.isin(plate, plates).sum() for plates in members], np.int64)
            count = len(names)
        return pd.DataFrame(
            {
                level: np.repeat(names, self.channels),
                "channel": np.tile(np.arange(1, self.channels + 1), count),
                "sites": np.repeat(sites, self.channels),
                **columns,
            }
        )

    def _site_extremes(self, members: list[np.ndarray]) -> list[np.ndarray]:
        """Darkest and brightest pixel of all sites on each group's plates, (G, C)."""
        plate = self.sites["plate"].to_numpy()
        inside = [np.isin(plate, plates) for plates in members]
        parts = (("min", np.min, np.iinfo(np.uint16).max), ("max", np.max, 0))
        return [
            np.stack([least(self.moments[name][mine], axis=0, initial=empty) for mine in inside])
            for name, least, empty in parts
        ]


def _bits(catalog) -> int:
    """8 or 16: of the pixels of a catalog's files."""
    return 8 * FileStore(catalog, (1,)).dtype.itemsize if len(catalog) else 8


def _extremes(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value that was counted, (...), of (..., 256) counts."""
    seen = counts > 0
    return seen.argmax(-1), counts.shape[-1] - 1 - seen[..., ::-1].argmax(-1)
