"""Corrections of pixels by name: what the loader normalises with, and how batches are grouped."""

from __future__ import annotations

from dataclasses import dataclass

from rxrx_fast.errors import UsageError
from rxrx_fast.stats.normalize import Normalize

__all__ = ["CORRECTIONS", "Correction", "correction"]


@dataclass(frozen=True)
class Correction:
    """How the loader is asked to undo the batch effect.

    Parameters
    ----------
    what : str
        In words.
    normalize : Normalize
    group_by : {None, "plate", "experiment"}
        Batches of one group, so that batch normalisation takes the group's own statistics: in training each batch's,
        in evaluation those of the whole group (AdaBN: Li et al., "Revisiting batch normalization for practical domain
        adaptation", 2016; BEN: Lin and Lu, "Incorporating knowledge of plates in batch normalization", 2022).
    """

    what: str
    normalize: Normalize
    group_by: str | None = None


# Grey values of RxRx1 lie at 2 to 40 of 255; a network can't learn from raw ones. So "none" is one scale for all.
_GLOBAL = Normalize(level="global")

#: Corrections by name.
CORRECTIONS = {
    "none": Correction("one mean and deviation of all pixels, channels and batches alike to the network", _GLOBAL),
    "cell_type": Correction("mean and deviation of each cell type", Normalize(level="cell_type")),
    "experiment": Correction("mean and deviation of each experiment", Normalize(level="experiment")),
    "plate": Correction("mean and deviation of each plate", Normalize(level="plate")),
    "site": Correction("mean and deviation of each image", Normalize(level="site")),
    "controls": Correction(
        "mean and deviation of each plate's negative controls", Normalize(level="plate", wells="negative_control")
    ),
    "robust": Correction(
        "median and MAD of each plate", Normalize(level="plate", center="median", scale="mad")
    ),
    "quantile": Correction("each plate's grey values matched to those of all", Normalize(method="quantile")),
    "illumination": Correction(
        "mean and deviation of each plate, after its uneven light", Normalize(level="plate", illumination=True)
    ),
    "adabn-plate": Correction("batches of one plate, its own batch normalisation", _GLOBAL, "plate"),
    "adabn-experiment": Correction("batches of one experiment, its own batch normalisation", _GLOBAL, "experiment"),
}  # fmt: skip


def correction(name: str) -> Correction:
    """A correction by its name."""
    if name not in CORRECTIONS:
        raise UsageError(f"correction {name!r}: must be one of {', '.join(CORRECTIONS)}")
    return CORRECTIONS[name]
