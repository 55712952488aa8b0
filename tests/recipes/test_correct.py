"""Corrections of embeddings, by what each promises; what is left of a batch; the comparison from end to end."""

import json
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.recipes import batch_mixing as mixing
from rxrx_fast.recipes import classify, correct, embeddings, figures

GROUPS, WELLS, WIDTH = 4, 60, 6

# The package's attribute of this name is the function.
cli = import_module("rxrx_fast.cli.main")


@pytest.fixture
def screen_like():
    """Embeddings (240, 6) of 12 siRNAs in 4 experiments, each moved and stretched, and the table of their wells."""
    rng = np.random.default_rng(0)
    experiment = np.repeat(np.arange(GROUPS), WELLS)
    sirna = np.tile(np.arange(12), GROUPS * WELLS // 12)
    signal = 3 * rng.normal(size=(12, WIDTH))[sirna] + rng.normal(size=(len(sirna), WIDTH))
    moved = (
        signal * rng.uniform(0.5, 2, (GROUPS, WIDTH))[experiment] + 10 * rng.normal(size=(GROUPS, WIDTH))[experiment]
    )
    table = pd.DataFrame({
        "cell_type": "HUVEC", "experiment": [f"HUVEC-{e + 1:02d}" for e in experiment], "plate": 1, "sirna_id": sirna,
        "well_type": np.where(sirna < 9, "treatment", "positive_control"),
    })  # fmt: skip
    return signal, moved, table


@pytest.mark.parametrize("name", [n for n in embeddings.METHODS if n != "harmony"])
def test_a_correction_takes_the_batch_and_leaves_the_sirna(screen_like, name):
    """After it, neighbourhoods have wells of all experiments, and a probe finds siRNAs in a new experiment."""
    _, moved, table = screen_like
    given = moved.copy()
    corrected = embeddings.correct(name, moved, table)
    assert (moved == given).all(), "the values given were changed"
    held_out = (table["experiment"] == "HUVEC-04").to_numpy()
    labels = table["sirna_id"].to_numpy()

    def found(x):
        return (mixing.probe(x[~held_out], labels[~held_out], x[held_out]) == labels[held_out]).mean()

    before, after = (mixing.batch_left(x, table) for x in (moved, corrected))
    assert before["experiment"] == 1.0
    assert before["kbet_experiment"] == 1.0
    assert after["kbet_experiment"] < 0.75
    assert after["silhouette_sirna"] > before["silhouette_sirna"]
    # Of twelve; sphering on three siRNAs of controls knows few of the directions that vary.
    assert found(corrected) > found(moved) + 0.3


def test_centred_and_standardised(screen_like):
    """Every group's mean is 0, and its deviation 1 where that is asked."""
    _, moved, table = screen_like
    for name, deviation in (
        ("center-experiment", False),
        ("standardize-experiment", True),
        ("standardize-plate", True),
    ):
        corrected = embeddings.correct(name, moved, table)
        for _, rows in table.groupby("experiment").indices.items():
            np.testing.assert_allclose(corrected[rows].mean(0), 0, atol=1e-12)
            if deviation:
                np.testing.assert_allclose(corrected[rows].std(0), 1)


def test_sphering_whitens_the_controls(screen_like, monkeypatch):
    """Without shrinkage, controls have mean 0 on each plate and the identity as covariance."""
    monkeypatch.setattr(embeddings, "_SHRINKAGE", 1e-9)
    _, moved, table = screen_like
    controls = (table["well_type"] != "treatment").to_numpy()
    corrected = embeddings.correct("sphering", moved, table)[controls]
    np.testing.assert_allclose(corrected.T @ corrected / len(corrected), np.eye(WIDTH), atol=1e-5)
    for _, rows in table[controls].reset_index().groupby("experiment").indices.items():
        np.testing.assert_allclose(corrected[rows].mean(0), 0, atol=1e-9)


def test_coral_makes_covariances_alike(screen_like, monkeypatch):
    """Without shrinkage, every experiment gets the pooled covariance and the common mean."""
    monkeypatch.setattr(embeddings, "_SHRINKAGE", 1e-9)
    _, moved, table = screen_like
    corrected = embeddings.correct("coral", moved, table)
    centred = embeddings.correct("center-experiment", moved, table)
    for _, rows in table.groupby("experiment").indices.items():
        np.testing.assert_allclose(
            np.cov(corrected[rows].T, ddof=0), centred.T @ centred / len(centred), rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(corrected[rows].mean(0), moved.mean(0), atol=1e-9)


def test_combat_approaches_standardisation_with_many_wells():
    """With wells enough, the priors have no say: each batch gets the grand mean and the pooled deviation."""
    rng = np.random.default_rng(1)
    batches = np.repeat([0, 1], 20000)
    values = rng.normal(size=(40000, 5)) * np.where(batches, 3, 1)[:, None] + np.arange(5) * batches[:, None]
    corrected = embeddings.combat(values, batches)
    for b in (0, 1):
        np.testing.assert_allclose(corrected[batches == b].mean(0), values.mean(0), atol=0.05)
        np.testing.assert_allclose(corrected[batches == b].std(0), np.sqrt(5), rtol=0.03)


def test_combat_shrinks_small_batches():
    """A small batch's odd dimension is moved less than all the way, towards what its other dimensions say."""
    rng = np.random.default_rng(2)
    batches = np.repeat([0, 1], [200, 5])
    values = rng.normal(size=(205, 50))
    values[batches == 1, 0] += 2.0
    left = embeddings.combat(values, batches)[batches == 1].mean(0)
    exact = values.mean(0)
    assert left[0] > exact[0] + 0.1, "moved all the way"
    assert left[0] < values[batches == 1, 0].mean() - 0.1, "not moved"


@pytest.mark.integration
def test_harmony_mixes(screen_like):
    """The package's correction mixes experiments that its first clusters share, where it is installed."""
    pytest.importorskip("harmonypy")
    signal, _, table = screen_like
    shifts = 3 * np.random.default_rng(4).normal(size=(GROUPS, WIDTH))
    moved = signal + shifts[table["experiment"].str[-2:].astype(int).to_numpy() - 1]
    corrected = embeddings.correct("harmony", moved, table)
    assert corrected.shape == moved.shape
    left = [mixing.batch_left(x, table)["kbet_experiment"] for x in (moved, corrected)]
    assert left[0] > 0.5 > 0.2 > left[1]


def test_what_corrections_refuse(screen_like):
    """A plate without controls, a batch of one well, an unknown name: one line each."""
    _, moved, table = screen_like
    with pytest.raises(DataError, match="HUVEC-01/1 has no control well"):
        embeddings.correct("sphering", moved, table.assign(well_type="treatment"))
    with pytest.raises(DataError, match="has one well"):
        embeddings.combat(moved[:61], table["experiment"].to_numpy()[:61])
    with pytest.raises(UsageError, match="must be one of center-plate"):
        embeddings.correct("magic", moved, table)
    with pytest.raises(UsageError, match="add it to --pixels"):
        correct.Settings("root", "out", correction="none", pixels=("plate",))


def test_mixed_and_separate_batches_are_told():
    """The three measures of what is left: high for batches apart, at chance for batches drawn alike."""
    rng = np.random.default_rng(3)
    batches = np.arange(300) % 3
    mixed = rng.normal(size=(300, 4))
    apart = mixed + 8 * np.eye(4)[batches]
    assert mixing.told_apart(apart, batches)[0] == 1.0
    accuracy, chance = mixing.told_apart(mixed, batches)
    assert chance == 1 / 3
    assert abs(accuracy - chance) < 0.12
    assert mixing.kbet(apart, batches) == 1.0
    assert mixing.kbet(mixed, batches) < 0.15
    assert mixing.silhouette(apart, batches) > 0.4 > 0.1 > abs(mixing.silhouette(mixed, batches))
    assert mixing.told_apart(mixed, np.zeros(300)) is None
    assert mixing.kbet(mixed, np.zeros(300)) is None


def test_the_comparison_from_end_to_end(screen, tmp_path, capsys):
    """One command makes one table and one figure; each row is measured on held-out wells; run again, nothing trains."""
    out = tmp_path / "out"
    line = ["train", "correct", screen, "--out", str(out), "--epochs", "1", "--tta", "1", "--batch-size", "16", "-q",
            "--pixels", "none", "adabn-plate", "--embeddings", "standardize-experiment", "tvn"]  # fmt: skip
    assert cli.main(line) == 0
    text = capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert list(results["rows"]) == ["none", "adabn-plate", "standardize-experiment", "tvn"]
    for name, row in results["rows"].items():
        assert (row["accuracy"] is None) == (row["kind"] == "embeddings")
        assert 0 <= row["probe"] <= 1
        assert 0 <= row["experiment"] <= 1
        assert row["experiment_chance"] == 0.2
        assert name in text
    assert "siRNA 7.1%" in text
    for name in ("none", "adabn-plate"):
        for stage in ("training", "predicting train", "predicting test"):
            (told,) = [line for line in text.splitlines() if line.startswith(f"the loader, in {name}, {stage}: ")]
            assert "sites/s" in told
    assert results["rows"]["standardize-experiment"]["experiment"] < results["rows"]["none"]["experiment"]
    frame = pd.read_csv(out / "corrections.csv", index_col=0)
    assert frame.loc["tvn", "probe"] == pytest.approx(results["rows"]["tvn"]["probe"])
    assert (out / "embeddings.png").stat().st_size > 10000
    before = (out / "pixels-none" / "log.csv").read_text()
    assert cli.main(line) == 0
    assert (out / "pixels-none" / "log.csv").read_text() == before
    assert json.loads((out / "results.json").read_text())["rows"]["tvn"] == results["rows"]["tvn"]


@pytest.mark.parametrize(
    "installed", [pytest.param(True, marks=[pytest.mark.integration, pytest.mark.slow(35)]), False]
)
def test_embeddings_are_laid_out_in_a_plane(monkeypatch, screen_like, tmp_path, installed):
    """By UMAP where it is installed, the same each time, and by principal components where it is not: siRNAs apart."""
    signal, _, table = screen_like
    if installed:
        pytest.importorskip("umap")
    else:
        monkeypatch.setitem(sys.modules, "umap", None)
    places, how = figures._plane(signal)
    assert how == ("UMAP" if installed else "PCA")
    assert places.shape == (len(signal), 2)
    np.testing.assert_array_equal(places, figures._plane(signal)[0])
    assert mixing.silhouette(places, table["sirna_id"].to_numpy()) > 0.05
    figures.embeddings({"before": signal}, table, tmp_path / "e.png")
    assert (tmp_path / "e.png").stat().st_size > 10000


@pytest.mark.parametrize("package", ["sklearn", "harmonypy"])
def test_packages_that_are_not_there_are_named(monkeypatch, screen_like, package):
    """Without scikit-learn or harmonypy, what needs it says what to install."""
    _, moved, table = screen_like
    for name in [package, *(m for m in sys.modules if m.startswith(package + "."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match="pip install 'rxrx-fast"):
        if package == "sklearn":
            mixing.batch_left(moved, table)
        else:
            embeddings.correct("harmony", moved, table)


def test_a_run_of_a_correction_is_a_classifiers(tmp_path):
    """Every setting of the comparison reaches the classifiers that it trains."""
    settings = correct.Settings("root", str(tmp_path), epochs=3, seed=5, lr=0.5)
    own = settings.classifier("plate")
    assert type(own) is classify.Settings
    assert own.correction == "plate"
    for field in fields(classify.Settings):
        if field.name not in ("correction", "out", "wells"):
            assert getattr(own, field.name) == getattr(settings, field.name)
    assert Path(own.out).parent == tmp_path
