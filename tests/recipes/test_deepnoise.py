"""DeepNoise: its losses by hand, exact resume with a teacher and pseudo-labels, and no look at held-out labels."""

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from rxrx_fast.recipes import classify, deepnoise, teacher
from rxrx_fast.recipes.runlog import RunLog
from rxrx_fast.recipes.trainer import Trainer

# The package's attribute of this name is the function.
cli = import_module("rxrx_fast.cli.main")


@pytest.fixture
def settings(rxrx_root, stats, tmp_path):
    """Both stages in seconds: one epoch, then one cycle of two and the five of the end."""
    return deepnoise.Settings(
        str(rxrx_root), str(tmp_path / "run"), size=32, epochs=1, cycle=2, cycles=1, batch_size=8, tta=1, quiet=True
    )


def weights(folder, name="model"):
    """A stage's weights, from its checkpoint."""
    state = torch.load(Path(folder) / "finetune-HUVEC" / "checkpoint.pt")
    return state["more"]["teacher"] if name == "teacher" else state["model"]


def test_ramp_and_consistency_by_hand():
    """The weight rises to 1 in five epochs; the loss is the mean squared difference of softmaxes."""
    assert teacher.ramp_up(1) == pytest.approx(np.exp(-5 * 0.64))
    assert teacher.ramp_up(5) == teacher.ramp_up(99) == 1
    one, two = torch.tensor([[0.0, np.log(3.0)]]), torch.tensor([[0.0, 0.0]])
    assert float(teacher.consistency(one, two)) == pytest.approx(0.25**2)


def test_the_teacher_follows():
    """It keeps 0.5 of itself in the first epoch, 0.999 after the 20th, and at first no more than a plain mean would."""
    student, follower = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for epoch, step, kept in ((1, 100, 0.5), (2, 1000, 0.9), (11, 1000, 0.99), (21, 10**6, 0.999), (21, 1, 0.5)):
        nn.init.constant_(student.weight, 1.0)
        nn.init.constant_(follower.weight, 0.0)
        teacher.follow(follower, student, epoch, step)
        assert float(follower.weight.detach()) == pytest.approx(1 - kept, rel=1e-4)


def test_from_end_to_end(settings, capsys):
    """One command runs both stages and tells every step; a plate's assigned siRNAs are all different, of one group."""
    line = ["train", "deepnoise", settings.root, "--out", settings.out, "--size", "32", "--epochs", "1", "--cycle", "2",
            "--cycles", "1", "--batch-size", "8", "--tta", "8", "-q"]  # fmt: skip
    assert cli.main(line) == 0
    text = capsys.readouterr().out
    assert "test, 8 wells" in text
    assert "assigned" in text
    told = {line.split(": ")[0]: line for line in text.splitlines() if line.startswith("the loader, in ")}
    assert list(told) == [f"the loader, in {s}" for s in ("pretrain", "HUVEC", "predicting test, HUVEC")]
    assert all("sites/s" in line for line in told.values())
    assert "For pseudo-labels: " in told["the loader, in HUVEC"]
    results = json.loads((Path(settings.out) / "results.json").read_text())["held_out"]["test"]
    said = pd.read_csv(Path(settings.out) / "predictions_test.csv")
    for step in ("plain", "restricted", "balanced", "assigned"):
        assert results[step]["accuracy"] == pytest.approx((said[step] == said["sirna_id"]).mean())
    assert results["groups"] == 2
    plates = [set(rows["assigned"]) for _, rows in said.groupby("plate")]
    assert len(said) == 8
    assert [len(plate) for plate in plates] == [4, 4]
    assert not plates[0] & plates[1]
    rows = RunLog.read(Path(settings.out) / "finetune-HUVEC" / "log.csv")
    assert len({row["epoch"] for row in rows}) == 7
    assert all(np.isfinite(float(row[name])) for row in rows for name in ("loss", "supervised", "consistency"))
    assert rows[-1]["lr"] == "0.0001", "the last epochs have a rate of their own"


def test_the_second_stage_resumes_exactly(settings, monkeypatch):
    """Stopped in the middle of an epoch with pseudo-labels: student, teacher and predictions of a run that was not."""
    straight = deepnoise.run(settings)
    broken = deepnoise.replace(settings, out=settings.out + "-broken", save_every=1)
    advance = Trainer._advance

    def stops(self, epoch, share):
        if self.folder.name == "finetune-HUVEC" and self.step == 13:
            raise KeyboardInterrupt
        advance(self, epoch, share)

    monkeypatch.setattr(Trainer, "_advance", stops)
    with pytest.raises(KeyboardInterrupt):
        deepnoise.run(broken)
    monkeypatch.setattr(Trainer, "_advance", advance)
    state = torch.load(Path(broken.out) / "finetune-HUVEC" / "checkpoint.pt")
    assert state["step"] == 13
    assert state["loader"]["step"] > 0
    assert (state["more"]["pseudo"]["labels"] >= 0).sum() == 16
    assert deepnoise.run(broken)["held_out"] == straight["held_out"]
    for name in ("model", "teacher"):
        one, two = weights(settings.out, name), weights(broken.out, name)
        assert all(torch.equal(one[key], two[key]) for key in one), name


def test_held_out_labels_are_never_looked_at(settings, stats, tmp_path):
    """With the held-out labels turned round in the metadata, the same weights and the same predictions come out."""
    first = deepnoise.run(settings)
    root = tmp_path / "other"
    shutil.copytree(settings.root, root)
    frame = pd.read_csv(root / "metadata.csv")
    asked = (frame["dataset"] == "test") & (frame["well_type"] == "treatment")
    names = frame.loc[asked, ["sirna", "sirna_id"]].drop_duplicates().sort_values("sirna_id")
    turned = dict(zip(names["sirna_id"], np.roll(names.to_numpy(), 3, axis=0).tolist()))
    frame.loc[asked, ["sirna", "sirna_id"]] = [turned[label] for label in frame.loc[asked, "sirna_id"]]
    frame.to_csv(root / "metadata.csv", index=False)
    other = deepnoise.replace(settings, root=str(root), out=settings.out + "-other")
    second = deepnoise.run(other)
    one, two = weights(settings.out), weights(other.out)
    assert all(torch.equal(one[key], two[key]) for key in one)
    said = [pd.read_csv(Path(s.out) / "predictions_test.csv") for s in (settings, other)]
    assert (said[0]["sirna_id"] != said[1]["sirna_id"]).all()
    assert (said[0]["assigned"] == said[1]["assigned"]).all()
    assert first["held_out"]["test"]["wells"] == second["held_out"]["test"]["wells"]


def test_pseudo_labels_are_balanced_means(rxrx_root):
    """They are of the plate's group, blended with 0.9 of the new predictions, and renewed once an epoch."""
    table = pd.DataFrame({
        "well_id": list("abcd"), "experiment": "HUVEC-17", "plate": [1, 1, 2, 2]}, index=[4, 6, 9, 11],
    )  # fmt: skip
    given = [np.array([[5.0, 0, 0, 0], [0, 5, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5]]), np.full((4, 4), 2.0)]
    calls = iter(given)
    pseudo = teacher.PseudoLabels(
        lambda: (table, next(calls)), [np.array([0, 1]), np.array([2, 3])], np.array([10, 11, 12, 13]), table, 12
    )
    pseudo.renew(3)
    pseudo.renew(3)
    assert pseudo.labels.tolist() == [-1, -1, -1, -1, 10, -1, 11, -1, -1, 12, -1, 13]
    again = teacher.PseudoLabels(None, [], np.zeros(0), table, 12)
    again.load_state_dict(pseudo.state_dict())
    again.renew(3)
    assert again.labels.tolist() == pseudo.labels.tolist()
    pseudo.renew(4)
    torch.testing.assert_close(pseudo.logits, torch.from_numpy(0.1 * given[0] + 0.9 * given[1]))


def test_the_published_schedule_is_the_default():
    """Without options the constants are the authors': 160 epochs, cycles of 40, ArcFace 30 and 0.1, eight turns."""
    settings = deepnoise.Settings("root", "out")
    assert (settings.epochs, settings.cycle, settings.cycles, settings.tta) == (160, 40, 4, 8)
    assert settings.correction == "plate"
    assert settings.head == "arcface"
    head = classify.ArcFace(4, 2)
    assert (head.scale, head.margin) == (30.0, 0.1)
