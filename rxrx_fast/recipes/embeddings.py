"""Corrections of embeddings: each takes N wells of D numbers to N wells of D numbers, and no siRNA of a treatment.

They see all wells at once, held-out experiments too, as whoever has screened a new plate does: its pictures and which
wells are controls are known, and labels are not used.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from rxrx_fast.errors import DataError, UsageError

__all__ = ["METHODS", "combat", "coral", "correct", "sphering"]

# Share of the mean variance that is added to every direction: covariances come from fewer wells than dimensions.
_SHRINKAGE = 0.1


def center(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Every group's mean becomes 0."""
    return _each(values, groups, lambda own: own - own.mean(0))


def standardize(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Every group's dimensions get mean 0 and standard deviation 1."""
    return _each(values, groups, lambda own: (own - own.mean(0)) / np.where(own.std(0) > 0, own.std(0), 1))


def sphering(values: np.ndarray, plates: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Typical variation normalisation, without its second stage: what varies among controls is no phenotype.

    Each plate is centred on its controls; then all is whitened by the covariance that its controls have about them, so
    that no direction of the chance between plates and wells is longer than another (Ando, McLean and Berndl,
    "Improving phenotypic measurements in high-content imaging screens", bioRxiv 2017).

    Parameters
    ----------
    values : (N, D)
    plates : (N,)
    controls : (N,) bool
    """
    centred = np.empty_like(values)
    for plate in np.unique(plates):
        own = plates == plate
        if not (own & controls).any():
            raise DataError(f"plate {plate} has no control well: sphering centres every plate on its controls")
        centred[own] = values[own] - values[own & controls].mean(0)
    return centred @ _power(centred[controls], -0.5)


def coral(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Correlation alignment: each group gets the mean and covariance that groups have in the middle.

    x becomes x C_group^(-1/2) C^(1/2) (Sun, Feng and Saenko, "Return of frustratingly easy domain adaptation", AAAI
    2016), with covariances shrunk towards a multiple of the identity.
    """
    pooled = _power(center(values, groups), 0.5)
    return _each(
        values, groups, lambda own: (own - own.mean(0)) @ _power(own - own.mean(0), -0.5) @ pooled
    ) + values.mean(0)


def tvn(values: np.ndarray, plates: np.ndarray, experiments: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Typical variation normalisation with both stages: sphering, then CORAL of each experiment by its controls."""
    sphered = sphering(values, plates, controls)
    pooled = _power(sphered[controls], 0.5)
    for experiment in np.unique(experiments):
        own = experiments == experiment
        sphered[own] = sphered[own] @ _power(sphered[own & controls], -0.5) @ pooled
    return sphered


def combat(values: np.ndarray, batches: np.ndarray, rounds: int = 200, tolerance: float = 1e-6) -> np.ndarray:
    """ComBat: a shift and a scale of each batch and dimension, shrunk towards those of the batch's other dimensions.

    The parametric empirical Bayes of Johnson, Li and Rabinovic, "Adjusting batch effects in microarray expression data
    using empirical Bayes methods", Biostatistics 2007, without covariates: labels of treatments are not to be known.

    Parameters
    ----------
    values : (N, D)
    batches : (N,)
        Each with at least two wells.
    """
    names, which, counts = np.unique(batches, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise DataError(f"batch {names[counts.argmin()]} has one well: ComBat needs two for its scale")
    means = np.stack([values[which == b].mean(0) for b in range(len(names))])
    grand = counts @ means / len(values)
    pooled = np.sqrt(((values - means[which]) ** 2).mean(0))
    pooled = np.where(pooled > 0, pooled, 1)
    z = (values - grand) / pooled
    found = np.empty_like(z)
    for b, count in enumerate(counts):
        own = z[which == b]
        shift, scale = own.mean(0), own.var(0, ddof=1)
        prior, spread = shift.mean(), shift.var(ddof=1)
        m, s2 = scale.mean(), max(scale.var(ddof=1), 1e-12)
        a, rate = (2 * s2 + m**2) / s2, (m * s2 + m**3) / s2
        gamma, delta = shift, np.maximum(scale, 1e-12)
        for _ in range(rounds):
            before = gamma, delta
            gamma = (spread * count * shift + delta * prior) / (spread * count + delta)
            delta = (((own - gamma) ** 2).sum(0) / 2 + rate) / (count / 2 + a - 1)
            if max(abs(new - old).max() for new, old in zip((gamma, delta), before)) < tolerance:
                break
        found[which == b] = (own - gamma) / np.sqrt(delta)
    return found * pooled + grand


def harmony(values: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Harmony (Korsunsky et al., Nature Methods 2019), by the package harmonypy."""
    try:
        import harmonypy
    except ImportError:
        raise UsageError("harmony needs the package harmonypy: pip install 'rxrx-fast[harmony]'") from None
    meta = pd.DataFrame({"batch": np.asarray(batches).astype(str)})
    fitted = harmonypy.run_harmony(np.ascontiguousarray(values, np.float64), meta, "batch", verbose=False)
    corrected = np.asarray(fitted.Z_corr)
    return corrected if corrected.shape == values.shape else corrected.T


#: By name: what is done, and a function of (values, keys), keys being a dict of (N,) arrays plate, experiment, control.
METHODS: dict[str, tuple[str, Callable]] = {
    "center-plate": ("each plate's mean to 0", lambda x, k: center(x, k["plate"])),
    "center-experiment": ("each experiment's mean to 0", lambda x, k: center(x, k["experiment"])),
    "standardize-plate": ("each plate to mean 0, deviation 1", lambda x, k: standardize(x, k["plate"])),
    "standardize-experiment": ("each experiment to mean 0, deviation 1", lambda x, k: standardize(x, k["experiment"])),
    "sphering": ("whitened by the controls", lambda x, k: sphering(x, k["plate"], k["control"])),
    "tvn": ("sphering, then CORAL on controls", lambda x, k: tvn(x, k["plate"], k["experiment"], k["control"])),
    "coral": ("each experiment to the common covariance", lambda x, k: coral(x, k["experiment"])),
    "combat": ("shrunk shift and scale of each experiment", lambda x, k: combat(x, k["experiment"])),
    "harmony": ("soft clusters, each mixed", lambda x, k: harmony(x, k["experiment"])),
}


def correct(name: str, values: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """Embeddings of wells under a correction.

    Parameters
    ----------
    name : str
        Of :data:`METHODS`.
    values : (N, D)
    table : DataFrame
        N wells with ``experiment``, ``plate`` and ``well_type``.
    """
    if name not in METHODS:
        raise UsageError(f"embedding correction {name!r}: must be one of {', '.join(METHODS)}")
    experiment = table["experiment"].astype(str).to_numpy()
    keys = {
        "experiment": experiment,
        "plate": np.array([f"{e}/{p}" for e, p in zip(experiment, table["plate"])]),
        "control": (table["well_type"] != "treatment").to_numpy(),
    }
    return METHODS[name][1](np.asarray(values, np.float64), keys)


def _each(values: np.ndarray, groups: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    found = np.empty_like(values)
    for group in np.unique(groups):
        own = groups == group
        found[own] = change(values[own])
    return found


def _power(centred: np.ndarray, exponent: float) -> np.ndarray:
    """A power of the shrunk covariance of (N, D) centred values: (D, D), symmetric."""
    covariance = centred.T @ centred / len(centred)
    floor = _SHRINKAGE * np.trace(covariance) / len(covariance)
    light, directions = np.linalg.eigh(covariance + (floor or 1.0) * np.eye(len(covariance)))
    return (directions * light**exponent) @ directions.T
