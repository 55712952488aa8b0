"""DeepNoise, the second place of the RxRx1 competition: mean teacher, ArcFace, pseudo-labels, one siRNA a well.

Constants are those of the authors' code, SeuTao/kaggle-competition-solutions, NIPS19_Recursion_CellSignal_2nd_solution
(main.py, process/data.py, net/archead.py, ensemble.py), named where they stand, here, in teacher.py and in plates.py.
What differs, and why:

- the loader makes the three views of a site from one decode; the authors decode once and augment three times in NumPy;
- both sites of a well are in an epoch, where theirs takes one of the two at random;
- the student sees its two views in one batch, so batch normalisation has the statistics of both;
- pseudo-labels are renewed every epoch, where theirs are when the accuracy on held-out labels has risen, and the last
  weights are used, where theirs are the best by held-out labels: nothing here looks at a held-out label;
- the student keeps its head from the first stage, where theirs is drawn anew;
- one model, where their score of 99.596% is of an ensemble over folds of two networks that torchvision doesn't have
  (Xception, and a larger one).
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.loader import DataLoader
from rxrx_fast.recipes import classify, metrics
from rxrx_fast.recipes.classify import Task
from rxrx_fast.recipes.heads import Classifier
from rxrx_fast.recipes.plates import STEPS, resolve, treatment_groups
from rxrx_fast.recipes.predict import predict, turns
from rxrx_fast.recipes.teacher import PseudoLabels, consistency, follow, ramp_up
from rxrx_fast.recipes.trainer import Trainer, is_first, mean_over_processes, processes, share_buffers, write_json
from rxrx_fast.synth.phenotypes import TREATMENTS

__all__ = ["Settings", "evaluate", "finetune", "kinds", "pretrain", "run", "table"]

# run_pretrain: Adam, weight decay 2e-4, 3e-4 to the 100th epoch of 160, 1e-4 to the 140th, then 1e-5; the epochs are
# shares of the run here, and the rates of the first one.
_PRETRAIN_RATES = ((100 / 160, 1.0), (140 / 160, 1 / 3), (1.0, 1 / 30))
# run_finetune_CELL_cyclic_semi_final: SGD without momentum, cosine cycles from 0.1 to 1e-3, then 5 epochs at 1e-4.
_PEAK, _FLOOR, _LAST_RATE, _LAST_EPOCHS = 0.1, 1e-3, 1e-4, 5
_WEIGHT_DECAY = 2e-4
# main: cycles are shorter for the cell types that have more experiments.
_CYCLE_SHARES = {"U2OS": 1.0, "RPE": 0.5, "HEPG2": 0.5, "HUVEC": 0.25}
# update_pseudo_labels: the teacher sees four turned copies.
_PSEUDO_VIEWS = 4


@dataclass(frozen=True)
class Settings(classify.Settings):
    """Those of the classifier, whose ``epochs`` and ``lr`` are of the first stage.

    cycle, cycles : int
        Epochs of a cycle of the second stage (for U2OS; other cell types have a half or a quarter), and cycles.
    consistency, pseudo_weight : float
        Weights of the teacher's and of the guessed labels' losses; 0 leaves them out.
    predictor : {"student", "teacher"}
        Whose predictions count. The authors' are the student's.
    """

    head: str = "arcface"
    epochs: int = 160
    lr: float = 3e-4
    cycle: int = 40
    cycles: int = 4
    consistency: float = 100.0
    pseudo_weight: float = 0.05
    predictor: str = "student"

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.consistency < math.inf or not 0 <= self.pseudo_weight <= 1:
            raise UsageError(
                f"--consistency {self.consistency} must be 0 or more, --pseudo-weight {self.pseudo_weight} from 0 to 1"
            )

    def stage(self, name: str) -> Settings:
        """The same run, with a stage's own folder."""
        return replace(self, out=str(Path(self.out) / name))


# ------------------------------------------------------------------------------------------------------------ stages


def pretrain(settings: Settings, task: Task) -> tuple[Classifier, str]:
    """The first stage: all cell types, labelled sites, the normal view, ArcFace."""
    own = settings.stage("pretrain")
    samples = classify.dataset(own, task, task.parts.train, augment="deepnoise-normal")
    loader = _loader(own, samples)
    class_of = classify.positions(task.classes)

    def loss(model, images, labels, meta):
        wanted = class_of.to(labels.device)[labels]
        logits, _ = model(images, wanted)
        return cross_entropy(logits, wanted), {"train_accuracy": (logits.argmax(1) == wanted).float().mean()}

    def rate(epoch: float) -> float:
        return own.lr * next(part for share, part in _PRETRAIN_RATES if epoch <= share * own.epochs or share == 1.0)

    trainer = _trainer(
        own, classify.network(own, task), loader, loss, rate, own.epochs, "first stage",
        optimizer=lambda weights: torch.optim.Adam(weights, lr=own.lr, weight_decay=_WEIGHT_DECAY),
    )  # fmt: skip
    return trainer.fit(), loader.report()["sentence"]


def finetune(settings: Settings, task: Task, start: Classifier, kind: str) -> tuple[Classifier, str]:
    """The second stage for one cell type: labelled and unlabelled sites together, student and teacher.

    Returns
    -------
    The predictor, and the loader's sentence.
    """
    own = settings.stage(f"finetune-{kind}")
    labelled = _of(task.parts.train, kind)
    unlabelled = _unlabelled(task, kind)
    both = task.catalog.available()
    wanted = np.union1d(labelled.table.index, unlabelled.table.index)
    both = both.take(np.flatnonzero(both.table.index.isin(wanted)))
    samples = classify.dataset(own, task, both, views=["deepnoise-normal", "deepnoise-easy", "deepnoise-hard"])
    loader = _loader(own, samples)

    length = max(2, round(own.cycle * _CYCLE_SHARES.get(kind, 1.0)))
    cycled = length * own.cycles
    student, teacher = copy.deepcopy(start), copy.deepcopy(start).to(loader.device)
    teacher.requires_grad_(False).train()

    class_of = classify.positions(task.classes)
    shown = torch.zeros(int(both.table.index.max()) + 1, dtype=torch.bool)
    shown[torch.tensor(labelled.table.index)] = True
    assigned = np.flatnonzero(classify.choices(own, task.classes))

    def teach():
        said = predict(
            teacher, classify.dataset(own, task, unlabelled, views=turns(_PSEUDO_VIEWS)), batch_size=own.batch_size,
            amp=own.amp, threads=own.threads, device=own.device,
            channels_last=own.channels_last, quiet=True,
        ).wells()  # fmt: skip
        teacher.train()
        now["pseudo"] = f" For pseudo-labels: {said.sentence}"
        return said.table, said.logits[:, assigned]

    groups = treatment_groups(task.parts.train, task.classes[assigned])
    pseudo = PseudoLabels(teach, groups, assigned, unlabelled.table, len(shown))
    # "epoch_all < 10 * 2 * epoch_ratio" has none yet: half a cycle.
    first_pseudo = length // 2
    now = {"epoch": 0, "pseudo": ""}

    def before_epoch(epoch: int) -> None:
        now["epoch"] = epoch
        if epoch >= first_pseudo and len(unlabelled) and own.pseudo_weight:
            pseudo.renew(epoch)

    def after_step(epoch: int, step: int) -> None:
        follow(teacher, trainer.model, epoch + 1, step)
        share_buffers(teacher)

    def loss(model, views, labels, meta):
        normal, easy, hard = views
        count, device = len(normal), normal.device
        # A held-out site's label is in the table of a published release: it is never looked at.
        known = shown[meta["site_index"]].to(device)
        wanted = torch.where(known, class_of.to(device)[labels.clamp(0, len(class_of) - 1)], -1)
        logits, _ = model(torch.cat([normal, easy]), torch.cat([wanted, torch.full_like(wanted, -1)]))
        supervised, relaxed = logits[:count], logits[count:]
        with torch.no_grad():
            held = teacher(hard)[0]
        agree = consistency(relaxed, held)
        total = own.consistency * ramp_up(now["epoch"] + 1) * agree
        right = mean_over_processes(cross_entropy(supervised[known], wanted[known], reduction="none"))
        told = {"consistency": agree, "supervised": right}
        guessed = pseudo.labels[meta["site_index"]].to(device)
        guessed = torch.where(known, -1, guessed)
        weight = own.pseudo_weight if pseudo.epoch >= 0 else 0.0
        total = total + (1 - weight) * right
        if weight:
            each = cross_entropy(relaxed[guessed >= 0], guessed[guessed >= 0], reduction="none")
            total = total + weight * mean_over_processes(each)
        return total, told

    def rate(epoch: float) -> float:
        if epoch > cycled:
            return _LAST_RATE
        # The end of a cycle belongs to it, not to the next.
        share = (epoch / length) % 1.0 or 1.0
        return _FLOOR + (_PEAK - _FLOOR) * (1 + math.cos(math.pi * share)) / 2

    trainer = _trainer(
        own, student, loader, loss, rate, cycled + _LAST_EPOCHS, kind,
        optimizer=lambda weights: torch.optim.SGD(weights, lr=_PEAK, weight_decay=_WEIGHT_DECAY),
        more={"teacher": teacher, "pseudo": pseudo}, before_epoch=before_epoch,
        after_step=after_step,
    )  # fmt: skip
    student = trainer.fit()
    return (student if own.predictor == "student" else teacher), loader.report()["sentence"] + now["pseudo"]


def run(settings: Settings) -> dict:
    """Both stages, then predictions of every held-out part: ``results.json``, ``predictions_*.csv`` in the folder."""
    with processes():
        task = classify.build(settings)
        if settings.wells == "treatment" and not (task.classes < TREATMENTS).any():
            raise DataError(
                "no treatment is labelled in the training part, so there are no siRNAs to assign to a plate's wells; "
                "--wells all assigns controls"
            )
        start, sentence = pretrain(settings, task)
        sentences = {"pretrain": sentence}
        models = {}
        for kind in kinds(task):
            models[kind], sentences[kind] = finetune(settings, task, start, kind)
        results = {"settings": asdict(settings), "loader": sentences, "held_out": {}}
        for name, part in task.parts.held_out.items():
            found = evaluate(settings, task, part, models, start, name)
            sentences |= found.pop("loader")
            results["held_out"][name] = found
        if is_first():
            write_json(Path(settings.out) / "results.json", results)
    return results


def kinds(task: Task) -> list[str]:
    """The cell types that are trained on and have held-out wells: those with a second stage."""
    every = sorted(set(task.parts.train.table["cell_type"].astype(str)))
    return [kind for kind in every if len(_unlabelled(task, kind))]


def evaluate(settings: Settings, task: Task, part: Catalog, models: dict, start: Classifier, name: str) -> dict:
    """Accuracy of wells after each step of what is known of plates, and the loader's sentences.

    Cell types without a model of their own take the first stage's.
    """
    assigned = np.flatnonzero(classify.choices(settings, task.classes))
    groups = treatment_groups(task.parts.train, task.classes[assigned])
    wells, sentences = [], {}
    for kind in sorted(set(part.table["cell_type"].astype(str))):
        own = _of(part, kind)
        said = classify.predictions(settings, task, models.get(kind, start), own, settings.tta, f"{name}, {kind}")
        wells.append(said.wells())
        sentences[f"predicting {name}, {kind}"] = said.sentence
    table = pd.concat([said.table for said in wells])
    logits = np.concatenate([said.logits for said in wells])[:, assigned]
    steps, carried = resolve(logits, table, groups)
    target = metrics.targets(table, task.classes[assigned])
    found: dict = {"wells": len(table), "groups": len(groups), "loader": sentences}
    for step in STEPS:
        scored = metrics.scores(steps[step], target, table)
        found[step] = {
            "accuracy": scored["accuracy"],
            "by_cell_type": {kind: one["accuracy"] for kind, one in scored["by_cell_type"].items()},
        }
    known = target >= 0
    if known.any():
        inside = [target[i] in groups[carried[i]] for i in np.flatnonzero(known)]
        found["plates_in_the_right_group"] = float(np.mean(inside))
    if is_first():
        out = table[["well_id", "cell_type", "experiment", "plate", "well", "sirna_id"]].copy()
        for step in STEPS:
            out[step] = task.classes[assigned][steps[step].argmax(1)]
        Path(settings.out).mkdir(parents=True, exist_ok=True)
        out.to_csv(Path(settings.out) / f"predictions_{name}.csv", index=False)
    return found


def table(results: dict) -> str:
    """The results in a table for people."""
    lines = [f"{'accuracy of wells':24}" + "".join(f"{step:>12}" for step in STEPS)]
    for name, part in results["held_out"].items():
        rows = {f"{name}, {part['wells']} wells": {step: part[step]["accuracy"] for step in STEPS}}
        for kind in part["plain"]["by_cell_type"]:
            rows[f"  {kind}"] = {step: part[step]["by_cell_type"][kind] for step in STEPS}
        for title, values in rows.items():
            cells = ("-" if value is None else f"{value:.1%}" for value in values.values())
            lines.append(f"{title:24}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def _of(catalog: Catalog, kind: str) -> Catalog:
    return catalog.take(np.flatnonzero((catalog.table["cell_type"].astype(str) == kind).to_numpy()))


def _unlabelled(task: Task, kind: str) -> Catalog:
    """The sites of a cell type that are held out, each once, and not in the training part."""
    held = np.unique(np.concatenate([part.table.index.to_numpy() for part in task.parts.held_out.values()]))
    held = np.setdiff1d(held, task.parts.train.table.index.to_numpy())
    table = task.catalog.table
    keep = table.index.isin(held) & (table["cell_type"].astype(str) == kind)
    return task.catalog.take(np.flatnonzero(np.asarray(keep)))


def _loader(settings: Settings, samples) -> DataLoader:
    """Shuffled batches of full size, as the authors' (drop_last=True), where there are enough samples."""
    return DataLoader(
        samples, settings.batch_size, shuffle=True, seed=settings.seed, num_threads=settings.threads,
        drop_last=len(samples) >= settings.batch_size * classify.world(), device=settings.device,
        channels_last=settings.channels_last,
    )  # fmt: skip


def _trainer(settings: Settings, model, loader, loss, rate, epochs: int, name: str, **others) -> Trainer:
    return Trainer(
        settings.out, model, loader, loss, rate=rate, epochs=epochs, name=name, accumulate=settings.accumulate,
        amp=settings.amp, compile=settings.compile, settings=settings.identity(), save_every=settings.save_every,
        quiet=settings.quiet, **others,
    )  # fmt: skip
