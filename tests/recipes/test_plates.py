"""What is known of plates: groups, balance, one siRNA a well, and what each step brings."""

import numpy as np
import pandas as pd

import rxrx_fast as rx
from rxrx_fast.recipes.plates import STEPS, assign, balance, infer_groups, resolve, treatment_groups


def test_groups_are_those_of_the_generator(rxrx_root):
    """Two plates carry two groups of four treatments, disjoint, as the plates of the training part have them."""
    train = rx.Catalog.read(rxrx_root).split("train").where(well_type="treatment")
    classes = np.unique(train.labels)
    groups = treatment_groups(train, classes)
    assert sorted(map(len, groups)) == [4, 4]
    assert not set(groups[0]) & set(groups[1])
    for _, rows in train.table.groupby("plate"):
        on_plate = set(np.searchsorted(classes, rows["sirna_id"]))
        assert on_plate in [set(group) for group in groups]


def test_plates_of_an_experiment_have_different_groups():
    """Two plates that both look like the first group: the one that does so less has the other."""
    groups = [np.array([0, 1]), np.array([2, 3])]
    strong, weak = np.array([[3.0, 3, 0, 0]] * 3), np.array([[1.0, 1, 0, 0]] * 3)
    assert infer_groups([weak, strong], groups) == [1, 0]
    assert infer_groups([strong, weak], groups) == [0, 1]
    assert infer_groups([strong, weak, strong], groups) == [0, 0, 0]


def test_balance_spreads_predictions():
    """A class that takes everything gives way, until each class has its share; 0 rounds change nothing."""
    rng = np.random.default_rng(0)
    shares = rng.random((40, 8))
    shares[:, 3] += 0.5
    before, after = (np.bincount(s.argmax(1), minlength=8) for s in (shares, balance(shares, 500)))
    assert before.max() > 25
    assert after.max() <= 10
    assert after.min() >= 1
    assert (balance(shares, 0) == shares).all()


def test_assignment_gives_each_class_once():
    """As many wells as classes make a permutation, the best one; a surplus well takes its own best."""
    shares = np.array([[0.9, 0.8, 0.0], [0.9, 0.1, 0.0], [0.5, 0.4, 0.3]])
    assert assign(shares).tolist() == [1, 0, 2]
    assert sorted(assign(np.random.default_rng(0).random((5, 9)))) == sorted(
        set(assign(np.random.default_rng(0).random((5, 9))))
    )
    assert assign(np.array([[0.9, 0.0], [0.2, 0.8], [0.3, 0.1]])).tolist() == [0, 1, 0]


def test_each_step_finds_more():
    """On noisy logits of 4 groups of 20, restricting to the plate's group and giving each siRNA once help, in turn."""
    rng = np.random.default_rng(1)
    groups = [np.arange(20 * g, 20 * g + 20) for g in range(4)]
    table = pd.DataFrame({"experiment": np.repeat(["A", "B"], 80), "plate": np.tile(np.repeat([1, 2, 3, 4], 20), 2)})
    carries = {("A", p): p - 1 for p in (1, 2, 3, 4)} | {("B", p): 4 - p for p in (1, 2, 3, 4)}
    truth = np.concatenate([groups[carries[key]] for key in carries])
    logits = rng.normal(size=(160, 80))
    logits[np.arange(160), truth] += 3.0
    # Some classes are favoured everywhere, as after training on other experiments.
    logits += rng.normal(size=80)
    steps, carried = resolve(logits, table, groups)
    assert tuple(steps) == STEPS
    right = {step: (values.argmax(1) == truth).mean() for step, values in steps.items()}
    assert right["plain"] + 0.1 < right["restricted"] < right["balanced"] - 0.05, right
    assert right["assigned"] > right["restricted"] + 0.05, right
    assert carried.tolist() == [carries[key] for key in zip(table["experiment"], table["plate"])]
    for _, rows in table.groupby(["experiment", "plate"]).indices.items():
        assert len(set(steps["assigned"][rows].argmax(1))) == 20
