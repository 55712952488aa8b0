"""Catalogs of other screens, from a frame and a template."""

from __future__ import annotations

import os
import re

import numpy as np
import pandas as pd
import pytest
from data_roots import screen, touch
from hypothesis import given
from hypothesis import strategies as st

from rxrx_fast.catalog import COLUMNS, Catalog
from rxrx_fast.errors import DataError, UsageError


def test_from_frame_fills_what_is_missing(tmp_path):
    """The columns of the template are enough; the others get their defaults and extra columns stay."""
    catalog = Catalog.from_frame(screen(dose=[0.5, 1.0], edge=[True, False]), root=tmp_path)
    assert catalog.layout.name == "custom"
    assert tuple(catalog.table.columns) == (*COLUMNS, "dose", "edge")
    assert catalog.where(edge=True).table["dose"].tolist() == [0.5]
    row = catalog.table.iloc[1]
    assert (row["site_id"], row["cell_type"], row["well_type"]) == ("A-1_1_A01_2", "A", "treatment")
    assert (row["sirna_id"], row["group"], row["present"], row["dose"]) == (-1, -1, -1, 1.0)


def test_from_frame_lists_images(tmp_path):
    """Images are found whatever the template looks like, with the channel in the folder too."""
    touch(tmp_path, ["c01/A01-1.tif", "c02/A01-1.tif", "c02/A01-2.tif", "c02/other.tif"])
    catalog = Catalog.from_frame(screen(), "c{channel:02d}/{well}-{site}.tif", channels=2, root=tmp_path)
    assert catalog.table["present"].tolist() == [0b11, 0b10]
    assert catalog.files([1]) == [(str(tmp_path / "c01/A01-2.tif"), str(tmp_path / "c02/A01-2.tif"))]
    assert "belong to no row" not in catalog.summary()


def test_from_frame_uses_columns_of_its_own(tmp_path):
    """A template may use any column, and numbers keep their type for a format."""
    sites = screen(barcode=["BR7", "BR7"], row=[1, 2], site=None, site_id=["x", "y"])
    catalog = Catalog.from_frame(sites, "{barcode}/r{row:02d}.tif", channels=5, root=tmp_path)
    assert catalog.layout.files_per_site == 1
    assert catalog.files([0, 1]) == [(str(tmp_path / "BR7/r01.tif"),), (str(tmp_path / "BR7/r02.tif"),)]
    assert catalog.table["site_id"].tolist() == ["x", "y"]
    assert catalog.where(row=2).table["barcode"].tolist() == ["BR7"]


def test_from_frame_reads_labels(tmp_path):
    """Labels come from ``sirna_id`` or ``label``, with gaps as -1, and need not be those of RxRx1."""
    catalog = Catalog.from_frame(screen(label=[4000.0, np.nan], well_type=["dmso", ""]), root=tmp_path)
    assert catalog.labels.tolist() == [4000, -1]
    assert catalog.table["well_type"].tolist() == ["dmso", "treatment"]


def test_from_frame_takes_numbers_for_names(tmp_path):
    """Numbers in the columns experiment and well become text."""
    catalog = Catalog.from_frame(screen(experiment=[20, 20], well=[7, 8]), root=tmp_path)
    assert catalog.table["site_id"].tolist() == ["20_1_7_1", "20_1_8_2"]
    assert catalog.categories["experiment"] == ["20"]


def test_from_frame_takes_a_catalogs_table(kaggle):
    """The table of a catalog makes the same catalog again."""
    catalog = Catalog.read(kaggle)
    again = Catalog.from_frame(catalog.table, catalog.layout.path, root=kaggle)
    pd.testing.assert_frame_equal(again.table, catalog.table, check_categorical=False)
    assert again.files([5]) == catalog.files([5])


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/data/{well}_{site}.tif", "below the root"),
        ("../{well}_{site}.tif", "below the root"),
        ("a/../../{well}_{site}.tif", "below the root"),
        ("C:/{well}_{site}.tif", "below the root"),
        ("{well}\\{site}.tif", "below the root"),
        ("{well}_{field}.tif", "no column 'field'"),
        ("{well.__class__}_{site}.tif", "no column"),
        ("{}_{site}.tif", "no column ''"),
        ("{0}.tif", "no column '0'"),
        ("{well!r}.tif", "no column"),
        ("{well.tif", "write columns as in"),
        ("{well:02d}_{site}.tif", "does not suit"),
        ("", "path of a file"),
        ("{well}/{site}/", "path of a file"),
    ],
)
def test_faulty_templates(tmp_path, path, what):
    """A faulty template, or one that leaves the root, raises UsageError."""
    with pytest.raises(UsageError, match=re.escape(what)):
        Catalog.from_frame(screen(), path, root=tmp_path)


def test_a_format_cannot_climb_out_of_the_root(tmp_path):
    """Two harmless values that a format truncates to two dots are refused."""
    sites = screen(a=[".x", ".y"], b=[".x", ".y"])
    with pytest.raises(UsageError, match="leave the root"):
        Catalog.from_frame(sites, "{a:.1}{b:.1}/{site}.tif", root=tmp_path)


@pytest.mark.parametrize("channels", [0, 63, 2.5, True, "6"])
def test_faulty_number_of_channels(tmp_path, channels):
    """Channels are bits of an int64, so there are 1 to 62 of them."""
    with pytest.raises(UsageError, match="1 to 62"):
        Catalog.from_frame(screen(), channels=channels, root=tmp_path)


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"well": ["A01", "../A01"]}, "frame row 1: well '../A01' would leave the root"),
        ({"experiment": ["A", None]}, "frame row 1: experiment '' is empty"),
        ({"plate": ["1", "BR7"]}, "frame row 1: plate 'BR7' is not a whole number"),
        ({"site": [1, 1]}, "frame row 1: site A-1_1_A01_1 is already at frame row 0"),
    ],
)
def test_faulty_rows_of_a_frame(tmp_path, columns, what):
    """A faulty value is refused with the row that it is in."""
    with pytest.raises(DataError, match=re.escape(what)):
        Catalog.from_frame(screen(**columns), root=tmp_path)


def test_columns_of_its_own_are_checked_too(tmp_path):
    """A column that only the template knows can't leave the root either."""
    with pytest.raises(DataError, match=re.escape("frame row 0: folder '..' would leave the root")):
        Catalog.from_frame(screen(folder=["..", "x"]), "{folder}/{site}.tif", root=tmp_path)


def test_two_sites_cannot_share_a_file(tmp_path):
    """A template that gives two sites one file is refused."""
    with pytest.raises(DataError, match="another site's file"):
        Catalog.from_frame(screen(), "{experiment}/{well}.tif", root=tmp_path)


def test_a_frame_without_rows_or_root(tmp_path):
    """A frame without rows and a missing folder are refused."""
    with pytest.raises(DataError, match="no rows"):
        Catalog.from_frame(screen().iloc[:0], root=tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        Catalog.from_frame(screen(), root=tmp_path / "nowhere")


@given(value=st.text(max_size=8) | st.text(alphabet="./\\\0:a", max_size=4))
def test_no_accepted_folder_leaves_the_root(tmp_path_factory, value):
    """Whatever a column of the template holds, it is refused or stays one folder below the root."""
    root = tmp_path_factory.getbasetemp()
    try:
        catalog = Catalog.from_frame(screen(folder=[value, value]), "{folder}/{site}.tif", root=root, list_images=False)
    except DataError as error:
        told = str(error)
    else:
        told = None
    if told is not None:
        assert "frame row 0: folder" in told
        return
    for (file,) in catalog.files([0, 1]):
        assert os.path.dirname(os.path.dirname(os.path.normpath(file))) == str(root)
