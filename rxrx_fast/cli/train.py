"""The options of ``rxrx-fast train``: one subcommand a recipe, an option a field of its settings."""

from __future__ import annotations

import argparse

__all__ = ["add_options", "run"]

RECIPES = ("classify", "correct", "deepnoise", "ablation", "leaks")
_BACKBONES = ("small", "resnet18", "resnet50", "densenet161")


def run(options) -> None:
    """Run the recipe that was asked for."""
    given = vars(options)
    if options.recipe == "classify":
        from rxrx_fast.recipes import classify

        results = classify.run(_settings(classify.Settings, given))
        if _speaks():
            print(classify.table(results))
            own = results["train"]
            parts = {f"predicting {name}": part["loader"] for name, part in results["held_out"].items()}
            _tell({"training": own["loader"], "predicting train": own["loader_predicting"], **parts})
            print(f"results are in {options.out}")
    elif options.recipe == "correct":
        from rxrx_fast.recipes import correct

        results = correct.run(_settings(correct.Settings, given))
        if _speaks():
            print(correct.table(results))
            for name, row in results["rows"].items():
                _tell({f"{name}, {stage}": sentence for stage, sentence in row.get("loader", {}).items()})
            print(f"table, figures and runs are in {options.out}")
    elif options.recipe == "deepnoise":
        from rxrx_fast.recipes import deepnoise

        results = deepnoise.run(_settings(deepnoise.Settings, given))
        if _speaks():
            print(deepnoise.table(results))
            _tell(results["loader"])
            print(f"results are in {options.out}")
    elif options.recipe == "ablation":
        from rxrx_fast.recipes import ablation

        results = ablation.run(_settings(ablation.Settings, given))
        if _speaks():
            print(ablation.table(results))
            for name, row in results["rows"].items():
                _tell({f"{name}, {stage}": told for stage, told in row["seeds"][0]["loader"].items()})
            print(f"results are in {options.out}")
    elif options.recipe == "leaks":
        from rxrx_fast.recipes import leaks

        results = leaks.examine(options.root, options.split, tuple(options.hold_out), options.threads)
        print(leaks.table(results))
        _tell({f"reading {part}": sentence for part, sentence in results["loader"].items()})


def _tell(sentences: dict[str, str]) -> None:
    """Who waited for whom, stage by stage."""
    for stage, sentence in sentences.items():
        print(f"the loader, in {stage}: {sentence}")


def _settings(kind, given: dict):
    """A recipe's settings from the options of the same names."""
    from dataclasses import fields

    names = {field.name for field in fields(kind)}
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if name in names})


def _speaks() -> bool:
    """Whether this process prints: the first of torchrun's."""
    import os

    return os.environ.get("RANK", "0") == "0"


def add_options(parser: argparse.ArgumentParser, formatter, positive) -> None:
    """Add the recipes' subcommands to the parser of ``rxrx-fast train``.

    Parameters
    ----------
    parser : ArgumentParser
    formatter : class
        Of the help.
    positive : callable
        Text to a whole number of at least 1.
    """
    recipes = parser.add_subparsers(title="recipes", dest="recipe", metavar="RECIPE", required=True)

    def recipe(name, short, long, example, folder=True, several=False):
        made = recipes.add_parser(
            name, help=short, description=long, epilog=f"example: {example}", formatter_class=formatter,
            allow_abbrev=False,
        )  # fmt: skip
        made.add_argument("root", metavar="ROOT", help="the data set's folder, in any layout of RxRx1")
        if several:
            made.add_argument(
                "roots", metavar="ROOT", nargs="*", help="data sets of the further seeds (default: one for all)"
            )
        if folder:
            made.add_argument("--out", metavar="DIR", default=f"rxrx_fast_{name}",
                              help="folder of the run: log, checkpoint, results; goes on there")  # fmt: skip
        made.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
        made.add_argument("--threads", metavar="N", type=positive, help="the loader's threads (default: one a core)")
        return made

    classify = recipe(
        "classify", "name the siRNA in experiments that were not trained on",
        "Trains a classifier on some experiments and predicts the others: accuracy and top-5 by site and well, by cell "
        "type and experiment, and retrieval by nearest neighbours. Start it with torchrun for several processes; "
        "stopped, the same command goes on from the last checkpoint, in the middle of an epoch.",
        "rxrx-fast train classify data/rxrx1 --backbone resnet50 --correction plate --epochs 60 --batch-size 64",
    )  # fmt: skip
    _add_data(classify, positive)
    _add_correction(classify)
    _add_network(classify)
    _add_training(classify, positive)

    correct = recipe(
        "correct", "corrections of the batch effect side by side",
        "Trains one classifier for each correction of pixels, corrects the embeddings of one of them in further ways, "
        "and measures the same of all: is the siRNA found in experiments not trained on, and how much of the batch is "
        "left. One table, one figure. Stopped, the same command goes on where it was.",
        "rxrx-fast train correct data/rxrx1 --epochs 30 --pixels none plate adabn-plate --embeddings tvn combat",
    )  # fmt: skip
    _add_data(correct, positive)
    _add_correction(correct, "none")
    correct.add_argument("--pixels", metavar="NAME", nargs="+", default=argparse.SUPPRESS,
                         help="corrections of pixels (default: all)")  # fmt: skip
    correct.add_argument("--embeddings", metavar="NAME", nargs="*", default=argparse.SUPPRESS,
                         help="of embeddings: center-plate, center-experiment, standardize-plate, "
                         "standardize-experiment, sphering, tvn, coral, combat, harmony (default: all but harmony, "
                         "which needs a package)")  # fmt: skip
    _add_network(correct)
    _add_training(correct, positive)

    deepnoise = recipe(
        "deepnoise", "mean teacher, ArcFace, pseudo-labels, one siRNA a well",
        "The second place of the competition: a first stage on all labelled sites, then for each cell type a student "
        "and a teacher on labelled and unlabelled sites, with three views of every site from one decode, and last "
        "what is known of plates: a group of 277 siRNAs, each once. Stopped, the same command goes on.",
        "rxrx-fast train deepnoise data/rxrx1 --backbone densenet161 --amp bf16",
    )  # fmt: skip
    _add_data(deepnoise, positive)
    _add_correction(deepnoise, augment=False)
    _add_network(deepnoise, head=False)
    deepnoise.add_argument("--epochs", metavar="N", type=positive, default=160, help="of the first stage")
    deepnoise.add_argument("--lr", metavar="X", type=float, default=3e-4, help="first rate of the first stage")
    _add_second_stage(deepnoise, positive)
    _add_training(deepnoise, positive, epochs=None)

    ablation = recipe(
        "ablation", "what each step of DeepNoise adds, over several seeds",
        "Trains from the same beginning with one thing more each time: normalisation by experiment and by plate, or "
        "batches of one experiment or plate with adaptive batch normalisation, then ArcFace, the second stage, its "
        "teacher, its pseudo-labels; and says in how many seeds the order holds that DeepNoise's authors report. "
        "Stopped, the same command goes on.",
        "rxrx-fast train ablation data-0 data-1 data-2 --seeds 0 1 2 --epochs 20 --cycle 40 --cycles 2", several=True,
    )  # fmt: skip
    _add_data(ablation, positive)
    ablation.add_argument("--seeds", metavar="N", type=int, nargs="+", default=(0, 1, 2), help="one run of all each")
    ablation.add_argument("--rows", metavar="NAME", nargs="+", default=argparse.SUPPRESS,
                          help="some of random, experiment, plate, adabn-experiment, adabn-plate, arcface, longer, "
                          "teacher, pseudo (default: all)")  # fmt: skip
    ablation.add_argument("--augment", metavar="NAME", default="turns", help="before the second stage; see classify")
    _add_network(ablation, head=False)
    _add_second_stage(ablation, positive)
    _add_training(ablation, positive, epochs=20, seed=False)

    leaks = recipe(
        "leaks", "whether siRNAs can be told without looking at cells",
        "Fits cheap linear models to mean intensities, places on the plate, the order of files and shuffled labels, "
        "and says how often they are right in experiments that they were not fitted on. Anything far above chance "
        "would be learned by a network instead of cells.",
        "rxrx-fast train leaks data/rxrx1", folder=False,
    )  # fmt: skip
    _add_split(leaks)


def _add_split(parser) -> None:
    parser.add_argument("--split", choices=("official", "wilds", "experiments"), default="official",
                        help="held out: the test experiments, WILDS's parts, or --hold-out")  # fmt: skip
    parser.add_argument("--hold-out", metavar="NAME", nargs="+", default=(),
                        help="experiments for --split experiments (default: the last of each cell type)")  # fmt: skip


def _add_data(parser, positive) -> None:
    _add_split(parser)
    parser.add_argument("--wells", choices=("treatment", "all"), default="treatment", help="wells to be measured on")
    parser.add_argument("--size", metavar="PX", type=positive, help="pixels on a side (default: as stored)")


def _add_correction(parser, default: str = "plate", augment: bool = True) -> None:
    parser.add_argument("--correction", metavar="NAME", default=default,
                        help="none, cell_type, experiment, plate, site, controls, robust, quantile, illumination, "
                        "adabn-plate, adabn-experiment")  # fmt: skip
    if not augment:
        return
    parser.add_argument("--augment", metavar="NAME", default="turns",
                        help="turns, or a policy: none, wilds, deepnoise-hard, rcic-first-place")  # fmt: skip


def _add_network(parser, head: bool = True) -> None:
    parser.add_argument("--backbone", metavar="NAME", type=_backbone, default="small",
                        help="small, which is plain torch; resnet18, resnet50, densenet161 of torchvision; timm:NAME, "
                        "any of timm's")  # fmt: skip
    parser.add_argument(
        "--weights", metavar="FILE", help="the library's RGB weights, to start from; nothing is fetched"
    )
    parser.add_argument("--norm", choices=("batch", "group"), default="batch", help="normalisation layers of small")
    if head:
        parser.add_argument("--head", choices=("linear", "arcface"), default="linear", help="what makes logits")


def _add_second_stage(parser, positive) -> None:
    parser.add_argument("--cycle", metavar="N", type=positive, default=40, help="epochs of a cycle of the second stage")
    parser.add_argument("--cycles", metavar="N", type=positive, default=4, help="cycles of the second stage")
    parser.add_argument("--consistency", metavar="X", type=float, default=100.0,
                        help="weight of agreeing with the teacher")  # fmt: skip
    parser.add_argument("--pseudo-weight", metavar="X", type=float, default=0.05,
                        help="weight of the labels that the teacher guesses")  # fmt: skip
    parser.add_argument("--predictor", choices=("student", "teacher"), default="student", help="who predicts")


def _backbone(name: str) -> str:
    """Refuse a misspelt name before the data are read; torch is not imported for that."""
    if name not in _BACKBONES and not name.startswith("timm:"):
        raise argparse.ArgumentTypeError(f"{name!r} must be one of {', '.join(_BACKBONES)}, or timm:NAME")
    return name


def _add_training(parser, positive, epochs: int | None = 10, seed: bool = True) -> None:
    if epochs is not None:
        parser.add_argument(
            "--epochs", metavar="N", type=positive, default=epochs, help="times through the training part"
        )
        parser.add_argument("--lr", metavar="X", type=float, default=1e-3, help="peak learning rate of AdamW")
        parser.add_argument("--weight-decay", metavar="X", type=float, default=1e-2, help="of AdamW")
    parser.add_argument("--batch-size", metavar="N", type=positive, default=32, help="sites a batch and process")
    parser.add_argument(
        "--accumulate", metavar="N", type=positive, default=1, help="batches whose gradients make a step"
    )
    parser.add_argument("--amp", choices=("none", "bf16"), default="none", help="autocast to bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    parser.add_argument("--channels-last", action="store_true",
                        help="images and weights in NHWC order: faster with --amp bf16")  # fmt: skip
    parser.add_argument("--tta", type=int, choices=(1, 4, 8), default=8, help="turned copies that are averaged over")
    if seed:
        parser.add_argument("--seed", metavar="N", type=int, default=0, help="of weights, order and augmentation")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--save-every", metavar="N", type=positive, default=500, help="steps between checkpoints")
