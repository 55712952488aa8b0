"""Pictures of results."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

__all__ = ["ablation", "by_cell_type", "embeddings"]

_GREY = "#888888"
_UMAP_LEAST = 16


def _axes(rows: int, columns: int, size: tuple[float, float]):
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def by_cell_type(results: dict, path: str | os.PathLike) -> None:
    """Accuracy by cell type, of wells and of single sites, for every held-out part; the line is chance."""
    parts = {name: part for name, part in results["held_out"].items() if part["well"]["samples"]}
    figure, axes = _axes(1, len(parts), (1.5 + 3.2 * len(parts), 3.2))
    for axis, (name, part) in zip(axes[0], parts.items()):
        kinds = [kind for kind, found in part["well"]["by_cell_type"].items() if found["samples"]]
        for shift, level, colour in ((-0.2, "site", "#9ecae1"), (0.2, "well", "#2171b5")):
            heights = [part[level]["by_cell_type"][kind]["accuracy"] for kind in kinds]
            bars = axis.bar(np.arange(len(kinds)) + shift, heights, 0.4, color=colour, label=f"{level}s")
            axis.bar_label(bars, [f"{height:.0%}" for height in heights], fontsize=7)
        axis.axhline(results["chance"], color=_GREY, linestyle="--", linewidth=1, label="chance")
        axis.set_xticks(np.arange(len(kinds)), kinds)
        axis.set_ylim(0, 1.08)
        axis.set_title(name, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("accuracy")
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def ablation(results: dict, path: str | os.PathLike) -> None:
    """Accuracy of held-out wells by row: a point a seed, a bar the mean; as predicted, and with each siRNA once."""
    rows = results["rows"]
    figure, ((axis,),) = _axes(1, 1, (7.5, 1.0 + 0.42 * len(rows)))
    places = np.arange(len(rows))[::-1]
    for shift, step, colour, name in (
        (0.19, "plain", "#2171b5", "as predicted"),
        (-0.19, "assigned", "#9ecae1", "each siRNA once a plate"),
    ):
        values = [[one[step] for one in row["seeds"]] for row in rows.values()]
        axis.barh(places + shift, [np.mean(own) for own in values], 0.36, color=colour, label=name)
        for place, own in zip(places + shift, values):
            axis.plot(own, [place] * len(own), "o", color="black", markersize=2.5)
    axis.axvline(results["chance"], color=_GREY, linestyle="--", linewidth=1, label="chance")
    axis.set_yticks(places, [row["what"] for row in rows.values()], fontsize=8)
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.set_xlabel("accuracy of wells in experiments not trained on", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=8, frameon=False, loc="outside upper right", ncols=3)
    figure.savefig(path, dpi=150)


def embeddings(rows: Mapping[str, np.ndarray], table: pd.DataFrame, path: str | os.PathLike, most: int = 12) -> None:
    """Embeddings in a plane, coloured by experiment and by siRNA: by UMAP where umap-learn is installed, else by PCA.

    Parameters
    ----------
    rows : mapping of str to (N, D)
        One row of panels each.
    table : DataFrame
        N wells with ``experiment`` and ``sirna_id``.
    path : path
    most : int
        siRNAs that get a colour, the most frequent; the rest is grey.
    """
    import matplotlib

    experiments = table["experiment"].astype(str).to_numpy()
    common = table["sirna_id"].value_counts().index[:most].tolist()
    sirnas = [str(label) if label in common else "" for label in table["sirna_id"]]
    figure, axes = _axes(len(rows), 2, (8.5, 0.4 + 3.2 * len(rows)))
    for line, (name, values) in zip(axes, rows.items()):
        places, how = _plane(values)
        for axis, groups, what in zip(line, (experiments, np.array(sirnas)), ("experiment", "siRNA")):
            for number, group in enumerate(sorted(set(groups))):
                chosen = groups == group
                colour = matplotlib.colormaps["tab20"](number % 20) if group else (0.8, 0.8, 0.8, 0.5)
                axis.scatter(*places[chosen].T, s=10, color=colour, label=group or "others", linewidths=0)
            axis.set_title(f"{name}, by {what} ({how})", fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    for axis in axes[0]:
        axis.legend(fontsize=6, frameon=False, ncols=2, markerscale=1.5)
    figure.savefig(path, dpi=130)


def _plane(values: np.ndarray) -> tuple[np.ndarray, str]:
    """(N, D) to (N, 2), and how: by UMAP (McInnes, Healy and Melville, 2018), or principal components."""
    try:
        from umap import UMAP
    except ImportError:
        UMAP = None
    # UMAP begins with a spectral layout of the neighbours' graph, which needs some points.
    if UMAP is not None and len(values) >= _UMAP_LEAST:
        with warnings.catch_warnings():
            # It remarks that a seed costs it its threads.
            warnings.simplefilter("ignore")
            return UMAP(n_neighbors=min(15, len(values) - 1), random_state=0).fit_transform(values), "UMAP"
    centred = values - values.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:2].T, "PCA"
