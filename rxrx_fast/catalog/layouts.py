"""The layouts in which RxRx1 lies on a disk: how each is recognised, and what its CSV files say.

================  ================================================  ====================================================
layout            evidence, in this order                           one file
================  ================================================  ====================================================
``wilds``         ``metadata.csv``, and one of: an image            ``images/EXP/PlateN/WELL_sS.png`` (channels 1 to 3)
                  ``WELL_sS.png``; no image, but a file
                  ``RELEASE_v1.0.txt`` or a row of split ``val``
``rxrx.ai``       ``metadata.csv``                                  ``images/EXP/PlateN/WELL_sS_wC.png``
``kaggle-2023``   ``train.csv`` or ``test.csv``; the first siRNA    ``{train,test}/EXP/PlateN/WELL_sS_wC.png``
                  is a name, such as ``sirna_250``
``kaggle-2019``   ``train.csv`` or ``test.csv``                     as 2023
================  ================================================  ====================================================

An image outweighs every other evidence, because it is the images that will be read. A Kaggle root with ``test.csv``
alone has no siRNA that could tell its edition; it is called 2019, and the two are the same but for their labels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rxrx_fast.catalog.rows import INTEGER, Rows, join, read_csv
from rxrx_fast.catalog.table import UNTREATED, well_ids
from rxrx_fast.errors import DataError

__all__ = ["NAMES_2023", "Layout", "Records", "read_records"]

# The 2023 edition numbers its siRNAs anew and scatters the positive controls among the treatments.
_CONTROLS_2023 = (
    52, 144, 201, 237, 256, 272, 323, 374, 410, 542, 577, 618, 650, 672, 682,
    702, 714, 756, 766, 810, 822, 825, 842, 852, 864, 888, 967, 1011, 1037, 1056,
)  # fmt: skip

#: The siRNA names of the 2023 Kaggle edition in the order of their labels: treatments by number, then the positive
#: controls by number, then ``UNTREATED``. Fixed here and not derived from the rows at hand, so that a label means the
#: same in every subset. It is not the numbering of 2019 and rxrx.ai: the two are a bijection.
NAMES_2023: tuple[str, ...] = (
    *(f"sirna_{n}" for n in range(UNTREATED) if n not in _CONTROLS_2023),
    *(f"sirna_{n}" for n in _CONTROLS_2023),
    "UNTREATED",
)
_IDS_2023 = {name: label for label, name in enumerate(NAMES_2023)}


@dataclass(frozen=True)
class Layout:
    """How the files of one site are named.

    Attributes
    ----------
    name : str
        ``"rxrx.ai"``, ``"kaggle-2019"``, ``"kaggle-2023"``, ``"wilds"`` or ``"custom"``.
    path : str
        Template of a file's path below the root, with ``/`` between folders and the columns of the table in braces;
        ``{channel}`` is the 1-based channel. Without ``{channel}`` one file holds all channels.
    channels : int
        Channels of a site.
    folders : tuple of str
        Where images lie below the root; empty where only the template knows.
    """

    name: str
    path: str
    channels: int = 6
    folders: tuple[str, ...] = ()

    @property
    def files_per_site(self) -> int:
        """Files of a site: one a channel, or one in all."""
        return self.channels if re.search(r"\{channel[:}]", self.path) else 1


_NAME = "{experiment}/Plate{plate}/{well}_s{site}"
RXRX = Layout("rxrx.ai", f"images/{_NAME}_w{{channel}}.png", 6, ("images",))
WILDS = Layout("wilds", f"images/{_NAME}.png", 3, ("images",))
KAGGLE_2019 = Layout("kaggle-2019", f"{{split}}/{_NAME}_w{{channel}}.png", 6, ("train", "test"))
KAGGLE_2023 = Layout("kaggle-2023", f"{{split}}/{_NAME}_w{{channel}}.png", 6, ("train", "test"))


@dataclass
class Records:
    """What a root's CSV files say, before it becomes a catalog.

    Attributes
    ----------
    layout : Layout
        The layout recognised.
    rows : Rows
        One row a site, with the columns of :func:`rxrx_fast.catalog.table.canonical_table`.
    splits : tuple of str
        The splits that the layout knows, in their order.
    notes : list of str
        What a user should know about these files, a line each.
    wells_only : bool
        True where the CSV files list wells, so that a site found on disk is as good as one they name.
    """

    layout: Layout
    rows: Rows
    splits: tuple[str, ...]
    notes: list[str]
    wells_only: bool = False


# ---------------------------------------------------------------------------------------------- recognising a root


def read_records(root: str) -> Records:
    """Recognise the layout of a folder and read its CSV files.

    Parameters
    ----------
    root : str
        Absolute path of a folder.

    Raises
    ------
    DataError
        ``root`` is missing, empty, a file or nothing we know, or a CSV file is faulty.
    """
    entries = _entries(root)
    kind = _kind(entries)
    if kind == "metadata":
        return _read_metadata(root)
    if kind == "kaggle":
        return _read_kaggle(root, entries)
    raise DataError(_not_recognised(root, entries))


def _entries(root: str) -> list[str]:
    try:
        entries = sorted(os.listdir(root))
    except FileNotFoundError:
        raise DataError(f"{root}: no such folder; check the path{_suggest(root)}") from None
    except NotADirectoryError:
        raise DataError(f"{root}: a file, not a folder; give the folder of the data set{_suggest(root)}") from None
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error.strerror}); check the path and its permissions") from None
    if not entries:
        raise DataError(f"{root}: the folder is empty; unpack RxRx1 there or give another folder{_suggest(root)}")
    return entries


def _kind(entries: Sequence[str]) -> str | None:
    if "metadata.csv" in entries:
        return "metadata"
    return "kaggle" if "train.csv" in entries or "test.csv" in entries else None


def _suggest(root: str) -> str:
    """The end of an error message: the folder that was probably meant, from two levels above to one below."""
    parent = os.path.dirname(root)
    nearby = [parent, os.path.dirname(parent)]
    if os.path.isdir(root):
        nearby += sorted(entry.path for entry in os.scandir(root) if entry.is_dir())[:100]
    for folder in nearby:
        try:
            if _kind(os.listdir(folder)):
                return f"; did you mean {folder}?"
        except OSError:
            continue
    return ""


def _not_recognised(root: str, entries: Sequence[str]) -> str:
    found = ", ".join(entries[:6]) + (f" and {len(entries) - 6:,} more" if len(entries) > 6 else "")
    return (
        f"{root}: no RxRx1 here; looked for metadata.csv (rxrx.ai, WILDS) and train.csv or test.csv (Kaggle 2019 and "
        f"2023), found {found}{_suggest(root) or '; for another screen use Catalog.from_frame'}"
    )


# ------------------------------------------------------------------------------------------------------- CSV files


def _read_metadata(root: str) -> Records:
    """rxrx.ai and WILDS: one row a site in ``metadata.csv``, kept in its order."""
    need = ("experiment", "plate", "well", "site", "cell_type", "dataset", "sirna_id")
    rows = read_csv(root, "metadata.csv", need, ("well_type", "sirna"))
    frame = rows.frame = rows.frame.rename(columns={"dataset": "split"})
    frame["sirna_id"] = rows.integers("sirna_id", blank=-1)
    if "sirna" not in frame:
        frame["sirna"] = _names_of(frame["sirna_id"])
    wilds = _is_wilds(root, frame)
    if wilds:
        # As the wilds package derives it: its training set is site 1, and site 2 is its in-distribution test set.
        site = rows.integers("site")
        frame["split"] = frame["split"].mask((frame["split"] == "train") & (site == 2), "id_test")
    splits = ("train", "val", "test", "id_test") if wilds else ("train", "test")
    return Records(WILDS if wilds else RXRX, rows, splits, [])


def _is_wilds(root: str, frame: pd.DataFrame) -> bool:
    """Whether images or, where there are none, signs of WILDS lie beside a ``metadata.csv``."""
    images = os.path.join(root, "images")
    for _, _, names in os.walk(images):  # top-down and lazy: the first plate folder with an image ends it
        for name in names:
            match = re.fullmatch(r"[A-Z]+[0-9]+_s[0-9]+(_w[0-9]+)?\.png", name)
            if match:
                return match[1] is None
    return os.path.exists(os.path.join(root, "RELEASE_v1.0.txt")) or bool((frame["split"] == "val").any())


def _read_kaggle(root: str, entries: Sequence[str]) -> Records:
    """Kaggle: one row a well in up to four files; sorted by split, plate, well and site."""
    key = ("experiment", "plate", "well")
    parts, notes = [], []
    for split in ("train", "test"):
        for name, controls in ((f"{split}.csv", False), (f"{split}_controls.csv", True)):
            if name not in entries:
                notes.append(f"{name} is missing, and with it its wells")
                continue
            need = (*key, "sirna", "well_type") if controls else (*key, "sirna") if split == "train" else key
            # A part of the data may have no well of one kind, or no test experiment.
            part = read_csv(root, name, need, ("sirna",), may_be_empty=True)
            part.frame["split"] = split
            if not controls:
                part.frame["well_type"] = "treatment"
            parts.append(part)
    rows = join(parts)
    if not len(rows.frame):
        raise DataError(f"{root}: none of {', '.join(rows.files)} has a row; restore the files")
    if "sirna" not in rows.frame:
        rows.frame["sirna"] = ""
    rows.frame["plate"] = rows.integers("plate")  # numbers, so that plate 10 sorts after plate 9
    given = rows.frame["sirna"][rows.frame["sirna"] != ""]
    named = len(given) > 0 and not INTEGER.fullmatch(given.iloc[0])
    if named:
        rows.refuse("sirna", lambda v: None if v == "" or v in _IDS_2023 else "is no siRNA of 2023; correct the row")
        rows.frame["sirna_id"] = rows.frame["sirna"].map(_IDS_2023).fillna(-1).astype(np.int64)
    else:
        rows.frame["sirna_id"] = rows.integers("sirna", blank=-1)
        rows.frame["sirna"] = _names_of(rows.frame["sirna_id"])
    rows.frame["cell_type"] = _map_values(rows.frame["experiment"], lambda name: name.rpartition("-")[0])
    rows = _add_sites(root, entries, rows, notes)
    frame = rows.frame
    order = frame.assign(first=frame["split"] != "train").sort_values(["first", *key, "site"], kind="stable").index
    layout = KAGGLE_2023 if named else KAGGLE_2019
    return Records(layout, rows.take(order.to_numpy()), ("train", "test"), notes, wells_only=True)


def _add_sites(root: str, entries: Sequence[str], rows: Rows, notes: list[str]) -> Rows:
    """Turn rows of wells into rows of sites, by ``pixel_stats.csv`` or else two a well."""
    if "pixel_stats.csv" not in entries:
        notes.append("the CSV files list wells, not sites: two sites a well are assumed")
        wells = rows.take(np.repeat(np.arange(len(rows.frame)), 2))
        wells.frame["site"] = np.tile(np.array([1, 2], dtype=np.int64), len(rows.frame))
        return wells
    stats = read_csv(root, "pixel_stats.csv", ("id_code", "site"), check=False)
    pairs = pd.DataFrame({"id_code": stats.frame["id_code"], "site": stats.integers("site")}).drop_duplicates()
    ids = pd.DataFrame({"id_code": well_ids(rows.frame), "row": np.arange(len(rows.frame))})
    merged = ids.merge(pairs, on="id_code")
    if merged.empty:
        raise DataError(f"{stats.files[0]}: names no well of the other CSV files; restore the file or remove it")
    without = len(ids) - merged["row"].nunique()
    if without:
        notes.append(f"wells of the CSV files that have no site in pixel_stats.csv: {without:,}")
    sites = rows.take(merged["row"].to_numpy())
    sites.frame["site"] = merged["site"].to_numpy()
    return sites


def _map_values(series: pd.Series, function: Callable[[str], str]) -> np.ndarray:
    codes, values = pd.factorize(series)
    return np.array([function(value) for value in values], dtype=object)[codes]


def _names_of(labels: pd.Series) -> pd.Series:
    """Names for siRNAs that have none but their label: the number, or ``""`` where it is not known."""
    return labels.astype(str).where(labels >= 0, "")
