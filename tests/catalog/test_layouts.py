"""Layouts: what is recognised, what is refused, and what a label means."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxrx_fast.catalog import Catalog
from rxrx_fast.catalog.layouts.kaggle_2023 import NAMES as NAMES_2023
from rxrx_fast.catalog.recognition import read_root
from rxrx_fast.catalog.table import UNTREATED
from rxrx_fast.errors import DataError, UsageError

METADATA = "site_id,well_id,cell_type,dataset,experiment,plate,well,site,well_type,sirna,sirna_id\n"
CONTROLS = [
    52, 144, 201, 237, 256, 272, 323, 374, 410, 542, 577, 618, 650, 672, 682,
    702, 714, 756, 766, 810, 822, 825, 842, 852, 864, 888, 967, 1011, 1037, 1056,
]  # fmt: skip


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below a folder, making folders on the way."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def metadata_row(dataset: str = "train", site: int = 1, well: str = "B03", experiment: str = "HEPG2-01") -> str:
    """One row of ``metadata.csv``: treatment 7 on plate 1."""
    well_id = f"{experiment}_1_{well}"
    return f"{well_id}_{site},{well_id},HEPG2,{dataset},{experiment},1,{well},{site},treatment,s7,7\n"


def kaggle(root: Path, train: str, test: str = "HEPG2-08_1_B03,HEPG2-08,1,B03\n", controls: str = "") -> Path:
    """A Kaggle root: rows of ``train.csv`` and ``test.csv``, and of ``train_controls.csv`` where given."""
    files = {
        "train.csv": "id_code,experiment,plate,well,sirna\n" + train,
        "test.csv": "id_code,experiment,plate,well\n" + test,
    }
    if controls:
        files["train_controls.csv"] = "id_code,experiment,plate,well,sirna,well_type\n" + controls
    return write(root, files)


def message(root: Path, error: type[Exception] = DataError) -> str:
    """The one line with which reading a root fails."""
    with pytest.raises(error) as caught:
        Catalog.read(root)
    text = str(caught.value)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------------------------- recognition


def test_kaggle_2019_by_its_numbers(tmp_path):
    """A siRNA that is a number means the 2019 edition, and the number is label and name."""
    layout, records = read_root(str(kaggle(tmp_path, "HEPG2-01_1_B03,HEPG2-01,1,B03,513\n")))
    assert layout.name == "kaggle-2019"
    assert records.rows.frame["sirna_id"].tolist() == [513, 513, -1, -1]
    assert records.rows.frame["sirna"].tolist() == ["513", "513", "", ""]


def test_kaggle_2023_by_its_names(tmp_path):
    """A siRNA that is a name means the 2023 edition."""
    root = kaggle(tmp_path, "x,HEPG2-01,1,B03,sirna_250\n", controls="x,HEPG2-01,1,B02,UNTREATED,negative_control\n")
    table = Catalog.read(root).split("train").table
    assert Catalog.read(root).layout.name == "kaggle-2023"
    assert table["sirna"].tolist() == ["UNTREATED"] * 2 + ["sirna_250"] * 2
    assert table["well_type"].tolist() == ["negative_control"] * 2 + ["treatment"] * 2
    assert table["sirna_id"].tolist() == [1138, 1138, 246, 246]  # four controls lie below 250


def test_test_csv_alone_is_2019(tmp_path):
    """Nothing tells the edition of ``test.csv`` alone, and the missing files are noted."""
    layout, records = read_root(str(write(tmp_path, {"test.csv": "experiment,plate,well\nRPE-08,1,B03\n"})))
    assert layout.name == "kaggle-2019"
    assert sum("is missing" in note for note in records.notes) == 3


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


def test_kaggle_is_sorted_by_number_of_plate(tmp_path):
    """Wells come by split, experiment, plate as a number, and well, whatever the files' order."""
    train = "a,RPE-01,10,B03,1\nb,RPE-01,9,C03,2\nc,RPE-01,9,B03,3\n"
    table = Catalog.read(kaggle(tmp_path, train)).table
    wells = ["RPE-01_9_B03", "RPE-01_9_C03", "RPE-01_10_B03", "HEPG2-08_1_B03"]
    assert table["well_id"].drop_duplicates().tolist() == wells


# -------------------------------------------------------------------------------------------------------- sites


def test_two_sites_a_well_are_assumed_and_said(tmp_path):
    """Without ``pixel_stats.csv`` a Kaggle well has sites 1 and 2, and a note says that this is an assumption."""
    catalog = Catalog.read(kaggle(tmp_path, "a,RPE-01,1,B03,1\n"))
    assert catalog.split("train").table["site"].tolist() == [1, 2]
    assert "two sites a well are assumed" in catalog.summary()


def test_pixel_stats_tells_the_sites(tmp_path):
    """The pairs of ``pixel_stats.csv`` are the sites, and a well that it does not name is noted."""
    root = kaggle(tmp_path, "RPE-01_1_B03,RPE-01,1,B03,1\nRPE-01_1_B04,RPE-01,1,B04,2\n")
    stats = "id_code,experiment,plate,well,site,channel,mean\n"
    stats += "".join(f"RPE-01_1_B03,RPE-01,1,B03,{site},{channel},1.5\n" for site in (1, 3) for channel in (1, 2))
    write(root, {"pixel_stats.csv": stats})
    catalog = Catalog.read(root)
    assert catalog.table["site_id"].tolist() == ["RPE-01_1_B03_1", "RPE-01_1_B03_3"]
    assert "wells of the CSV files that have no site in pixel_stats.csv: 2" in catalog.summary()


def test_pixel_stats_of_another_data_set(tmp_path):
    """A ``pixel_stats.csv`` that knows none of the wells is refused and not taken for an empty data set."""
    root = write(kaggle(tmp_path, "a,RPE-01,1,B03,1\n"), {"pixel_stats.csv": "id_code,site\nX_1_B02,1\n"})
    assert "pixel_stats.csv: names no well" in message(root)


# ------------------------------------------------------------------------------------------------------- labels


def test_labels_of_2023_follow_the_rule():
    """Treatment N becomes N less the controls below it, the k-th control 1108 + k, and UNTREATED 1138."""
    expected = {f"sirna_{n}": n - sum(c < n for c in CONTROLS) for n in range(1138) if n not in CONTROLS}
    expected |= {f"sirna_{n}": 1108 + k for k, n in enumerate(CONTROLS)} | {"UNTREATED": 1138}
    assert {name: label for label, name in enumerate(NAMES_2023)} == expected


def test_labels_of_2023_are_a_bijection():
    """1139 names have 1139 labels."""
    assert len(NAMES_2023) == len(set(NAMES_2023)) == UNTREATED + 1


@given(st.lists(st.sampled_from(NAMES_2023[:1108]), min_size=1, max_size=8, unique=True))
def test_labels_do_not_depend_on_the_rows_present(tmp_path_factory, names):
    """Any few treatments have the labels that they have in the whole data set."""
    train = "".join(f"x,RPE-01,1,B{n:02d},{name}\n" for n, name in enumerate(names))
    table = Catalog.read(kaggle(tmp_path_factory.mktemp("root"), train)).split("train").table
    assert [NAMES_2023[label] for label in table["sirna_id"]] == table["sirna"].tolist()


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
    text = message(kaggle(tmp_path, train, controls=controls))
    assert where in text
    assert what in text


# ------------------------------------------------------------------------------------------------- faulty files


@pytest.mark.parametrize("column", ["experiment", "plate", "well"])
@pytest.mark.parametrize("value", ["../x", "/etc/passwd", "a/b", "..", ".", "a\\b", "C:x", ""])
def test_values_that_would_leave_the_root(tmp_path, column, value):
    """A value that is no plain part of a path is refused, with its line."""
    cells = {"experiment": "RPE-01", "plate": "1", "well": "B04"} | {column: value}
    text = message(kaggle(tmp_path, f"a,RPE-01,1,B03,1\nb,{','.join(cells.values())},2\n"))
    assert f"train.csv line 3: {column} {value!r}" in text


@given(st.text(min_size=1, max_size=12) | st.text(alphabet='./\\\0:aB1 \n"~', min_size=1, max_size=6))
def test_no_accepted_value_leaves_the_root(tmp_path_factory, value):
    """Whatever the well is called, the catalog refuses it or its files lie below the root."""
    root = tmp_path_factory.mktemp("root").resolve()
    quoted = '"' + value.replace('"', '""') + '"'
    text = METADATA + metadata_row() + f"s,w,RPE,train,RPE-01,1,{quoted},1,treatment,s7,7\n"
    (root / "metadata.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        catalog = Catalog.read(root)
    except DataError as error:
        assert "line" in str(error) or "not a CSV file" in str(error)
        return
    folder = root / "images" / "RPE-01" / "Plate1"
    for file in catalog.files([1])[0]:
        assert Path(file).parent == folder
        assert "\0" not in file


def test_nul_is_refused_with_its_line(tmp_path):
    """A NUL byte, at which a C library would end a path, is refused with its line."""
    root = write(tmp_path, {"metadata.csv": METADATA + metadata_row() + metadata_row(well="B04\0x")})
    assert "metadata.csv line 3" in message(root)


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    """Blank lines are no rows, but they count."""
    root = kaggle(tmp_path, "a,RPE-01,1,B03,1\n\n\nb,RPE-01,1,../x,2\n")
    assert "train.csv line 5" in message(root)


def test_duplicate_site_names_both_lines(tmp_path):
    """A site given twice is refused with both places."""
    rows = metadata_row() + metadata_row(site=2) + metadata_row()
    text = message(write(tmp_path, {"metadata.csv": METADATA + rows}))
    assert "metadata.csv line 4: site HEPG2-01_1_B03_1 is already at" in text
    assert "metadata.csv line 2" in text


def test_duplicate_well_across_files(tmp_path):
    """A well that two Kaggle files list is refused with both files."""
    root = kaggle(tmp_path, "a,RPE-01,1,B02,1\n", controls="a,RPE-01,1,B02,1138,negative_control\n")
    assert re.search(r"train_controls\.csv line 2: site RPE-01_1_B02_1 .*train\.csv line 2", message(root))


def test_missing_column_names_the_file_and_its_columns(tmp_path):
    """The message says which column is missing, of which file, and which columns there are."""
    text = message(write(tmp_path, {"train.csv": "id_code,experiment,well,sirna\na,RPE-01,B03,1\n"}))
    assert "train.csv: column plate is missing; it has id_code, experiment, well, sirna" in text


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (METADATA.encode(), "a header without rows"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "NUL byte"),
        (METADATA.encode() + b"\xff\xfe,1\n", "not a CSV file"),
        (METADATA.encode() + metadata_row().encode() + b"1," * 30 + b"\n", "not a CSV file"),
        (METADATA.encode() + (metadata_row().strip() + ",surplus\n").encode(), "not a CSV file"),
        (METADATA.encode() + b'"never closed\n', "not a CSV file"),
    ],
)
def test_unreadable_csv_is_one_line(tmp_path, content, what):
    """Whatever is wrong with a CSV file, the message is one line that names it."""
    text = message(write(tmp_path, {"metadata.csv": content}))
    assert "metadata.csv" in text
    assert what in text


def test_a_byte_order_mark_is_not_part_of_a_name(tmp_path):
    """A CSV file as a spreadsheet saves it, with a byte order mark and CRLF, reads the same."""
    text = "\ufeff" + (METADATA + metadata_row()).replace("\n", "\r\n").replace("site_id,", "", 1).replace(
        "HEPG2-01_1_B03_1,", "", 1
    )
    table = Catalog.read(write(tmp_path, {"metadata.csv": text})).table
    assert table["site_id"].tolist() == ["HEPG2-01_1_B03_1"]


# -------------------------------------------------------------------------------------------------- faulty roots


def test_root_is_missing(tmp_path):
    """A folder that does not exist is named."""
    assert message(tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'}: no such folder")


def test_root_is_a_file(tmp_path):
    """A file in place of a folder is refused, with the folder that was meant."""
    root = write(tmp_path, {"metadata.csv": METADATA + metadata_row()})
    text = message(root / "metadata.csv")
    assert "a file, not a folder" in text
    assert text.endswith(f"did you mean {root}?")


def test_root_is_empty(tmp_path):
    """An empty folder is called empty."""
    assert "the folder is empty" in message(tmp_path)


def test_root_is_something_else(tmp_path):
    """The message says what was looked for, what was found, and what else there is."""
    text = message(write(tmp_path, {"cat.jpg": "", "dog.jpg": ""}))
    for part in ("metadata.csv", "train.csv or test.csv", "found cat.jpg, dog.jpg", "Catalog.from_frame"):
        assert part in text


@pytest.mark.parametrize("below", ["train", "train/RPE-01", ".."])
def test_near_misses_get_a_hint(tmp_path, below):
    """A folder in the data set, or the one above it, is refused with the right one."""
    root = kaggle(tmp_path / "data" / "rxrx1", "a,RPE-01,1,B03,1\n")
    write(root, {"train/RPE-01/Plate1/B03_s1_w1.png": ""})
    assert message((root / below).resolve()).endswith(f"did you mean {root}?")


@pytest.mark.parametrize("root", ["s3://bucket/rxrx1", "gs://bucket", "", "a\0b"])
def test_roots_that_are_no_local_path(root):
    """A URL or an impossible path is a mistake in the call, told in one line."""
    with pytest.raises(UsageError, match="local folder|path of a folder"):
        Catalog.read(root)


def test_rows_know_their_place_after_sorting(tmp_path):
    """A row that was sorted elsewhere still names the line it came from."""
    layout, records = read_root(str(kaggle(tmp_path, "a,RPE-02,1,B03,1\nb,RPE-01,1,B03,2\n")))
    assert records.rows.place(0).endswith("train.csv line 3")
    assert np.array_equal(records.rows.line, [3, 3, 2, 2, 2, 2])
