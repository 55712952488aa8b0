"""The labels of both Kaggle editions."""

from __future__ import annotations

import pytest
from data_roots import kaggle_root, message
from hypothesis import given
from hypothesis import strategies as st

from rxrx_fast.catalog import Catalog
from rxrx_fast.catalog.layouts.kaggle_2023 import NAMES
from rxrx_fast.catalog.table import UNTREATED

CONTROLS = [
    52, 144, 201, 237, 256, 272, 323, 374, 410, 542, 577, 618, 650, 672, 682,
    702, 714, 756, 766, 810, 822, 825, 842, 852, 864, 888, 967, 1011, 1037, 1056,
]  # fmt: skip


def test_labels_of_2023_follow_the_rule():
    """Treatment N becomes N less the controls below it, the k-th control 1108 + k, and UNTREATED 1138."""
    expected = {f"sirna_{n}": n - sum(c < n for c in CONTROLS) for n in range(1138) if n not in CONTROLS}
    expected |= {f"sirna_{n}": 1108 + k for k, n in enumerate(CONTROLS)} | {"UNTREATED": 1138}
    assert {name: label for label, name in enumerate(NAMES)} == expected


def test_labels_of_2023_are_a_bijection():
    """The 1139 names are distinct."""
    assert len(NAMES) == len(set(NAMES)) == UNTREATED + 1


@given(st.lists(st.sampled_from(NAMES[:1108]), min_size=1, max_size=8, unique=True))
def test_labels_do_not_depend_on_the_rows_present(tmp_path_factory, names):
    """Any few treatments have the labels that they have in the whole data set."""
    train = "".join(f"x,RPE-01,1,B{n:02d},{name}\n" for n, name in enumerate(names))
    table = Catalog.read(kaggle_root(tmp_path_factory.mktemp("root"), train)).split("train").table
    assert [NAMES[label] for label in table["sirna_id"]] == table["sirna"].tolist()


@pytest.mark.parametrize(
    ("train", "controls", "where", "what"),
    [
        ("a,RPE-01,1,B03,sirna_52\n", "", "train.csv line 2", "contradicts"),
        ("a,RPE-01,1,B03,1\nb,RPE-01,1,B04,1108\n", "", "train.csv line 3", "contradicts"),
        ("a,RPE-01,1,B03,1\n", "a,RPE-01,1,B02,7,negative_control\n", "train_controls.csv line 2", "contradicts"),
        ("a,RPE-01,1,B03,sirna_1\nb,RPE-01,1,B04,sirna_1138\n", "", "train.csv line 3", "no siRNA of 2023"),
        ("a,RPE-01,1,B03,1\nb,RPE-01,1,B04,sirna_3\n", "", "train.csv line 3", "not a whole number"),
        ("a,RPE-01,1,B03,1\nb,RPE-01,1,B04,1139\n", "", "train.csv line 3", "above 1138"),
        ("a,RPE-01,1,B03,1\n", "a,RPE-01,1,B02,1138,control\n", "train_controls.csv line 2", "none of treatment"),
    ],
)
def test_faulty_labels_are_refused_with_their_line(tmp_path, train, controls, where, what):
    """A siRNA that does not exist, or that its well type contradicts, is refused."""
    text = message(kaggle_root(tmp_path, train, controls=controls))
    assert where in text
    assert what in text
