"""The RxRx1 task: name the siRNA in experiments that were not trained on.

Train on some experiments, predict the others, and say how well: by site and by well, by cell type and by experiment,
by the classifier and by nearest neighbours. :func:`build`, :func:`train` and :func:`evaluate` are the parts that the
comparison of corrections uses too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from rxrx_fast.augment.policy import Policy
from rxrx_fast.catalog import Catalog
from rxrx_fast.dataset import Dataset
from rxrx_fast.errors import UsageError
from rxrx_fast.loader import DataLoader
from rxrx_fast.recipes import figures, metrics
from rxrx_fast.recipes.backbones import backbone
from rxrx_fast.recipes.heads import ArcFace, Classifier, Linear
from rxrx_fast.recipes.pixels import correction
from rxrx_fast.recipes.plates import resolve, treatment_groups
from rxrx_fast.recipes.predict import Predictions, predict, turns
from rxrx_fast.recipes.splits import Parts, divide
from rxrx_fast.recipes.trainer import Trainer, cosine, is_first, processes, write_json
from rxrx_fast.stats import PlateStats
from rxrx_fast.synth.phenotypes import TREATMENTS

__all__ = ["Settings", "Task", "build", "evaluate", "run", "train"]

#: Turns and flips, and jittered statistics as DeepNoise has them: what changes no phenotype.
AUGMENT = Policy(hflip=0.5, vflip=0.5, rot90=1.0, stats_jitter=0.1)
# What does not change the weights of a run: a checkpoint goes on under other values of these. Whether the sites are
# the same, wherever they lie, the loader's state says.
_ASIDE = ("root", "out", "wells", "tta", "threads", "device", "quiet", "save_every", "compile", "predictor")


@dataclass(frozen=True)
class Settings:
    """What a run is; the command line's options by the same names explain each.

    ``batch_size`` is a process's; a step takes ``batch_size * accumulate`` sites of every process.
    """

    root: str
    out: str
    split: str = "official"
    hold_out: tuple[str, ...] = ()
    wells: str = "treatment"
    correction: str = "plate"
    augment: str = "turns"
    size: int | None = None
    backbone: str = "small"
    norm: str = "batch"
    weights: str | None = None
    head: str = "linear"
    epochs: int = 10
    batch_size: int = 32
    accumulate: int = 1
    lr: float = 1e-3
    weight_decay: float = 1e-2
    amp: str = "none"
    compile: bool = False
    channels_last: bool = False
    tta: int = 8
    seed: int = 0
    threads: int | None = None
    device: str = "auto"
    save_every: int = 500
    quiet: bool = False

    def __post_init__(self):
        if self.tta not in (1, 4, 8):
            raise UsageError(f"--tta {self.tta}: must be 1 (as it is), 4 (flips) or 8 (flips and quarter turns)")
        if self.amp not in ("none", "bf16"):
            raise UsageError(f"--amp {self.amp!r}: must be none or bf16")
        if self.head not in ("linear", "arcface"):
            raise UsageError(f"--head {self.head!r}: must be linear or arcface")
        if not 0 < self.lr < float("inf"):
            raise UsageError(f"--lr {self.lr}: must be above 0")
        correction(self.correction)

    def identity(self) -> dict:
        """What a checkpoint is checked against."""
        return {name: value for name, value in asdict(self).items() if name not in _ASIDE}


class Task(NamedTuple):
    """The data of a run: the catalog, its parts, the classes and the statistics.

    classes : (K,) int64
        The siRNA labels of the training part, sorted; a class is a position here.
    """

    catalog: Catalog
    parts: Parts
    classes: np.ndarray
    stats: PlateStats


def build(settings: Settings) -> Task:
    """Read the catalog, divide it, and fit or load its statistics."""
    catalog = Catalog.read(settings.root, progress=not settings.quiet and is_first())
    parts = divide(catalog, settings.split, settings.hold_out, settings.wells)
    if torch.distributed.is_initialized() and not is_first():
        # The first process may fit the statistics and save them beside the data; the others load them then.
        torch.distributed.barrier()
    stats = PlateStats.beside(catalog)
    if torch.distributed.is_initialized() and is_first():
        torch.distributed.barrier()
    return Task(catalog, parts, np.unique(parts.train.labels), stats)


def dataset(settings: Settings, task: Task, part: Catalog, **views) -> Dataset:
    """The samples of a part under the run's correction."""
    return Dataset(
        part, normalize=correction(settings.correction).normalize, stats=task.stats, size=settings.size, **views
    )


def network(settings: Settings, task: Task) -> Classifier:
    """The classifier, with weights drawn from the run's seed."""
    torch.manual_seed(settings.seed)
    body = backbone(settings.backbone, task.catalog.layout.channels, settings.weights, settings.norm)
    head = {"linear": Linear, "arcface": ArcFace}[settings.head]
    model = Classifier(body, head(body.features, len(task.classes)))
    return model.to(memory_format=torch.channels_last) if settings.channels_last else model


def train(settings: Settings, task: Task) -> tuple[Classifier, str]:
    """Train a classifier, or take up a run that was stopped; the loader's sentence comes with it."""
    augment = AUGMENT if settings.augment == "turns" else settings.augment
    samples = dataset(settings, task, task.parts.train, augment=augment)
    group_by = correction(settings.correction).group_by
    loader = DataLoader(
        samples,
        settings.batch_size,
        shuffle=True,
        seed=settings.seed,
        group_by=group_by,
        # A short last batch weighs each of its sites more than others'; groups have one each, and would lose too many.
        drop_last=group_by is None and len(samples) >= settings.batch_size * world(),
        num_threads=settings.threads,
        device=settings.device,
        channels_last=settings.channels_last,
    )
    class_of = positions(task.classes)

    def loss(model, images, labels, meta):
        if labels.ndim == 2:  # samples that are mixed have shares of all labels
            wanted = labels[:, torch.from_numpy(task.classes).to(labels.device)]
            logits, _ = model(images)
            return cross_entropy(logits, wanted), {}
        wanted = class_of.to(labels.device)[labels]
        logits, _ = model(images, wanted)
        return cross_entropy(logits, wanted), {"train_accuracy": (logits.argmax(1) == wanted).float().mean()}

    trainer = Trainer(
        settings.out,
        network(settings, task),
        loader,
        loss,
        optimizer=lambda weights: torch.optim.AdamW(weights, lr=settings.lr, weight_decay=settings.weight_decay),
        rate=cosine(settings.lr, settings.epochs),
        epochs=settings.epochs,
        accumulate=settings.accumulate,
        amp=settings.amp,
        compile=settings.compile,
        settings=settings.identity(),
        save_every=settings.save_every,
        quiet=settings.quiet,
    )
    return trainer.fit(), loader.report()["sentence"]


def positions(classes: np.ndarray) -> torch.Tensor:
    """Position of every label in ``classes``: (1139 or more,) int64, -1 where it is none of them."""
    found = torch.full((max(1139, int(classes.max()) + 1),), -1, dtype=torch.int64)
    found[torch.from_numpy(classes)] = torch.arange(len(classes))
    return found


def predictions(settings: Settings, task: Task, model: Classifier, part: Catalog, views: int, name: str) -> Predictions:
    """What the network says of a part's sites."""
    return predict(
        model,
        dataset(settings, task, part, views=turns(views)),
        batch_size=settings.batch_size,
        group_by=correction(settings.correction).group_by,
        amp=settings.amp,
        threads=settings.threads,
        device=settings.device,
        channels_last=settings.channels_last,
        quiet=settings.quiet or not is_first(),
        name=f"predicting {name}",
    )


def choices(settings: Settings, classes: np.ndarray) -> np.ndarray:
    """Which classes a held-out sample may be: (K,) bool. A treatment well holds no control."""
    treatments = classes < TREATMENTS
    return treatments if settings.wells == "treatment" and treatments.any() else np.ones(len(classes), bool)


def evaluate(settings: Settings, task: Task, model: Classifier) -> tuple[dict, dict[str, Predictions]]:
    """Figures of every held-out part, and the predictions that they come from (by well; "train" among them)."""
    wells = {"train": predictions(settings, task, model, task.parts.train, 1, "train").wells()}
    may_be = choices(settings, task.classes)
    classes = task.classes[may_be]
    results = {}
    for name, part in task.parts.held_out.items():
        sites = predictions(settings, task, model, part, settings.tta, name)
        wells[name] = sites.wells()
        results[name] = {
            level: metrics.scores(said.logits[:, may_be], metrics.targets(said.table, classes), said.table)
            for level, said in (("site", sites), ("well", wells[name]))
        }
        results[name]["retrieval"] = metrics.retrieval(
            wells[name].embeddings, wells[name].table["sirna_id"].to_numpy(),
            wells["train"].embeddings, wells["train"].table["sirna_id"].to_numpy(),
        )  # fmt: skip
        results[name]["plates"] = _by_plates(task, wells[name], classes) if settings.wells == "treatment" else None
        results[name]["loader"] = sites.sentence
    return results, wells


def _by_plates(task: Task, wells: Predictions, classes: np.ndarray) -> dict[str, float | None]:
    """Accuracy of treatment wells after each step of what is known of plates, see :mod:`rxrx_fast.recipes.plates`."""
    logits = wells.logits[:, np.isin(task.classes, classes)]
    steps, _ = resolve(logits, wells.table, treatment_groups(task.parts.train, classes))
    target = metrics.targets(wells.table, classes)
    return {step: metrics.scores(values, target, wells.table)["accuracy"] for step, values in steps.items()}


def run(settings: Settings) -> dict:
    """Train, evaluate, and write ``results.json``, ``predictions_*.csv`` and ``by_cell_type.png`` into the folder."""
    with processes():
        task = build(settings)
        if is_first():
            Path(settings.out).mkdir(parents=True, exist_ok=True)
        model, sentence = train(settings, task)
        results, wells = evaluate(settings, task, model)
        may_be = choices(settings, task.classes)
        results = {
            "settings": asdict(settings),
            "train": {
                "sites": len(task.parts.train), "classes": len(task.classes),
                "loader": sentence, "loader_predicting": wells["train"].sentence,
            },
            "chance": 1 / int(may_be.sum()),
            "held_out": results,
        }  # fmt: skip
        if is_first():
            _write(settings, task.classes[may_be], may_be, results, wells)
    return results


def _write(settings: Settings, classes, may_be, results: dict, wells: dict[str, Predictions]) -> None:
    out = Path(settings.out)
    for name, said in wells.items():
        if name == "train":
            continue
        table = said.table[["well_id", "cell_type", "experiment", "plate", "well", "sirna_id"]].copy()
        table["predicted"] = classes[said.logits[:, may_be].argmax(1)]
        table.to_csv(out / f"predictions_{name}.csv", index=False)
    write_json(out / "results.json", results)
    if any(part["well"]["samples"] for part in results["held_out"].values()):
        figures.by_cell_type(results, out / "by_cell_type.png")


def table(results: dict) -> str:
    """The results in a table for people."""
    lines = [f"{'':24}{'samples':>9}{'accuracy':>10}{'top 5':>9}"]

    def line(name, found):
        figures_ = ("        -" if found[k] is None else f"{found[k]:9.1%}" for k in ("accuracy", "top5"))
        lines.append(f"{name:24}{found['samples']:9,} " + "".join(figures_))

    for name, part in results["held_out"].items():
        line(f"{name}, sites", part["site"])
        line(f"{name}, wells", part["well"])
        for cell_type, found in part["well"]["by_cell_type"].items():
            line(f"  {cell_type}", found)
        near = part["retrieval"]
        if near["queries"]:
            lines.append(f"  nearest well of training: {near['at_1']:.1%} (chance {near['chance_at_1']:.1%})")
        if part["plates"] and part["plates"]["plain"] is not None:
            told = ", ".join(f"{step} {value:.1%}" for step, value in part["plates"].items() if step != "plain")
            lines.append(f"  with what is known of plates: {told}")
    return "\n".join([*lines, f"chance is {results['chance']:.2%}"])


def world() -> int:
    """Number of processes."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
