"""The classifier from end to end: it learns, resumes exactly, and its figures are those of its predictions."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rxrx_fast.errors import UsageError
from rxrx_fast.recipes import classify
from rxrx_fast.recipes.runlog import RunLog
from rxrx_fast.recipes.trainer import Trainer

# What a clock says is not the same twice.
CLOCK = ("sites_per_s", "waiting_share")

# The package's attribute of this name is the function.
cli = import_module("rxrx_fast.cli.main")


def log(folder):
    """The rows of a run's log without what its clock says."""
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in RunLog.read(Path(folder) / "log.csv")]


def figures(results):
    """What was measured, without the loader's sentences."""
    return {name: {k: v for k, v in part.items() if k != "loader"} for name, part in results["held_out"].items()}


def test_it_learns_what_it_is_shown(settings):
    """On two dozen sites the classifier comes to know them all; what it says of others is in the files."""
    settings = replace(settings, epochs=25, lr=3e-3, augment="none", tta=8)
    results = classify.run(settings)
    rows = log(settings.out)
    assert float(rows[-1]["train_accuracy"]) > 0.9
    assert float(rows[0]["loss"]) > 2 > 0.7 > float(rows[-1]["loss"])
    out = Path(settings.out)
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    assert (out / "by_cell_type.png").stat().st_size > 5000
    said = pd.read_csv(out / "predictions_test.csv")
    part = results["held_out"]["test"]
    assert part["well"]["samples"] == len(said) == 8
    assert part["site"]["samples"] == 16
    assert part["well"]["accuracy"] == pytest.approx((said["predicted"] == said["sirna_id"]).mean())
    assert part["plates"]["plain"] == part["well"]["accuracy"]
    assert 0 <= part["plates"]["assigned"] <= 1
    assert (said["predicted"] < 1108).all(), "a treatment well was taken for a control"
    assert results["chance"] == 1 / 8
    assert results["train"]["classes"] == 10
    assert "sites/s" in results["train"]["loader"]


def test_a_stopped_run_goes_on_exactly(settings, monkeypatch):
    """Stopped in the middle of the second epoch and run again: the same log and figures as an uninterrupted run."""
    straight = classify.run(settings)
    broken = replace(settings, out=settings.out + "-broken", save_every=1)
    advance = Trainer._advance

    def stops(self, epoch, share):
        if self.step == 4:
            raise KeyboardInterrupt
        advance(self, epoch, share)

    monkeypatch.setattr(Trainer, "_advance", stops)
    with pytest.raises(KeyboardInterrupt):
        classify.run(broken)
    monkeypatch.setattr(Trainer, "_advance", advance)
    steps = []
    monkeypatch.setattr(Trainer, "_advance", lambda self, *a: (steps.append(self.step), advance(self, *a)))
    assert figures(classify.run(broken)) == figures(straight)
    assert steps == [4, 5], "it began anew"
    assert log(broken.out) == log(settings.out)
    weights = [torch.load(Path(folder) / "checkpoint.pt")["model"] for folder in (settings.out, broken.out)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_another_run_in_the_same_folder_is_refused(settings):
    """A checkpoint goes on under the settings that made it, and says which differ."""
    classify.run(replace(settings, epochs=1))
    with pytest.raises(UsageError, match="lr=0.001, and this one has 0.1: take another --out"):
        classify.run(replace(settings, epochs=1, lr=0.1))


def test_accumulated_batches_are_one_large_batch(settings):
    """Two batches of 4 make the steps of one batch of 8, where no layer looks at the batch."""
    settings = replace(settings, norm="group", augment="none")
    whole = classify.run(settings)
    halves = classify.run(replace(settings, out=settings.out + "-halves", batch_size=4, accumulate=2))
    for one, two in zip(log(settings.out), log(settings.out + "-halves"), strict=True):
        assert one["step"] == two["step"]
        assert float(one["loss"]) == pytest.approx(float(two["loss"]), abs=2e-4)
    assert figures(whole)["test"]["site"] == figures(halves)["test"]["site"]


@pytest.mark.parametrize("changes", [{"amp": "bf16"}, {"head": "arcface"}, {"augment": "rcic-first-place"}])
def test_other_ways_to_train_run(settings, changes):
    """Mixed precision, a margin and mixed samples: a finite loss that falls."""
    classify.run(replace(settings, epochs=4, lr=3e-3, **changes))
    losses = [float(row["loss"]) for row in log(settings.out)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_same_plate_batches_adapt(settings):
    """With adaptive batch normalisation each batch of training is of one plate, and evaluation runs by plate."""
    settings = replace(settings, correction="adabn-plate", epochs=1)
    task = classify.build(settings)
    model, _ = classify.train(settings, task)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    results, wells = classify.evaluate(settings, task, model)
    assert results["test"]["well"]["samples"] == 8
    assert len(wells["train"].table) == 12
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_command_trains(settings, capsys):
    """`rxrx-fast train classify` prints a table and the loader's sentence, and goes on in the same folder."""
    line = [
        "train",
        "classify",
        settings.root,
        "--out",
        settings.out,
        "--size",
        "32",
        "--epochs",
        "1",
        "--tta",
        "1",
        "-q",
    ]
    for _ in range(2):
        assert cli.main(line) == 0
        text = capsys.readouterr().out
        assert "test, wells" in text
        assert "chance is 12.50%" in text
        stages = [line.split(": ")[0] for line in text.splitlines() if line.startswith("the loader, in ")]
        assert stages == [f"the loader, in {s}" for s in ("training", "predicting train", "predicting test")]
    assert cli.main([*line, "--backbone", "resnet50", "--norm", "group"]) == 2
    assert "comes with the normalisation that it has" in capsys.readouterr().err
    assert cli.main([*line, "--backbone", "resnet51"]) == 2
    assert "'resnet51' must be one of small, " in capsys.readouterr().err


@pytest.mark.slow(15)
def test_two_processes_take_the_steps_of_one(settings, tmp_path):
    """Torchrun with two processes on gloo: the losses and the figures of one process with the same global batch."""
    settings = replace(settings, norm="group")
    alone = classify.run(settings)
    out = tmp_path / "two"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "rxrx_fast.cli",
        "train", "classify", settings.root, "--out", str(out), "--size", "32", "--epochs", "2", "--batch-size", "4",
        "--norm", "group", "--tta", "1", "--threads", "1", "-q",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("test, wells") == 1, "every process printed"
    for one, two in zip(log(settings.out), log(out), strict=True):
        assert one["step"] == two["step"]
        assert float(one["loss"]) == pytest.approx(float(two["loss"]), abs=2e-4)
    together = json.loads((out / "results.json").read_text())
    assert figures(together)["test"]["site"] == figures(alone)["test"]["site"]


@pytest.mark.slow(8)
@pytest.mark.real
def test_the_chain_runs_on_real_files(settings, real_root, tmp_path, capsys):
    """Real files are trained on and predicted without an error; all are of untreated wells, so no more is said."""
    root = tmp_path / "real"
    shutil.copytree(real_root, root)
    results = classify.run(replace(settings, root=str(root), wells="all", epochs=1, batch_size=4, size=64))
    assert results["train"]["classes"] == 1
    assert results["held_out"]["test"]["site"]["samples"] > 0
    line = ["--wells", "all", "--size", "64", "--tta", "1", "--batch-size", "4", "-q"]
    out = str(tmp_path / "corrections")
    pixels = ["--pixels", "none", "adabn-plate", "--embeddings", "center-experiment", "sphering", "coral"]
    assert cli.main(["train", "correct", str(root), "--out", out, "--epochs", "1", *line, *pixels]) == 0
    assert cli.main(["train", "deepnoise", str(root), "--out", out, *line[2:]]) == 1
    assert "controls only: take --wells all" in capsys.readouterr().err
    stages = ["--epochs", "1", "--cycle", "1", "--cycles", "1"]
    assert cli.main(["train", "deepnoise", str(root), "--out", f"{out}-deepnoise", *line, *stages]) == 0
    assert "wells" in capsys.readouterr().out


def test_a_compiled_network_takes_the_same_steps(settings, monkeypatch):
    """`--compile`: the losses of the network as it is, and a checkpoint with its names.

    The graphs are captured and differentiated as always, and run as they are: what the default backend makes of them is
    torch's own concern, and takes a C++ compiler a minute.
    """
    classify.run(settings)
    compiled, compile_ = [], torch.compile

    def traced(model):
        compiled.append(compile_(model, backend="aot_eager", fullgraph=True))
        return compiled[0]

    monkeypatch.setattr(torch, "compile", traced)
    own = replace(settings, compile=True, out=settings.out + "-compiled")
    classify.run(own)
    assert len(compiled) == 1
    for one, two in zip(log(settings.out), log(own.out), strict=True):
        assert float(one["loss"]) == pytest.approx(float(two["loss"]), abs=2e-3)
    keys = [set(torch.load(Path(folder) / "checkpoint.pt")["model"]) for folder in (settings.out, own.out)]
    assert keys[0] == keys[1], "a compiled network's weights have other names"


def test_progress_shows_every_stage(settings, monkeypatch, capsys):
    """On a terminal there is a bar for each epoch and each part that is predicted; --quiet has none."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    classify.run(replace(settings, quiet=False))
    shown = capsys.readouterr().err
    stages = ("training, epoch 1 of 2", "training, epoch 2 of 2", "predicting train", "predicting test")
    assert all(f"{stage}: 100%" in shown for stage in stages), shown
    classify.run(replace(settings, out=settings.out + "-quiet"))
    assert "training" not in capsys.readouterr().err
