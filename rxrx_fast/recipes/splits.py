"""Which experiments are trained on and which are held out: never the same one on both sides but where WILDS says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import DataError, UsageError

__all__ = ["SPLITS", "Parts", "divide"]

SPLITS = ("official", "wilds", "experiments")
_WILDS = ("val", "test", "id_test")


class Parts(NamedTuple):
    """A catalog divided.

    train : Catalog
        Labelled sites.
    held_out : dict of str to Catalog
        By the names of the parts; labels can be unknown there.
    """

    train: Catalog
    held_out: dict[str, Catalog]


def divide(catalog: Catalog, split: str = "official", hold_out: Sequence[str] = (), wells: str = "treatment") -> Parts:
    """Divide the complete sites of a catalog.

    Parameters
    ----------
    catalog : Catalog
    split : {"official", "wilds", "experiments"}
        "official" holds out the test experiments; "wilds" the parts val, test and id_test of a WILDS data set (id_test
        has experiments of the training part, the other sites of its wells); "experiments" those of ``hold_out``.
    hold_out : sequence of str
        Names of experiments, for "experiments"; by default the last experiment of every cell type that has two.
    wells : {"treatment", "all"}
        What held-out parts are measured on. All labelled wells are trained on, as the winner of the competition did
        (Sypetkowski, kaggle-rcic-1st): positive controls are on every plate.

    Raises
    ------
    DataError
        A part is empty, or no site of the training part is labelled.
    UsageError
        The split does not exist in this data set, or an experiment doesn't.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split!r}: must be one of {', '.join(SPLITS)}")
    if hold_out and split != "experiments":
        raise UsageError(f"--hold-out goes with --split experiments, not with --split {split}")
    complete = catalog.available()
    if not len(complete):
        raise DataError(f"no site under {catalog.root} has all of its images")
    if split == "experiments":
        train, held_out = _by_experiment(complete, list(hold_out))
    else:
        names = _WILDS if split == "wilds" else ("test",)
        lacking = [name for name in ("train", *names) if name not in catalog.categories["split"]]
        if lacking:
            have = ", ".join(catalog.categories["split"])
            raise UsageError(f"--split {split}: this data set has no part {lacking[0]!r} (it has {have})")
        train, held_out = complete.split("train"), {name: complete.split(name) for name in names}
    train = train.take(np.flatnonzero(train.labels >= 0))
    if not len(train):
        raise DataError(f"--split {split}: no complete and labelled site to train on under {catalog.root}")
    if wells == "treatment":
        for name, part in held_out.items():
            held_out[name] = part.take(np.flatnonzero((part.table["well_type"] == "treatment").to_numpy()))
            if len(part) and not len(held_out[name]):
                raise DataError(f"no treatment well in the part {name!r}, controls only: take --wells all")
    for name, part in held_out.items():
        if not len(part):
            raise DataError(f"--split {split}: no complete site in the part {name!r} under {catalog.root}")
    return Parts(train, held_out)


def _by_experiment(catalog: Catalog, hold_out: list[str]):
    table = catalog.table
    every = catalog.categories["experiment"]
    if not hold_out:
        labelled = table[table["sirna_id"] >= 0]
        for _, names in labelled.groupby("cell_type", observed=True)["experiment"]:
            names = sorted(names.unique())
            hold_out += names[-1:] if len(names) > 1 else []
        if not hold_out:
            raise UsageError("--split experiments: no cell type has two labelled experiments; name some in --hold-out")
    unknown = sorted(set(hold_out) - set(every))
    if unknown:
        raise UsageError(f"--hold-out {unknown[0]!r}: no such experiment; choose from {', '.join(every)}")
    held = table["experiment"].isin(hold_out).to_numpy()
    return catalog.take(np.flatnonzero(~held)), {"held_out": catalog.take(np.flatnonzero(held))}
