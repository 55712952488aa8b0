"""Images on the disk: which sites are complete, incomplete, absent, added or unknown."""

from __future__ import annotations

import os
import re

import pytest
from data_roots import images, touch

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import DataError


def test_without_image_folders_nothing_is_listed(kaggle):
    """A root without images can be read; asking for complete sites raises an error that says so."""
    catalog = Catalog.read(kaggle)
    assert set(catalog.table["present"]) == {-1}
    assert "metadata only" in catalog.summary()
    for ask in (catalog.available, catalog.faults):
        with pytest.raises(DataError, match=f"no images were found under {re.escape(str(kaggle))}"):
            ask()


def test_list_images_false_reads_no_folder(kaggle):
    """list_images=False leaves the presence of images unknown."""
    touch(kaggle, images("train/RPE-01/Plate1", "B03", 1))
    assert set(Catalog.read(kaggle, list_images=False).table["present"]) == {-1}


def test_complete_incomplete_and_absent(kaggle):
    """Each site knows its channels; counts and names of the incomplete ones are in the summary and in faults."""
    touch(kaggle, images("train/RPE-01/Plate1", "B03", 1) + images("train/RPE-01/Plate1", "B03", 2, "124"))
    catalog = Catalog.read(kaggle)
    present = catalog.table.set_index("site_id")["present"]
    assert present["RPE-01_1_B03_1"] == 0b111111
    assert present["RPE-01_1_B03_2"] == 0b001011
    assert int((present == 0).sum()) == 10
    assert "images: complete 1, incomplete 1, absent 10 sites" in catalog.summary()
    assert "without channel 3,5,6: 1 (RPE-01_1_B03_2)" in catalog.summary()
    assert catalog.faults().to_dict("list") == {"site_id": ["RPE-01_1_B03_2"], "present": [11], "missing": ["3,5,6"]}


def test_available_keeps_what_has_the_channels(kaggle):
    """Only the requested channels have to be there."""
    touch(kaggle, images("train/RPE-01/Plate1", "B03", 1) + images("train/RPE-01/Plate1", "B03", 2, "124"))
    catalog = Catalog.read(kaggle)
    assert catalog.available().table["site_id"].tolist() == ["RPE-01_1_B03_1"]
    assert catalog.available(channels=(4, 1)).table["site"].tolist() == [1, 2]
    assert len(catalog.available(channels=[3])) == 1
    assert len(catalog.available().available()) == 1


def test_an_empty_image_folder_means_absent(kaggle):
    """Where an image folder exists, sites without images are absent, not unknown."""
    (kaggle / "test").mkdir()
    assert set(Catalog.read(kaggle).table["present"]) == {0}


def test_a_third_site_on_disk_is_added_at_the_end(kaggle):
    """A site that only the disk knows joins its well, and the labels of the others stay."""
    before = Catalog.read(kaggle).table
    touch(kaggle, images("train/U2OS-01/Plate2", "B03", 3, "16"))
    catalog = Catalog.read(kaggle)
    assert catalog.table["site_id"].tolist() == [*before["site_id"], "U2OS-01_2_B03_3"]
    last = catalog.table.iloc[-1]
    assert (last.name, last["sirna_id"], last["site"], last["present"]) == (12, 9, 3, 0b100001)
    assert catalog.files([12], channels=[6])[0][0].endswith("train/U2OS-01/Plate2/B03_s3_w6.png")
    assert "sites found on the disk beside those that the CSV files tell: 1" in catalog.summary()


def test_strangers_are_counted(kaggle):
    """Images of unknown wells, plates and channels are counted in a note; other files are ignored."""
    plate = "train/RPE-01/Plate1"
    strangers = [
        *images(plate, "Z09", 1, "12"),
        *images("test/HUVEC-99/Plate1", "B03", 1, "1"),
        f"{plate}/B03_s1_w7.png",
    ]
    touch(kaggle, [*strangers, f"{plate}/Thumbs.db", f"{plate}/._B03_s1_w1.png", f"{plate}/B03_s01_w1.png"])
    catalog = Catalog.read(kaggle)
    assert "images that belong to no row of the CSV files: 4 (the first is" in catalog.summary()
    assert len(catalog) == 12


def test_a_site_beyond_metadata_is_a_stranger(tmp_path):
    """Where the CSV lists sites, another site on the disk is not added but counted."""
    (tmp_path / "metadata.csv").write_text(
        "cell_type,dataset,experiment,plate,well,site,sirna_id\nRPE,train,RPE-01,1,B03,1,4\n"
    )
    touch(tmp_path, images("images/RPE-01/Plate1", "B03", 1) + images("images/RPE-01/Plate1", "B03", 2, "1"))
    catalog = Catalog.read(tmp_path)
    assert catalog.table["present"].tolist() == [63]
    assert "images that belong to no row of the CSV files: 1 " in catalog.summary()


def test_one_wilds_file_brings_all_channels(tmp_path):
    """In WILDS one file is a whole site, so a site is complete or absent."""
    (tmp_path / "metadata.csv").write_text(
        "cell_type,dataset,experiment,plate,well,site,sirna_id\nRPE,train,RPE-01,1,B03,1,4\nRPE,val,RPE-01,1,B03,2,4\n"
    )
    touch(tmp_path, ["images/RPE-01/Plate1/B03_s2.png"])
    catalog = Catalog.read(tmp_path)
    assert catalog.table["present"].tolist() == [0, 0b111]
    assert catalog.files([1], channels=[2]) == [(str(tmp_path / "images/RPE-01/Plate1/B03_s2.png"),)]


def test_no_file_is_looked_at(kaggle, monkeypatch):
    """Listing looks at folders and never at a single file."""
    touch(kaggle, images("train/RPE-01/Plate1", "B03", 1))
    looked: list[str] = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, *args, **kw: looked.append(str(path)) or stat(path, *args, **kw))
    assert len(Catalog.read(kaggle).available()) == 1
    assert not [path for path in looked if path.endswith(".png")]
