"""Whether labels leak past the pictures: through mean intensities, places on the plate, or the order of files.

A generated data set, or a new split of a real one, is only worth training on if the siRNA can't be told without
looking at cells. Cheap linear models try to: from the mean of each channel; from means and deviations together, both
standardised by plate; from the well's row and column; from the site's place in the table. All are measured on
experiments that they were not fitted on, and so is one that is fitted on shuffled labels, which must be at chance
whatever it is given.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from rxrx_kernels.histogram import uint8 as moments
from scipy.stats import binom

from rxrx_fast.catalog import Catalog
from rxrx_fast.dataset import Dataset
from rxrx_fast.errors import DataError
from rxrx_fast.loader import DataLoader
from rxrx_fast.recipes.splits import Parts, divide

__all__ = ["examine", "ridge", "table"]

_RIDGE = 1.0


def ridge(inputs: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Labels that a ridge regression on one-hot targets predicts.

    Parameters
    ----------
    inputs : (N, D); labels : (N,) int64
        To fit on; inputs are standardised first.
    held_out : (M, D)

    Returns
    -------
    (M,) int64
    """
    mean, deviation = inputs.mean(0), inputs.std(0) + 1e-9
    x, asked = ((part - mean) / deviation for part in (inputs, held_out))
    classes, which = np.unique(labels, return_inverse=True)
    wanted = np.eye(len(classes))[which]
    level = wanted.mean(0)
    weights = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ (wanted - level))
    return classes[(asked @ weights + level).argmax(1)]


def intensities(catalog: Catalog, threads: int | None = None) -> tuple[np.ndarray, str]:
    """Mean and deviation of each channel of each site, standardised by plate: (N, 2 C); and the loader's sentence."""
    samples = Dataset(catalog, normalize="none", dtype="uint8")
    found = np.zeros((len(samples), 2 * len(samples.channels)))
    place = pd.Series(np.arange(len(samples)), samples.catalog.table.index)
    loader = DataLoader(samples, 64, num_threads=threads, device="cpu")
    for images, _, meta in loader:
        mean, deviation = (
            np.asarray(m) for m in zip(*(moments.mean_std(moments.histogram(i.numpy())) for i in images))
        )
        found[place[meta["site_index"].numpy()]] = np.concatenate([mean, deviation], axis=1)
    plates = samples.catalog.plate_keys()[0]
    for plate in np.unique(plates):
        own = plates == plate
        found[own] = (found[own] - found[own].mean(0)) / (found[own].std(0) + 1e-9)
    return found, loader.report()["sentence"]


def positions(catalog: Catalog) -> np.ndarray:
    """Row and column of each site's well, their powers to the third and products: (N, 9)."""
    wells = catalog.table["well"].astype(str)
    y, x = wells.str[0].map(ord).to_numpy() - ord("A"), wells.str[1:].astype(int).to_numpy()
    return np.stack([y**i * x**j for i in range(4) for j in range(4) if 0 < i + j <= 3], axis=1).astype(np.float64)


def places(catalog: Catalog) -> np.ndarray:
    """Place of each site in the table, within its plate, and its waves: (N, 9)."""
    plates = catalog.plate_keys()[0]
    order = pd.Series(np.arange(len(plates))).groupby(plates).rank().to_numpy()
    share = order / pd.Series(order).groupby(plates).transform("max").to_numpy()
    waves = [f(np.pi * k * share) for k in (1, 2, 4, 8) for f in (np.sin, np.cos)]
    return np.stack([share, *waves], axis=1)


def examine(
    root, split: str = "official", hold_out: tuple[str, ...] = (), threads: int | None = None, seed: int = 0
) -> dict:
    """Try to tell siRNAs of treatments without cells.

    Returns
    -------
    dict
        looks, by what was looked at: samples, accuracy, chance (the largest class's share of what is predicted on), and
        p_value, the probability of at least so many hits by chance, one-sided. Contrast, the deviation for a mean, may
        carry a little: finer fibres or smaller nuclei change it. loader: the sentences on who waited.
    """
    catalog = Catalog.read(root)
    parts = divide(catalog, split, hold_out)
    train = parts.train.take(np.flatnonzero((parts.train.table["well_type"] == "treatment").to_numpy()))
    asked = _joined(parts)
    asked = asked.take(np.flatnonzero(np.isin(asked.labels, train.labels)))
    if not len(train) or not len(asked):
        raise DataError("no treatment is labelled both in the training part and in what is held out")
    shuffled = np.random.default_rng(seed).permutation(train.labels)
    found = {}
    light, sentences = zip(*(intensities(part, threads) for part in (train, asked)))
    half = light[0].shape[1] // 2
    looks = {
        "mean intensities": (train.labels, *(part[:, :half] for part in light)),
        "means and contrast": (train.labels, *light),
        "shuffled labels": (shuffled, *light),
        "positions": (train.labels, positions(train), positions(asked)),
        "order of files": (train.labels, places(train), places(asked)),
    }
    # Sites of a well go together: one guess a well.
    first = ~asked.table["well_id"].duplicated().to_numpy()
    for name, (labels, inputs, held_out) in looks.items():
        hits = (ridge(inputs, labels, held_out) == asked.labels)[first]
        chance = float(np.bincount(asked.labels[first]).max() / first.sum())
        found[name] = {
            "samples": int(first.sum()),
            "accuracy": float(hits.mean()),
            "chance": chance,
            "p_value": float(binom.sf(hits.sum() - 1, len(hits), chance)),
        }
    return {"looks": found, "loader": dict(zip(("the training part", "what is held out"), sentences))}


def _joined(parts: Parts) -> Catalog:
    """All held-out sites, each once."""
    catalogs = list(parts.held_out.values())
    if len(catalogs) == 1:
        return catalogs[0]
    every = np.unique(np.concatenate([part.table.index.to_numpy() for part in catalogs]))
    whole = Catalog.read(catalogs[0].root)
    return whole.take(np.flatnonzero(whole.table.index.isin(every)))


def table(results: dict) -> str:
    """The results in a table for people."""
    lines = [f"{'told from':20}{'wells':>8}{'accuracy':>10}{'chance':>9}{'p':>10}"]
    for name, row in results["looks"].items():
        lines.append(f"{name:20}{row['samples']:8,}{row['accuracy']:10.2%}{row['chance']:9.2%}{row['p_value']:10.2g}")
    return "\n".join(lines)
