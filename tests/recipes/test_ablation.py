"""DeepNoise's steps one by one: rows that differ in one thing, figures that are those of predictions, exact resume."""

import json
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from rxrx_fast.errors import UsageError
from rxrx_fast.recipes import ablation, deepnoise
from rxrx_fast.recipes.plates import STEPS
from rxrx_fast.recipes.runlog import RunLog
from rxrx_fast.synth import writer as synthetic

# The package's attribute of this name is the function.
cli = import_module("rxrx_fast.cli.main")


@pytest.fixture
def settings(rxrx_root, stats, tmp_path):
    """A run of seconds: one epoch of everything, and one cycle of two with the five of the end."""
    return ablation.Settings(
        str(rxrx_root), str(tmp_path / "run"), size=32, epochs=1, cycle=2, cycles=1, batch_size=8, tta=1, quiet=True,
        seeds=(4,), rows=("random", "plate", "arcface", "longer", "teacher", "pseudo"),
    )  # fmt: skip


@pytest.mark.slow(13)
def test_rows_differ_in_one_thing(settings, monkeypatch):
    """Second stages all start from the same weights; without a teacher its loss is logged and not added, and labels
    are guessed in the last row alone. A finished run gives its figures again, and trains nothing.
    """
    starts, finetune = [], deepnoise.finetune

    def watched(own, task, start, kind):
        starts.append(sum(float(value.double().sum()) for value in start.state_dict().values()))
        return finetune(own, task, start, kind)

    monkeypatch.setattr(deepnoise, "finetune", watched)
    results = ablation.run(settings)
    out = Path(settings.out)
    assert set(results["rows"]) == set(settings.rows)
    assert (out / "ablation.png").stat().st_size > 10_000
    assert json.loads((out / "results.json").read_text())["rows"] == results["rows"]
    assert len(starts) == 3
    assert len(set(starts)) == 1
    logs = {row: RunLog.read(out / "seed-4" / row / "finetune-HUVEC" / "log.csv") for row in settings.rows[3:]}
    for row in logs["longer"]:
        assert float(row["loss"]) == pytest.approx(float(row["supervised"]))
        assert float(row["consistency"]) > 0
    told = [float(logs[name][-1]["loss"]) for name in logs]
    assert len(set(told)) == 3
    for row in results["rows"].values():
        (one,) = row["seeds"]
        assert one["wells"] == 8
        assert all(one[step] * 8 == int(one[step] * 8) for step in STEPS)
        assert all("waited" in sentence for sentence in one["loader"].values())
    shutil.rmtree(out / "seed-4" / "random")
    again = ablation.run(ablation.replace(settings, rows=settings.rows[1:]))
    for name in settings.rows[1:]:
        (one,), (two,) = results["rows"][name]["seeds"], again["rows"][name]["seeds"]
        assert [one[step] for step in STEPS] == [two[step] for step in STEPS]
    assert not (out / "seed-4" / "random").exists()


def test_one_command_tells_the_order(settings, capsys):
    """A row each, and in how many seeds one is above another."""
    line = ["train", "ablation", settings.root, "--out", settings.out, "--size", "32", "--epochs", "1", "--batch-size",
            "8", "--tta", "1", "--seeds", "0", "1", "--rows", "random", "plate", "experiment", "-q"]  # fmt: skip
    assert cli.main(line) == 0
    text = capsys.readouterr().out
    assert "random < experiment: " in text
    assert "experiment < plate: " in text
    assert " of 2 seeds (" in text
    assert "accuracy of held-out wells (8, 8)" in text
    assert "the loader, in plate, training: " in text
    assert "teacher" not in text


def test_the_order_by_hand():
    """A difference counts where it is above zero, and names the step where it is not of plain predictions."""
    rows = {"pseudo": {"seeds": [{"plain": 0.5, "assigned": 0.75}, {"plain": 0.5, "assigned": 0.5}]},
            "teacher": {"seeds": [{"plain": 0.25, "assigned": 0.9}, {"plain": 0.625, "assigned": 0.9}]}}  # fmt: skip
    assert ablation._order({"rows": rows}) == [
        {"less": "teacher", "more": "pseudo", "gains": [0.25, -0.125], "holds": 1},
        {"less": "pseudo", "more": "pseudo, assigned", "gains": [0.25, 0.0], "holds": 1},
    ]
    assert ablation.spread([0.27, 0.34, 0.41]) == "34% (27 to 41)"


def test_refusals(settings):
    """Rows that don't exist, and data sets that don't go with the seeds."""
    with pytest.raises(UsageError, match="--rows 'students': must be among random, experiment"):
        ablation.replace(settings, rows=("students",))
    with pytest.raises(UsageError, match="2 data sets for 3 seeds: give one, or one a seed"):
        ablation.replace(settings, seeds=(0, 1, 2), root="a", roots=("b",))
    two = ablation.replace(settings, seeds=(5, 6), root="a", roots=("b",))
    assert [(two.repetition(n).root, two.repetition(n).seed) for n in (0, 1)] == [("a", 5), ("b", 6)]


def test_held_out_wells_without_labels_are_refused(settings, tmp_path):
    """The competition's test part tells no labels: said before hours of training, with what to do."""
    root = synthetic.generate(
        tmp_path / "kaggle", layout="kaggle", experiments=["HUVEC-01", "HUVEC-17"], plates=1, wells=4, size=32,
        workers=1, quiet=True,
    )  # fmt: skip
    with pytest.raises(UsageError, match="no held-out well of .* has a label.*--split experiments"):
        ablation.run(ablation.replace(settings, root=root))
    assert not Path(settings.out, "seed-4", "random").exists()
