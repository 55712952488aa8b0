"""DeepNoise's steps one by one: what each adds, over several seeds, with the differences that its authors report.

Their ablation (validation accuracy): random batches 40+; batches of one experiment, of one plate, with adaptive batch
normalisation 60+, 70+; normalised by experiment, by plate instead 60+, 70+; then ArcFace 85, mean teacher 90,
pseudo-labels 95, one siRNA a well 99.6 (with folds). Every row here is trained from scratch with the recipe of the
rows before it and one thing more, so that a difference has one cause. The second stage is longer training as well, so
it has a row without a teacher, which theirs has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from rxrx_fast.errors import UsageError
from rxrx_fast.recipes import classify, deepnoise, figures
from rxrx_fast.recipes.classify import Task
from rxrx_fast.recipes.heads import Classifier
from rxrx_fast.recipes.plates import STEPS
from rxrx_fast.recipes.trainer import is_first, processes, write_json

__all__ = ["ORDER", "ROWS", "Settings", "run", "table"]

#: Rows of the ablation: name and what is new in it.
ROWS = {
    "random": "random batches, one scale for all",
    "experiment": "normalised by experiment",
    "plate": "normalised by plate",
    "adabn-experiment": "batches of one experiment, adaptive batch normalisation",
    "adabn-plate": "batches of one plate, adaptive batch normalisation",
    "arcface": "plate, and ArcFace",
    "longer": "and the second stage's steps, without a teacher",
    "teacher": "and a mean teacher",
    "pseudo": "and pseudo-labels",
}
#: Which is said to be better than which: (row, step) each, a step of rxrx_fast.recipes.plates.STEPS.
ORDER = (
    (("random", "plain"), ("experiment", "plain")),
    (("experiment", "plain"), ("plate", "plain")),
    (("random", "plain"), ("adabn-experiment", "plain")),
    (("adabn-experiment", "plain"), ("adabn-plate", "plain")),
    (("plate", "plain"), ("arcface", "plain")),
    (("arcface", "plain"), ("teacher", "plain")),
    (("longer", "plain"), ("teacher", "plain")),
    (("teacher", "plain"), ("pseudo", "plain")),
    (("pseudo", "plain"), ("pseudo", "assigned")),
)
_CORRECTIONS = {"random": "none", "arcface": "plate"}
_SECOND_STAGE = {
    "longer": {"consistency": 0.0, "pseudo_weight": 0.0},
    "teacher": {"pseudo_weight": 0.0},
    "pseudo": {},
}


@dataclass(frozen=True)
class Settings(deepnoise.Settings):
    """Those of DeepNoise, with the classifier's rate for what comes before the second stage.

    roots : tuple of str
        Data sets of the second and further seeds, one each; none: ``root`` serves all seeds.
    seeds : tuple of int
    rows : tuple of str
        Of :data:`ROWS`.
    """

    head: str = "linear"
    epochs: int = 20
    lr: float = 1e-3
    roots: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    rows: tuple[str, ...] = tuple(ROWS)

    def __post_init__(self):
        super().__post_init__()
        unknown = sorted(set(self.rows) - set(ROWS))
        if unknown:
            raise UsageError(f"--rows {unknown[0]!r}: must be among {', '.join(ROWS)}")
        if len(self.roots) not in (0, len(self.seeds) - 1):
            raise UsageError(f"{1 + len(self.roots)} data sets for {len(self.seeds)} seeds: give one, or one a seed")

    def repetition(self, number: int) -> Settings:
        """One seed's run, in a folder of its own."""
        root = self.roots[number - 1] if self.roots and number else self.root
        seed = self.seeds[number]
        return replace(self, root=root, roots=(), seeds=(seed,), seed=seed, out=str(Path(self.out) / f"seed-{seed}"))


def run(settings: Settings) -> dict:
    """Train every row with every seed; write ``results.json`` and ``ablation.png``. Stopped, it goes on."""
    with processes():
        found: dict[str, list[dict]] = {name: [] for name in settings.rows}
        for number in range(len(settings.seeds)):
            own = settings.repetition(number)
            task = classify.build(own)
            if not any((part.labels >= 0).any() for part in task.parts.held_out.values()):
                raise UsageError(
                    f"no held-out well of {own.root} has a label, so nothing can be measured: "
                    "--split experiments holds out labelled ones"
                )
            for name, row in _repetition(own, task).items():
                found[name].append(row)
        results = {
            "settings": asdict(settings),
            "chance": 1 / int(classify.choices(settings, task.classes).sum()),
            "rows": {name: {"what": ROWS[name], "seeds": rows} for name, rows in found.items()},
        }
        results["order"] = _order(results)
        if is_first():
            write_json(Path(settings.out) / "results.json", results)
            figures.ablation(results, Path(settings.out) / "ablation.png")
    return results


def _repetition(settings: Settings, task: Task) -> dict[str, dict]:
    """Rows of one seed."""
    rows, start = {}, None
    for name in settings.rows:
        if name in _SECOND_STAGE:
            continue
        own = _first_stage(settings, name)
        model, sentence = classify.train(own, task)
        rows[name] = _measure(own, task, {}, model, {"training": sentence})
        if name == "arcface":
            start = model
    for name in settings.rows:
        if name not in _SECOND_STAGE:
            continue
        if start is None:
            start = classify.train(_first_stage(settings, "arcface"), task)[0]
        own = _part(deepnoise.Settings, settings, name, correction="plate", head="arcface", **_SECOND_STAGE[name])
        models, sentences = {}, {}
        for kind in deepnoise.kinds(task):
            models[kind], sentences[kind] = deepnoise.finetune(own, task, start, kind)
        rows[name] = _measure(own, task, models, start, sentences)
    return {name: rows[name] for name in settings.rows}


def _first_stage(settings: Settings, name: str) -> classify.Settings:
    head = "arcface" if name == "arcface" else settings.head
    return _part(classify.Settings, settings, name, correction=_CORRECTIONS.get(name, name), head=head)


def _part(kind, settings: Settings, name: str, **own):
    """The settings of one row's run: a checkpoint of it must not depend on which other rows there are."""
    taken = {field.name: getattr(settings, field.name) for field in fields(kind)}
    return kind(**(taken | {"out": str(Path(settings.out) / name)} | own))


def _measure(
    own: classify.Settings, task: Task, models: dict[str, Classifier], start: Classifier, sentences: dict[str, str]
) -> dict:
    """Accuracy of wells over all held-out parts, after each step of what is known of plates; and who waited."""
    right, wells = dict.fromkeys(STEPS, 0.0), 0
    for name, part in task.parts.held_out.items():
        found = deepnoise.evaluate(own, task, part, models, start, name)
        sentences = sentences | found["loader"]
        if found["plain"]["accuracy"] is None:  # a part without labels
            continue
        wells += found["wells"]
        for step in STEPS:
            right[step] += found[step]["accuracy"] * found["wells"]
    return {"wells": wells, "loader": sentences} | {step: value / wells for step, value in right.items()}


def _order(results: dict) -> list[dict]:
    """What the authors report, and in how many seeds it holds here."""
    told = []
    rows = results["rows"]
    for (low, low_step), (high, high_step) in ORDER:
        if low in rows and high in rows:
            gains = [b[high_step] - a[low_step] for a, b in zip(rows[low]["seeds"], rows[high]["seeds"])]
            told.append({
                "less": f"{low}" + (f", {low_step}" if low_step != "plain" else ""),
                "more": f"{high}" + (f", {high_step}" if high_step != "plain" else ""),
                "gains": gains, "holds": sum(gain > 0 for gain in gains),
            })  # fmt: skip
    return told


def spread(values: Sequence[float]) -> str:
    """Mean, and least and greatest: ``34% (27 to 41)``."""
    return f"{np.mean(values):.0%} ({100 * min(values):.0f} to {100 * max(values):.0f})"


def table(results: dict) -> str:
    """The ablation in a table for people."""
    lines = [f"{'':18}" + "".join(f"{step:>17}" for step in STEPS)]
    for name, row in results["rows"].items():
        cells = (f"{spread([one[step] for one in row['seeds']]):>17}" for step in STEPS)
        lines.append(f"{name:18}" + "".join(cells) + f"   {row['what']}")
    wells = [one["wells"] for one in next(iter(results["rows"].values()))["seeds"]]
    lines.append(f"accuracy of held-out wells ({', '.join(map(str, wells))}), mean and range; "
                 f"chance is {results['chance']:.1%}")  # fmt: skip
    for one in results["order"]:
        gains = ", ".join(f"{100 * gain:+.0f}" for gain in one["gains"])
        lines.append(f"{one['less']} < {one['more']}: {one['holds']} of {len(one['gains'])} seeds ({gains})")
    return "\n".join(lines)
