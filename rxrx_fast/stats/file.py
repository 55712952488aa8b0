"""The file that statistics are saved in: an ``.npz`` of plain arrays, and its default place beside a data set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rxrx_fast.errors import DataError

if TYPE_CHECKING:
    from rxrx_fast.stats.plate_stats import PlateStats

__all__ = ["FILE_NAME", "VERSION", "default_path", "is_older", "read", "write"]

#: Name of the file in a data set's root.
FILE_NAME = "rxrx_fast_stats.npz"
#: Version of the file's format.
VERSION = 2


def default_path(root: str | os.PathLike[str]) -> Path:
    """Return where a data set's statistics are saved: its root, or the user's cache folder if that is read-only."""
    # The superuser can write anywhere; leave a folder alone whose mode lets nobody write.
    if os.access(root, os.W_OK) and os.stat(root).st_mode & 0o222:
        return Path(root) / FILE_NAME
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.blake2b(os.path.realpath(root).encode(), digest_size=8).hexdigest()
    return cache / "rxrx_fast" / f"{name}.npz"


def is_older(path: Path) -> bool:
    """Tell whether a file holds statistics of an older version; False for any other file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return int(file["version"]) < VERSION
    except Exception:
        return False


def write(stats: PlateStats, path: str | os.PathLike[str]) -> None:
    """Write statistics in one step: a reader sees the old file or the new one, never half of one.

    Raises
    ------
    DataError
        The file can't be written; an older one is then untouched.
    """
    path = Path(path)
    arrays: dict[str, Any] = {
        "version": np.array(VERSION),
        "plates": np.array(stats.plates, dtype=np.str_),
        "cell_types": np.array(stats.cell_types, dtype=np.str_),
        "experiments": np.array(stats.experiments, dtype=np.str_),
        "counts": stats.counts,
        "image_size": np.array(stats.image_size or (0, 0), np.int64),
        "field": stats.block_sums,
        "site_well": np.array(stats.sites["well"].tolist(), dtype=np.str_),
        "site_id": np.array(stats.sites["site_id"].tolist(), dtype=np.str_),
        "site_plate": stats.sites["plate"].to_numpy(np.int64),
        "site_kind": stats.sites["kind"].to_numpy(np.int64),
        **{f"site_{name}": values for name, values in stats.moments.items()},
    }
    if stats.bits == 16:
        arrays |= {"sums": stats.sums, "shift": np.array(stats.bin_shift)}
    # Not by tempfile: its files are readable by their owner only.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{path}: the statistics can't be saved ({error.strerror or error})") from None


def read(path: str | os.PathLike[str], empty: Callable[[int, int], PlateStats]) -> PlateStats:
    """Read what :func:`write` wrote. Nothing in the file is executed.

    Parameters
    ----------
    path : path
    empty : callable
        ``empty(channels, bits)`` makes empty statistics, which are filled and returned.

    Raises
    ------
    DataError
        The file is missing, holds something else, or is of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["version"]) != VERSION:
                raise DataError(
                    f"{path}: of version {int(file['version'])}, and this reads version {VERSION}: fit it again"
                )
            counts = file["counts"]
            stats = empty(counts.shape[2], 16 if "sums" in file else 8)
            if stats.bits == 16:
                stats.sums, stats.bin_shift = file["sums"], int(file["shift"])
            else:
                stats.sums = np.zeros((*counts.shape[:3], 4), np.int64)
            stats.plates, stats.cell_types = file["plates"].tolist(), file["cell_types"].tolist()
            stats.experiments = file["experiments"].tolist()
            stats.counts, stats.block_sums = counts, file["field"]
            height, width = file["image_size"].tolist()
            stats.image_size = (height, width) if height or width else None
            columns = {"site_id": "site_id", "well": "site_well"}
            sites = {name: file[column].tolist() for name, column in columns.items()}
            stats.sites = pd.DataFrame({**sites, "plate": file["site_plate"], "kind": file["site_kind"]})
            stats.moments = {name: file[f"site_{name}"] for name in stats.moments}
            return stats
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; fit statistics with `rxrx-fast stats ROOT -o FILE`") from None
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not a file of statistics ({type(error).__name__}); fit them again") from None
