"""How much of the batch is left in embeddings: classifiers, silhouettes, and a test of neighbourhoods."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from scipy.stats import chi2

from rxrx_fast.errors import UsageError

__all__ = ["batch_left", "kbet", "probe", "silhouette", "told_apart"]


def _sklearn(module: str):
    """A module of scikit-learn."""
    from importlib import import_module

    try:
        return import_module(f"sklearn.{module}")
    except ImportError:
        raise UsageError("this needs scikit-learn: pip install 'rxrx-fast[train]'") from None


def probe(values: np.ndarray, labels: np.ndarray, held_out: np.ndarray, seed: int = 0) -> np.ndarray:
    """Labels that a logistic regression on (N, D) embeddings predicts for others: (M,)."""
    linear, scaling = _sklearn("linear_model"), _sklearn("preprocessing")
    scaler = scaling.StandardScaler().fit(values)
    model = linear.LogisticRegression(C=0.1, max_iter=500, random_state=seed)
    with warnings.catch_warnings():
        # A probe that has not converged to the last digit is a probe all the same.
        warnings.simplefilter("ignore")
        return model.fit(scaler.transform(values), labels).predict(scaler.transform(held_out))


def told_apart(values: np.ndarray, batches: np.ndarray, seed: int = 0) -> tuple[float, float] | None:
    """How well a linear classifier tells batches apart, and chance.

    Accuracy over five folds of logistic regression (fewer where a batch has fewer wells); chance is the largest
    batch's share. None where there are not two batches of two wells.
    """
    names, which, counts = np.unique(batches, return_inverse=True, return_counts=True)
    if len(names) < 2 or counts.min() < 2:
        return None
    selection = _sklearn("model_selection")
    folds = selection.StratifiedKFold(min(5, int(counts.min())), shuffle=True, random_state=seed)
    hits = [
        probe(values[fit], which[fit], values[test], seed) == which[test] for fit, test in folds.split(values, which)
    ]
    return float(np.concatenate(hits).mean()), float(counts.max() / counts.sum())


def silhouette(values: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean silhouette width (Rousseeuw 1987), -1 to 1: high where wells of a label lie together, apart from others."""
    _, counts = np.unique(labels, return_counts=True)
    if not 1 < len(counts) < len(labels):
        return None
    return float(_sklearn("metrics").silhouette_score(values, labels))


def kbet(values: np.ndarray, batches: np.ndarray, neighbours: int | None = None, level: float = 0.05) -> float | None:
    """Share of wells whose neighbourhood has not the batches that all wells have together, 0 to 1.

    Pearson's chi-squared test of each well's nearest neighbours (Buettner et al., "A test metric for assessing
    single-cell RNA-seq batch correction", Nature Methods 2019); about ``level`` is left where batches are mixed. By
    default a neighbourhood is a quarter of the mean batch, as there, and at least 10.
    """
    names, which, counts = np.unique(batches, return_inverse=True, return_counts=True)
    neighbours = neighbours or max(10, len(values) // (4 * len(names)))
    if len(names) < 2 or neighbours >= len(values):
        return None
    search = _sklearn("neighbors").NearestNeighbors(n_neighbors=neighbours).fit(values)
    near = which[search.kneighbors(return_distance=False)]
    observed = np.stack([(near == b).sum(1) for b in range(len(names))], axis=1)
    expected = neighbours * counts / counts.sum()
    statistic = ((observed - expected) ** 2 / expected).sum(1)
    return float((chi2.sf(statistic, len(names) - 1) < level).mean())


def batch_left(values: np.ndarray, table: pd.DataFrame, seed: int = 0) -> dict:
    """How much of experiment and plate is left, and how much of the siRNA, within cell types.

    Parameters
    ----------
    values : (N, D)
    table : DataFrame
        N wells with ``cell_type``, ``experiment``, ``plate``, ``well_type`` and ``sirna_id``.

    Returns
    -------
    dict
        experiment, plate: accuracy of a classifier, and experiment_chance, plate_chance; silhouette_experiment and
        silhouette_sirna; kbet_experiment. Each is the mean over cell types with more than one batch, by wells, and None
        without any. Plates are told apart within an experiment, by control wells alone: treatments differ from plate
        to plate.
    """
    sums: dict[str, list[tuple[float, int]]] = {}

    def add(count: int, **found) -> None:
        for name, value in found.items():
            if value is not None:
                sums.setdefault(name, []).append((value, count))

    kinds, experiments = (table[name].astype(str).to_numpy() for name in ("cell_type", "experiment"))
    controls = (table["well_type"] != "treatment").to_numpy()
    for kind in np.unique(kinds):
        own = np.flatnonzero(kinds == kind)
        x, batches = values[own], experiments[own]
        apart = told_apart(x, batches, seed)
        if apart is not None:
            add(len(own), experiment=apart[0], experiment_chance=apart[1], kbet_experiment=kbet(x, batches),
                silhouette_experiment=silhouette(x, batches))  # fmt: skip
        known = (table["sirna_id"].to_numpy() >= 0)[own]
        add(len(own), silhouette_sirna=silhouette(x[known], table["sirna_id"].to_numpy()[own][known]))
    for experiment in np.unique(experiments):
        own = np.flatnonzero((experiments == experiment) & controls)
        apart = told_apart(values[own], table["plate"].to_numpy()[own], seed)
        if apart is not None:
            add(len(own), plate=apart[0], plate_chance=apart[1])
    names = ("experiment", "experiment_chance", "plate", "plate_chance", "kbet_experiment", "silhouette_experiment",
             "silhouette_sirna")  # fmt: skip
    return {name: _mean(sums[name]) if name in sums else None for name in names}


def _mean(found: list[tuple[float, int]]) -> float:
    values, weights = zip(*found)
    return float(np.average(values, weights=weights))
