"""The canonical table: columns, types, values, codes, groups of treatments."""

from __future__ import annotations

import numpy as np
import pandas as pd
from data_roots import screen

from rxrx_fast.catalog import COLUMNS, Catalog


def test_canonical_columns_and_their_types(kaggle):
    """The columns, their order and their types are as documented."""
    table = Catalog.read(kaggle).table
    assert tuple(table.columns) == COLUMNS
    assert table.index.name == "site_index"
    assert table.index.dtype == np.int64
    for name in ("plate", "site", "sirna_id", "group", "present"):
        assert table[name].dtype == np.int64, name
    for name in ("cell_type", "split", "experiment", "well", "well_type", "sirna"):
        assert isinstance(table[name].dtype, pd.CategoricalDtype), name
    assert table.iloc[0]["site_id"] == "RPE-01_1_B02_1"
    assert table.iloc[0]["well_id"] == "RPE-01_1_B02"


def test_values_of_a_row(kaggle):
    """Cell types, labels and well types follow from the CSV files."""
    table = Catalog.read(kaggle).table.drop_duplicates("well_id").set_index("well_id")
    assert table["cell_type"].tolist() == ["RPE"] * 3 + ["U2OS"] * 2 + ["RPE"]
    assert table["sirna_id"].tolist() == [1138, 5, 6, 9, 1110, -1]
    assert table.loc["U2OS-01_2_C03", "well_type"] == "positive_control"


def test_labels_and_codes(kaggle):
    """Codes are int64 arrays of positions in the categories."""
    catalog = Catalog.read(kaggle)
    codes = catalog.codes()
    assert list(codes) == ["site_index", "experiment", "plate", "well", "site", "cell_type", "well_type"]
    assert all(code.dtype == np.int64 and code.shape == (12,) for code in codes.values())
    for name in ("experiment", "well", "cell_type", "well_type"):
        assert [catalog.categories[name][c] for c in codes[name]] == catalog.table[name].tolist()
    assert catalog.labels.dtype == np.int64
    assert catalog.labels.tolist() == catalog.table["sirna_id"].tolist()
    assert catalog.categories["well_type"] == ["treatment", "positive_control", "negative_control"]


def test_groups_are_connected_components(tmp_path):
    """Plates that share treatments, also by way of a third plate, are one group, numbered by smallest treatment."""
    carried = {1: [30, 31], 2: [31, 32], 3: [2, 3], 4: [32, 33], 5: [3, 40], 6: [-1, -1]}
    rows = [(plate, label) for plate, labels in carried.items() for label in labels]
    sites = pd.DataFrame(rows, columns=["plate", "label"]).assign(experiment="A", well=[f"A{n}" for n in range(12)])
    table = Catalog.from_frame(sites, "{plate}_{well}.tif", root=tmp_path).table
    assert table.drop_duplicates("plate")["group"].tolist() == [1, 1, 0, 1, 0, -1]


def test_controls_do_not_join_groups(tmp_path):
    """Controls are on every plate, so they don't connect groups."""
    kinds = ["treatment", "positive_control"] * 2
    sites = screen(
        plate=[1, 1, 2, 2], well=["a", "b", "a", "b"], site=None, experiment=["A"] * 4, sirna_id=[7, 0, 3, 0]
    )
    table = Catalog.from_frame(sites.assign(well_type=kinds), "{plate}{well}.tif", root=tmp_path).table
    assert table["group"].tolist() == [1, 1, 0, 0]
