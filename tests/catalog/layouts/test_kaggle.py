"""The Kaggle editions: recognition, order, sites of a well."""

from __future__ import annotations

import re

import numpy as np
from data_roots import kaggle_root, message, write

from rxrx_fast.catalog import Catalog
from rxrx_fast.catalog.recognition import read_root


def test_kaggle_2019_by_its_numbers(tmp_path):
    """A siRNA that is a number means the 2019 edition, and the number is label and name."""
    layout, records = read_root(str(kaggle_root(tmp_path, "HEPG2-01_1_B03,HEPG2-01,1,B03,513\n")))
    assert layout.name == "kaggle-2019"
    assert records.rows.frame["sirna_id"].tolist() == [513, 513, -1, -1]
    assert records.rows.frame["sirna"].tolist() == ["513", "513", "", ""]


def test_kaggle_2023_by_its_names(tmp_path):
    """A siRNA that is a name means the 2023 edition."""
    root = kaggle_root(
        tmp_path, "x,HEPG2-01,1,B03,sirna_250\n", controls="x,HEPG2-01,1,B02,UNTREATED,negative_control\n"
    )
    table = Catalog.read(root).split("train").table
    assert Catalog.read(root).layout.name == "kaggle-2023"
    assert table["sirna"].tolist() == ["UNTREATED"] * 2 + ["sirna_250"] * 2
    assert table["well_type"].tolist() == ["negative_control"] * 2 + ["treatment"] * 2
    assert table["sirna_id"].tolist() == [1138, 1138, 246, 246]  # four controls lie below 250


def test_test_csv_alone_is_2019(tmp_path):
    """A root with ``test.csv`` alone is called 2019, and the missing files are noted."""
    layout, records = read_root(str(write(tmp_path, {"test.csv": "experiment,plate,well\nRPE-08,1,B03\n"})))
    assert layout.name == "kaggle-2019"
    assert sum("is missing" in note for note in records.notes) == 3


def test_kaggle_is_sorted_by_number_of_plate(tmp_path):
    """Wells come by split, experiment, plate as a number, and well, whatever the files' order."""
    train = "a,RPE-01,10,B03,1\nb,RPE-01,9,C03,2\nc,RPE-01,9,B03,3\n"
    table = Catalog.read(kaggle_root(tmp_path, train)).table
    wells = ["RPE-01_9_B03", "RPE-01_9_C03", "RPE-01_10_B03", "HEPG2-08_1_B03"]
    assert table["well_id"].drop_duplicates().tolist() == wells


def test_two_sites_a_well_are_assumed_and_said(tmp_path):
    """Without ``pixel_stats.csv`` a Kaggle well has sites 1 and 2, and a note says that this is an assumption."""
    catalog = Catalog.read(kaggle_root(tmp_path, "a,RPE-01,1,B03,1\n"))
    assert catalog.split("train").table["site"].tolist() == [1, 2]
    assert "two sites a well are assumed" in catalog.summary()


def test_pixel_stats_tells_the_sites(tmp_path):
    """The pairs of ``pixel_stats.csv`` are the sites, and a well that it does not name is noted."""
    root = kaggle_root(tmp_path, "RPE-01_1_B03,RPE-01,1,B03,1\nRPE-01_1_B04,RPE-01,1,B04,2\n")
    stats = "id_code,experiment,plate,well,site,channel,mean\n"
    stats += "".join(f"RPE-01_1_B03,RPE-01,1,B03,{site},{channel},1.5\n" for site in (1, 3) for channel in (1, 2))
    write(root, {"pixel_stats.csv": stats})
    catalog = Catalog.read(root)
    assert catalog.table["site_id"].tolist() == ["RPE-01_1_B03_1", "RPE-01_1_B03_3"]
    assert "wells of the CSV files that have no site in pixel_stats.csv: 2" in catalog.summary()


def test_pixel_stats_of_another_data_set(tmp_path):
    """A ``pixel_stats.csv`` that knows none of the wells is refused and not taken for an empty data set."""
    root = write(kaggle_root(tmp_path, "a,RPE-01,1,B03,1\n"), {"pixel_stats.csv": "id_code,site\nX_1_B02,1\n"})
    assert "pixel_stats.csv: names no well" in message(root)


def test_duplicate_well_across_files(tmp_path):
    """A well that two Kaggle files list is refused with both files."""
    root = kaggle_root(tmp_path, "a,RPE-01,1,B02,1\n", controls="a,RPE-01,1,B02,1138,negative_control\n")
    assert re.search(r"train_controls\.csv line 2: site RPE-01_1_B02_1 .*train\.csv line 2", message(root))


def test_rows_know_their_place_after_sorting(tmp_path):
    """A row that was sorted elsewhere still names the line it came from."""
    _, records = read_root(str(kaggle_root(tmp_path, "a,RPE-02,1,B03,1\nb,RPE-01,1,B03,2\n")))
    assert records.rows.place(0).endswith("train.csv line 3")
    assert np.array_equal(records.rows.line, [3, 3, 2, 2, 2, 2])
