"""The layouts with ``metadata.csv``: rxrx.ai and WILDS."""

from __future__ import annotations

import pytest
from data_roots import METADATA, metadata_row, write

from rxrx_fast.catalog import Catalog


def test_rxrx_ai_by_its_metadata(tmp_path):
    """``metadata.csv`` with train and test rows and no images is the rxrx.ai release."""
    rows = metadata_row() + metadata_row("test", experiment="HEPG2-08")
    catalog = Catalog.read(write(tmp_path, {"metadata.csv": METADATA + rows}))
    assert (catalog.layout.name, catalog.layout.channels, catalog.layout.files_per_site) == ("rxrx.ai", 6, 6)
    assert catalog.table["split"].tolist() == ["train", "test"]


@pytest.mark.parametrize("sign", ["release", "val", "image"])
def test_wilds_by_each_of_its_signs(tmp_path, sign):
    """A release note, a validation row, or an image without a channel tells WILDS from rxrx.ai."""
    rows = metadata_row() + metadata_row(site=2)
    rows += metadata_row("val" if sign == "val" else "test", experiment="HEPG2-08")
    write(tmp_path, {"metadata.csv": METADATA + rows})
    if sign == "release":
        write(tmp_path, {"RELEASE_v1.0.txt": ""})
    if sign == "image":
        write(tmp_path, {"images/HEPG2-01/Plate1/B03_s1.png": ""})
    catalog = Catalog.read(tmp_path)
    assert (catalog.layout.name, catalog.layout.channels, catalog.layout.files_per_site) == ("wilds", 3, 1)
    assert catalog.categories["split"] == ["train", "val", "test", "id_test"]
    assert catalog.table["split"].tolist() == ["train", "id_test", "val" if sign == "val" else "test"]


def test_images_outweigh_the_split(tmp_path):
    """Six-channel images beside a validation row are read as six-channel images."""
    files = {"metadata.csv": METADATA + metadata_row("val"), "images/HEPG2-01/Plate1/B03_s1_w1.png": ""}
    catalog = Catalog.read(write(tmp_path, files))
    assert catalog.layout.name == "rxrx.ai"
    assert catalog.table["split"].tolist() == ["val"]


def test_metadata_keeps_its_order_and_derives_what_it_lacks(tmp_path):
    """Rows stay in the file's order; well type and name follow from the label where the columns are missing."""
    text = "experiment,plate,well,site,cell_type,dataset,sirna_id\n"
    text += "RPE-01,2,C03,1,RPE,train,1138\nRPE-01,1,C03,1,RPE,train,1108\nRPE-01,1,B03,1,RPE,train,3\n"
    table = Catalog.read(write(tmp_path, {"metadata.csv": text})).table
    assert table["well_id"].tolist() == ["RPE-01_2_C03", "RPE-01_1_C03", "RPE-01_1_B03"]
    assert table["well_type"].tolist() == ["negative_control", "positive_control", "treatment"]
    assert table["sirna"].tolist() == ["1138", "1108", "3"]
