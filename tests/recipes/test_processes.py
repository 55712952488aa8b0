"""Two processes under torchrun take the steps of one with the same global batch, and hold the same at the end."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from deepnoise_ranks import PEAK
from loading import SUPPORT

from rxrx_fast.recipes import correct, deepnoise
from rxrx_fast.recipes.runlog import RunLog

# What a clock says is not the same twice.
CLOCK = ("sites_per_s", "waiting_share")


def torchrun(*command):
    """Run two processes of this Python; returns what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *command]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def check_logs(one, two, exact_epochs=99):
    """The same steps with the same losses and shares, but for rounding; after some epochs it may have grown."""
    for a, b in zip(RunLog.read(one / "log.csv"), RunLog.read(two / "log.csv"), strict=True):
        assert a.keys() == b.keys()
        off = 5e-4 if int(a["epoch"]) <= exact_epochs else 0.02
        for name in a.keys() - set(CLOCK):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=off, abs=5e-4), (a["step"], name)


def alike(one, two):
    """Whether two states are the same to the bit."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(alike(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(alike, one, two))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


@pytest.mark.slow(15)
def test_corrections(screen, tmp_path):
    """The comparison: the losses of every classifier, and the same figures, with plates dealt out to processes."""
    settings = correct.Settings(
        str(screen), str(tmp_path / "one"), epochs=1, batch_size=16, tta=1, norm="group", quiet=True,
        pixels=("none", "adabn-plate"), embeddings=("standardize-experiment",),
    )  # fmt: skip
    alone = correct.run(settings)
    printed = torchrun(
        "-m", "rxrx_fast.cli", "train", "correct", str(screen), "--out", str(tmp_path / "two"), "--epochs", "1",
        "--batch-size", "8", "--tta", "1", "--norm", "group", "--threads", "1", "-q",
        "--pixels", "none", "adabn-plate", "--embeddings", "standardize-experiment",
    )  # fmt: skip
    assert printed.count("chance: siRNA") == 1, "every process printed"
    for name in settings.pixels:
        check_logs(tmp_path / "one" / f"pixels-{name}", tmp_path / "two" / f"pixels-{name}")
    together = json.loads((tmp_path / "two" / "results.json").read_text())["rows"]
    assert together.keys() == alone["rows"].keys()
    for name, row in alone["rows"].items():
        for figure in ("accuracy", "probe", "retrieval", "experiment", "kbet_experiment", "silhouette_sirna"):
            # A well or two of 28 may tip over by rounding.
            assert together[name][figure] == pytest.approx(row[figure], abs=0.08), (name, figure)


@pytest.mark.slow(15)
def test_deepnoise(rxrx_root, stats, tmp_path, monkeypatch):
    """Student, teacher, pseudo-labels and optimiser are the same on both, and as one process has them.

    At a gentle rate: the authors' makes the losses of so few sites leap, and rounding with them.
    """
    common = {"size": 32, "epochs": 1, "cycle": 2, "cycles": 1, "tta": 1, "quiet": True, "threads": 1}
    alone = deepnoise.Settings(str(rxrx_root), str(tmp_path / "one"), norm="group", batch_size=8, **common)
    monkeypatch.setattr(deepnoise, "_PEAK", PEAK)
    deepnoise.run(alone)
    # With batch normalisation on CPUs every process has its own statistics: they must agree in what they hold.
    both = [replace(alone, out=str(tmp_path / norm), norm=norm, batch_size=4) for norm in ("group", "batch")]
    for one in both:
        Path(one.out).mkdir()
    torchrun(str(SUPPORT / "deepnoise_ranks.py"), json.dumps([asdict(one) for one in both]))
    for one in both:
        first, second = (torch.load(Path(one.out) / f"rank{rank}.pt", weights_only=False) for rank in (0, 1))
        assert set(first) == {"pretrain", "finetune-HUVEC", "held_out"} and alike(first, second), one.norm
        saved = torch.load(Path(one.out) / "finetune-HUVEC" / "checkpoint.pt")
        assert alike(saved["model"], first["finetune-HUVEC"]["model"])
        assert alike(saved["more"], {key: first["finetune-HUVEC"][key] for key in ("teacher", "pseudo")})
    # From the second epoch's end on, a guessed label may tip over by rounding.
    for stage in ("pretrain", "finetune-HUVEC"):
        check_logs(Path(alone.out) / stage, tmp_path / "group" / stage, exact_epochs=2)
    own = torch.load(Path(alone.out) / "finetune-HUVEC" / "checkpoint.pt")["more"]
    grouped = torch.load(tmp_path / "group" / "rank0.pt", weights_only=False)["finetune-HUVEC"]
    guessed = [state["pseudo"]["labels"] for state in (own, grouped)]
    assert ((guessed[0] >= 0) == (guessed[1] >= 0)).all()
    assert (guessed[0] == guessed[1]).float().mean() > 0.8
    for name, weights in own["teacher"].items():
        torch.testing.assert_close(weights, grouped["teacher"][name], rtol=0.05, atol=5e-3)
