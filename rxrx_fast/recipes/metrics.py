"""How well siRNAs are told apart: accuracy, top-5, by cell type and experiment, and retrieval from embeddings."""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["retrieval", "scores", "targets"]


def targets(table: pd.DataFrame, classes: np.ndarray) -> np.ndarray:
    """Positions of the rows' siRNAs in ``classes``, a sorted (K,) int64; -1 if unlabelled, -2 if not among them."""
    labels = table["sirna_id"].to_numpy(dtype=np.int64)
    place = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    return np.where(labels < 0, -1, np.where(classes[place] == labels, place, -2))


def scores(logits: np.ndarray, target: np.ndarray, table: pd.DataFrame) -> dict:
    """Accuracy and top-5, in all and by cell type and experiment.

    Parameters
    ----------
    logits : (N, K)
    target : (N,) int64
        As of :func:`targets`. Unlabelled samples don't count; a label that no class stands for counts as wrong.
    table : DataFrame
        N rows with ``cell_type`` and ``experiment``.

    Returns
    -------
    dict
        samples, accuracy, top5 (None without a labelled sample), and the same under by_cell_type and by_experiment.
    """
    known = target != -1
    rank = np.full(len(target), logits.shape[1])
    seen = target >= 0
    own = logits[np.flatnonzero(seen), target[seen]]
    # A tie is no success: whoever says the same of all classes has said nothing.
    rank[seen] = (logits[seen] >= own[:, None]).sum(1) - 1

    def part(keep: np.ndarray) -> dict:
        keep = keep & known
        if not keep.any():
            return {"samples": 0, "accuracy": None, "top5": None}
        hits = {"accuracy": float((rank[keep] < 1).mean()), "top5": float((rank[keep] < 5).mean())}
        return {"samples": int(keep.sum()), **hits}

    found = part(np.ones(len(target), bool))
    for column in ("cell_type", "experiment"):
        names = table[column].astype(str).to_numpy()
        found[f"by_{column}"] = {name: part(names == name) for name in sorted(set(names))}
    return found


def retrieval(
    queries: np.ndarray, query_labels: np.ndarray, gallery: np.ndarray, gallery_labels: np.ndarray, depth: int = 5
) -> dict:
    """Nearest-neighbour retrieval by the cosine: does a well's neighbour have its siRNA?

    Parameters
    ----------
    queries : (N, D); gallery : (M, D)
    query_labels : (N,); gallery_labels : (M,)
        Queries without a label (-1), or whose label the gallery lacks, don't count.

    Returns
    -------
    dict
        queries, at_1 and at_5 (share of queries with a match among the nearest 1 and ``depth``), map (mean average
        precision over the gallery), chance_at_1 (expected at_1 of a random gallery well).
    """
    asked = (query_labels >= 0) & np.isin(query_labels, gallery_labels)
    if not asked.any():
        return {"queries": 0, "at_1": None, f"at_{depth}": None, "map": None, "chance_at_1": None}
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (queries[asked], gallery)]
    labels = query_labels[asked]
    found = {"at_1": [], f"at_{depth}": [], "map": [], "chance_at_1": []}
    # Blocks, because all wells of RxRx1 against all make 4 billion similarities.
    for start in range(0, len(labels), 1024):
        block = labels[start : start + 1024]
        near = np.argsort(-(unit[0][start : start + 1024] @ unit[1].T), axis=1, kind="stable")
        match = gallery_labels[near] == block[:, None]
        precision = match.cumsum(1) / np.arange(1, match.shape[1] + 1)
        found["at_1"].append(match[:, 0])
        found[f"at_{depth}"].append(match[:, :depth].any(1))
        found["map"].append((precision * match).sum(1) / match.sum(1))
        found["chance_at_1"].append(match.mean(1))
    return {"queries": len(labels), **{name: float(np.concatenate(parts).mean()) for name, parts in found.items()}}
