"""Narrowing a catalog: splits, conditions, positions; what stays the same in every part."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pandas as pd
import pytest
from data_roots import images, touch

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import UsageError


def test_where_takes_values_and_lists(kaggle):
    """A value, a list, and several columns at once; the index labels stay."""
    catalog = Catalog.read(kaggle)
    part = catalog.split("train").where(cell_type="RPE", well=["B02", "B04"])
    assert part.table["well_id"].unique().tolist() == ["RPE-01_1_B02", "RPE-01_1_B04"]
    assert part.table.index.tolist() == [0, 1, 4, 5]
    assert part.codes()["site_index"].tolist() == [0, 1, 4, 5]


def test_codes_are_stable_under_filtering(kaggle):
    """Codes and plate numbers mean the same in a part as in the whole."""
    catalog = Catalog.read(kaggle)
    part = catalog.where(experiment="U2OS-01")
    assert part.categories == catalog.categories
    for name, code in catalog.codes().items():
        assert np.array_equal(part.codes()[name], code[part.table.index]), name
    for level in ("global", "cell_type", "experiment", "plate", "site"):
        codes, names = catalog.group_keys(level)
        part_codes, part_names = part.group_keys(level)
        assert part_codes.dtype == np.int64
        assert np.array_equal(part_codes, codes[part.table.index]), level
        assert [part_names[c] for c in part_codes] == [names[c] for c in part_codes]


def test_plate_keys(kaggle):
    """Plates are numbered densely over the table first read."""
    codes, names = Catalog.read(kaggle).plate_keys()
    assert names == ["RPE-01/1", "RPE-08/1", "U2OS-01/2"]
    assert codes.tolist() == [0] * 6 + [2] * 4 + [1] * 2


@pytest.mark.parametrize(
    ("conditions", "choices"),
    [
        ({"cell": "RPE"}, "no column 'cell'; choose from site_id, well_id, cell_type"),
        ({"cell_type": "HELA"}, "no cell_type 'HELA'; choose from RPE, U2OS"),
        ({"cell_type": ["RPE", None]}, "no cell_type None"),
        ({"plate": 3}, "no plate 3; choose from 1, 2"),
        ({"plate": True}, "no plate True"),
        ({"plate": [[1]]}, "no plate [1]"),
        ({"split": "val"}, "no split 'val'; choose from train, test"),
    ],
)
def test_where_lists_the_choices(kaggle, conditions, choices):
    """The error about an unknown column or value lists those that exist."""
    with pytest.raises(UsageError, match=re.escape(choices)):
        Catalog.read(kaggle).where(**conditions)


def test_a_known_value_may_match_nothing(kaggle):
    """Selecting a value that only the whole has gives an empty catalog, which still works."""
    empty = Catalog.read(kaggle).split("test").where(plate=2)
    assert len(empty) == 0
    assert empty.labels.shape == (0,)
    assert empty.group_keys("plate")[0].shape == (0,)
    assert empty.files([]) == []
    assert empty.summary().startswith("kaggle-2019")


def test_take_orders_and_refuses_masks(kaggle):
    """Positions are taken in the order given; a boolean mask is not mistaken for positions 0 and 1."""
    catalog = Catalog.read(kaggle)
    assert catalog.take([3, 0]).table.index.tolist() == [3, 0]
    assert catalog.take([3, 0]).take([1]).table.index.tolist() == [0]
    with pytest.raises(UsageError, match="whole numbers"):
        catalog.take(np.ones(12, dtype=bool))


def test_unknown_level(kaggle):
    """The error about an unknown level lists those that exist."""
    with pytest.raises(UsageError, match="choose from global, cell_type, experiment, plate, site"):
        Catalog.read(kaggle).group_keys("well")


def test_repr_is_one_line(kaggle):
    """The short form names layout, folder and number of sites."""
    text = repr(Catalog.read(kaggle))
    assert re.fullmatch(r"<Catalog kaggle-2019 at .*: 12 sites, images not listed>", text)


def test_methods_leave_the_table_alone(kaggle):
    """Nothing that a catalog does changes its table."""
    touch(kaggle, images("train/RPE-01/Plate1", "B03", 1, "12"))
    catalog = Catalog.read(kaggle)
    before = catalog.table.copy(deep=True)
    catalog.where(plate=1).available([1])
    catalog.faults(), catalog.summary(), catalog.files([0]), catalog.group_keys("site")
    pd.testing.assert_frame_equal(catalog.table, before)


def test_pickle_is_small_and_the_same(kaggle):
    """A catalog travels to a worker without its file names, which are made again there."""
    catalog = Catalog.read(kaggle)
    size = len(pickle.dumps(catalog))
    files = catalog.files(range(12))
    copy = pickle.loads(pickle.dumps(catalog))
    assert len(pickle.dumps(catalog)) == size
    pd.testing.assert_frame_equal(copy.table, catalog.table)
    assert copy.files(range(12)) == files
    assert copy.plate_keys()[1] == catalog.plate_keys()[1]
