"""Corrections of the batch effect side by side: on pixels, in batch normalisation, and on embeddings.

One classifier is trained for every correction of pixels, with the same seed, order and steps. Corrections of embeddings
start from the wells' embeddings of one of these. For each row the same is measured: is the siRNA found in experiments
not trained on, and how much of the batch is left.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from rxrx_fast.errors import UsageError
from rxrx_fast.recipes import batch_mixing as mixing
from rxrx_fast.recipes import classify, figures, metrics
from rxrx_fast.recipes.embeddings import METHODS, correct
from rxrx_fast.recipes.pixels import CORRECTIONS, correction
from rxrx_fast.recipes.predict import Predictions
from rxrx_fast.recipes.trainer import is_first, processes, write_json

__all__ = ["PIXELS", "Settings", "run", "table"]

#: The corrections of pixels that are compared by default.
PIXELS = (
    "none", "experiment", "plate", "site", "controls", "quantile", "illumination", "adabn-plate", "adabn-experiment",
)  # fmt: skip
#: And of embeddings: those that need no further package.
EMBEDDINGS = tuple(name for name in METHODS if name != "harmony")


@dataclass(frozen=True)
class Settings(classify.Settings):
    """Those of the classifier, whose ``correction`` is now where corrections of embeddings start from.

    pixels, embeddings : tuple of str
        What is compared.
    """

    correction: str = "none"
    pixels: tuple[str, ...] = PIXELS
    embeddings: tuple[str, ...] = EMBEDDINGS

    def __post_init__(self):
        super().__post_init__()
        for name in self.pixels:
            correction(name)
        unknown = sorted(set(self.embeddings) - set(METHODS))
        if unknown:
            raise UsageError(f"--embeddings {unknown[0]!r}: must be among {', '.join(METHODS)}")
        if self.correction not in self.pixels:
            raise UsageError(
                f"--correction {self.correction}: corrections of embeddings start from it: add it to --pixels"
            )

    def classifier(self, name: str) -> classify.Settings:
        """The run of one correction of pixels."""
        own = {field.name: getattr(self, field.name) for field in fields(classify.Settings)}
        own |= {"correction": name, "out": str(Path(self.out) / f"pixels-{name}"), "wells": "all"}
        return classify.Settings(**own)


def measure(settings: Settings, wells: Predictions, held_out: np.ndarray, logits: bool, classes: np.ndarray) -> dict:
    """A row of the comparison.

    Parameters
    ----------
    settings : Settings
    wells : Predictions
        Of all wells, trained on and held out.
    held_out : (N,) bool
    logits : bool
        Whether the predictions' own logits belong to these embeddings.
    classes : (K,) int64
    """
    labels = wells.table["sirna_id"].to_numpy()
    treated = (wells.table["well_type"] == "treatment").to_numpy()
    asked = held_out & (labels >= 0) & (treated if settings.wells == "treatment" else True)
    # Only what a held-out well may be is learned; controls are known on every plate.
    shown = ~held_out & (treated if settings.wells == "treatment" else True)
    row: dict = {"accuracy": None, "probe": None}
    may_be = classify.choices(settings, classes)
    if logits and asked.any():
        target = metrics.targets(wells.table, classes[may_be])[asked]
        row["accuracy"] = metrics.scores(wells.logits[asked][:, may_be], target, wells.table[asked])["accuracy"]
    x = wells.embeddings
    if asked.any() and len(np.unique(labels[shown])) > 1:
        row["probe"] = float((mixing.probe(x[shown], labels[shown], x[asked], settings.seed) == labels[asked]).mean())
    row["retrieval"] = metrics.retrieval(x[asked], labels[asked], x[shown], labels[shown])["at_1"]
    return row | mixing.batch_left(x, wells.table, settings.seed)


def run(settings: Settings) -> dict:
    """Train, correct and measure; write ``results.json``, ``corrections.csv`` and ``embeddings.png``."""
    out = Path(settings.out)
    rows: dict[str, dict] = {}
    kept: dict[str, np.ndarray] = {}
    with processes():
        base = None
        for name in settings.pixels:
            one = settings.classifier(name)
            task = classify.build(one)
            model, sentence = classify.train(one, task)
            found = classify.evaluate(one, task, model)[1]
            wells, held_out = _joined(found)
            sentences = {"training": sentence} | {f"predicting {part}": said.sentence for part, said in found.items()}
            rows[name] = {"kind": "pixels", "what": CORRECTIONS[name].what, "loader": sentences}
            if is_first():
                rows[name] |= measure(settings, wells, held_out, True, task.classes)
            kept[name] = wells.embeddings
            if name == settings.correction:
                base = wells
        if not is_first():
            return {}
        for name in settings.embeddings:
            corrected = replace(base, embeddings=correct(name, base.embeddings, base.table))
            rows[name] = {"kind": "embeddings", "what": METHODS[name][0]}
            rows[name] |= measure(settings, corrected, held_out, False, task.classes)
            kept[name] = corrected.embeddings
    classes = task.classes[classify.choices(settings, task.classes)]
    results = {"settings": asdict(settings), "chance": 1 / len(classes), "rows": rows}
    write_json(out / "results.json", results)
    frame = pd.DataFrame.from_dict(rows, orient="index").drop(columns="loader")
    frame.rename_axis("correction").to_csv(out / "corrections.csv")
    after = _best(rows, settings.correction)
    shown = {f"before ({settings.correction})": kept[settings.correction], f"after ({after})": kept[after]}
    figures.embeddings(shown, base.table, out / "embeddings.png")
    return results


def _best(rows: dict[str, dict], base: str) -> str:
    """The correction whose picture is drawn: the one with the highest probe accuracy besides the base."""
    others = [name for name in rows if name != base] or [base]
    return max(others, key=lambda name: rows[name]["probe"] or 0.0)


def _joined(found: dict[str, Predictions]) -> tuple[Predictions, np.ndarray]:
    """All wells in one, and which are held out. A well of WILDS's id_test has its other site in the training part."""
    parts = list(found.items())
    wells = Predictions(
        pd.concat([said.table for _, said in parts]),
        np.concatenate([said.logits for _, said in parts]),
        np.concatenate([said.embeddings for _, said in parts]),
    )
    return wells, np.concatenate([np.full(len(said.table), name != "train") for name, said in parts])


_COLUMNS = {
    "accuracy": "accuracy", "probe": "probe", "retrieval": "nearest", "experiment": "exp. left", "plate": "plate left",
    "kbet_experiment": "kBET", "silhouette_experiment": "sil. exp.", "silhouette_sirna": "sil. siRNA",
}  # fmt: skip


def table(results: dict) -> str:
    """The comparison in a table for people."""
    lines = [f"{'':24}" + "".join(f"{title:>11}" for title in _COLUMNS.values())]
    for name, row in results["rows"].items():
        cells = []
        for column in _COLUMNS:
            value = row[column]
            form = ".2f" if column.startswith("silhouette") else ".1%"
            cells.append(f"{'-' if value is None else format(value, form):>11}")
        lines.append(f"{name:24}" + "".join(cells))
    first = next(iter(results["rows"].values()))
    chances = [f"siRNA {results['chance']:.1%}"]
    for column in ("experiment", "plate"):
        if first[f"{column}_chance"] is not None:
            chances.append(f"{column} {first[f'{column}_chance']:.1%}")
    lines.append(f"chance: {', '.join(chances)}; accuracy, probe and nearest are of held-out wells, higher is better; "
                 "what is left of experiment and plate, kBET and sil. exp.: lower is better")  # fmt: skip
    return "\n".join(lines)
