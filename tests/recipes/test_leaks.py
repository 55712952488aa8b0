"""Labels do not leak past the pictures of generated data; a leak that is put there is found."""

from importlib import import_module

import numpy as np
import pandas as pd
import pytest

import rxrx_fast as rx
from rxrx_fast.recipes import leaks
from rxrx_fast.synth.design import Parameters, experiment_names, plan

# The package's attribute of this name is the function.
cli = import_module("rxrx_fast.cli.main")


@pytest.fixture(scope="module")
def wells():
    """The plan of a whole generated data set, as a catalog without images: 8 experiments of 4 full plates."""
    parameters = Parameters("rxrx", tuple(experiment_names(8)), 4, 308, 1, 64, 0)
    rows = [(w.experiment, w.plate, w.well, w.sirna, w.well_type, w.dataset) for w in plan(parameters)]
    frame = pd.DataFrame(rows, columns=["experiment", "plate", "well", "sirna_id", "well_type", "split"])
    return rx.Catalog.from_frame(frame.assign(site=1), root="/", list_images=False)


@pytest.mark.parametrize("look", [leaks.positions, leaks.places])
def test_places_tell_nothing(wells, look):
    """On a full-size plan neither the well's place nor the order of rows tells its siRNA across experiments."""
    treated = wells.where(well_type="treatment")
    train, test = treated.split("train"), treated.split("test")
    hits = (leaks.ridge(look(train), train.labels, look(test)) == test.labels).mean()
    # 1,108 treatments; a row tells its plate's group of 277 at best where groups followed plates.
    assert hits < 4 / 1108


def test_a_leak_is_found(wells):
    """Were every siRNA in the same well of every plate, the model of places would know it."""
    treated = wells.where(well_type="treatment")
    train, test = (treated.split(name) for name in ("train", "test"))
    # The same places for the same label: a leaky design.
    place = np.random.default_rng(0).permutation(308)
    leaky = [np.stack([place[part.labels % 277] // 22, place[part.labels % 277] % 22], 1) for part in (train, test)]
    powers = [np.stack([y**i * x**j for i in range(4) for j in range(4) if 0 < i + j <= 3], 1) * 1.0
              for y, x in (part.T for part in leaky)]  # fmt: skip
    hits = (leaks.ridge(powers[0], train.labels, powers[1]) == test.labels).mean()
    assert hits > 8 / 1108


def test_ridge_finds_what_is_there_and_not_what_is_not():
    """Separable groups are told apart on new samples; shuffled labels are not."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 40)
    inputs = 5 * np.eye(5)[labels] + rng.normal(size=(200, 5))
    train, test = np.arange(200) % 2 == 0, np.arange(200) % 2 == 1
    assert (leaks.ridge(inputs[train], labels[train], inputs[test]) == labels[test]).mean() > 0.95
    shuffled = rng.permutation(labels[train])
    assert (leaks.ridge(inputs[train], shuffled, inputs[test]) == labels[test]).mean() < 0.4


def test_the_generated_pictures_do_not_leak(screen, capsys):
    """On generated pictures every cheap look at held-out experiments is at chance; the command tells it in a table."""
    found = leaks.examine(str(screen))["looks"]
    assert set(found) == {"mean intensities", "means and contrast", "shuffled labels", "positions", "order of files"}
    for name, row in found.items():
        assert row["samples"] == 28
        assert row["chance"] == 1 / 14
        assert name == "means and contrast" or row["p_value"] > 0.001, f"{name}: {row}"
    assert cli.main(["train", "leaks", str(screen)]) == 0
    text = capsys.readouterr().out
    for part in ("the training part", "what is held out"):
        assert f"the loader, in reading {part}: " in text
    assert all(name in text for name in found)
    assert "sites/s" in text


def test_a_phenotype_in_the_intensities_is_found(screen, monkeypatch):
    """Were a siRNA's wells a little brighter than others, the look at intensities would say so."""
    before = leaks.intensities

    def brighter(catalog, threads=None):
        found, sentence = before(catalog, threads)
        return found + 2 * np.cos(catalog.labels[:, None] * np.arange(1, 13)), sentence

    monkeypatch.setattr(leaks, "intensities", brighter)
    assert leaks.examine(str(screen))["looks"]["mean intensities"]["p_value"] < 1e-6
