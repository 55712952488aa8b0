"""What is known of a plate before looking: which siRNAs it can carry, and that it carries each once.

RxRx1's 1,108 treatments fall into four groups of 277; every plate carries one group, every experiment all four, and a
plate has no siRNA twice. The groups are read off the training part. Which group a held-out plate carries is inferred
from the predictions of its wells, never from their labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import log_softmax, logsumexp, softmax

from rxrx_fast.catalog import Catalog

__all__ = ["STEPS", "assign", "balance", "infer_groups", "resolve", "treatment_groups"]

#: What :func:`resolve` gives, each step on top of the last.
STEPS = ("plain", "restricted", "balanced", "assigned")
# DeepNoise, ensemble.py, pre_balance: the first step of a coefficient, and the one below which it is over.
_FIRST, _LEAST = 0.01, 0.0001


def treatment_groups(part: Catalog, classes: np.ndarray) -> list[np.ndarray]:
    """The groups of treatments that plates of a labelled part carry: arrays of positions in ``classes``.

    Treatments that were ever on one plate are of one group. The catalog's own column ``group`` is made with the labels
    of all parts, so it is not asked.

    Parameters
    ----------
    part : Catalog
    classes : (K,) int64
        Labels of treatments, sorted.
    """
    own = np.isin(part.labels, classes)
    _, plates = np.unique(part.plate_keys()[0][own], return_inverse=True)
    label = np.searchsorted(classes, part.labels[own])
    shared = coo_array((np.ones(len(label)), (plates, label)), (plates.max(initial=-1) + 1, len(classes)))
    group = connected_components(shared.T @ shared, directed=False)[1]
    return [np.flatnonzero(group == g) for g in np.unique(group)]


def infer_groups(logits: Sequence[np.ndarray], groups: Sequence[np.ndarray]) -> list[int]:
    """Which group each plate of one experiment carries.

    Parameters
    ----------
    logits : list of (wells, K)
        One a plate.
    groups : list of int arrays

    Returns
    -------
    list of int
        Different groups for different plates, those that make the predictions most likely together; where there are
        more plates than groups, each plate's own best.
    """
    mass = np.array([[logsumexp(log_softmax(x, 1)[:, g], 1).mean() for g in groups] for x in logits])
    if len(logits) > len(groups):
        return mass.argmax(1).tolist()
    return linear_sum_assignment(-mass)[1].tolist()


def balance(shares: np.ndarray, rounds: int = 3000) -> np.ndarray:
    """Coefficients of classes under which predictions spread evenly, as DeepNoise finds them (pre_balance).

    The class that is predicted most is made a little less likely, again and again; the coefficients under which most
    predictions fall within an even share are kept, and the step is halved when a round of it no longer helps.

    Parameters
    ----------
    shares : (wells, classes)
        Not negative.
    rounds : int
        Coefficients changed for each length of the step; 0 leaves the shares as they are.

    Returns
    -------
    (wells, classes)
        The shares times the coefficients.
    """
    even = 1 / shares.shape[1]
    coefficients, step = np.ones(shares.shape[1]), _FIRST

    def count(coefficients):
        return np.bincount((shares * coefficients).argmax(1), minlength=shares.shape[1])

    def score(counts):
        return np.minimum(counts / len(shares), even).sum()

    last = score(count(coefficients))
    while rounds and step >= _LEAST and last < 1 - 1e-9:
        best, best_score, trial = coefficients, last, coefficients.copy()
        counts = count(trial)
        for _ in range(rounds):
            trial[counts.argmax()] -= step
            counts = count(trial)
            if score(counts) > best_score:
                best, best_score = trial.copy(), score(counts)
        if best_score <= last:
            step /= 2
        coefficients, last = best, best_score
    return shares * coefficients


def assign(shares: np.ndarray) -> np.ndarray:
    """One class a well and one well a class, with the largest sum of shares: (wells,) int64.

    Where a plate has more wells than classes, those left over take their own best class.
    """
    chosen = shares.argmax(1)
    rows, columns = linear_sum_assignment(-shares)
    chosen[rows] = columns
    return chosen


def resolve(
    logits: np.ndarray, table: pd.DataFrame, groups: Sequence[np.ndarray], rounds: int = 3000
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Predictions of treatment wells under what is known of plates.

    Parameters
    ----------
    logits : (N, K)
        Of treatments' classes alone.
    table : DataFrame
        N wells with ``experiment`` and ``plate``.
    groups : list of int arrays
        As of :func:`treatment_groups`.
    rounds : int
        See :func:`balance`.

    Returns
    -------
    steps : dict of str to (N, K)
        By :data:`STEPS`: the logits; those outside of the plate's group taken away; shares of each class over the
        plate's wells (softmax down the wells, as in the authors' ensemble.py), balanced; 1 where a well has a class.
    carried : (N,) int64
        The group inferred for each well's plate.
    """
    steps = {name: np.full(logits.shape, -np.inf if name == "restricted" else 0.0) for name in STEPS[1:]}
    carried = np.zeros(len(table), np.int64)
    experiments = table["experiment"].astype(str).to_numpy()
    for experiment in np.unique(experiments):
        plates = [np.flatnonzero((experiments == experiment) & (table["plate"] == p).to_numpy())
                  for p in np.unique(table["plate"][experiments == experiment])]  # fmt: skip
        for rows, which in zip(plates, infer_groups([logits[rows] for rows in plates], groups)):
            own = np.ix_(rows, groups[which])
            carried[rows] = which
            steps["restricted"][own] = logits[own]
            shares = balance(softmax(logits[own].astype(np.float64), axis=0), rounds)
            steps["balanced"][own] = shares
            steps["assigned"][rows, groups[which][assign(shares)]] = 1.0
    return {"plain": logits, **steps}, carried
