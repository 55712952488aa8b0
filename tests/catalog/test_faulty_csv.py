"""Faulty CSV files: each is refused in one line that names the file and the row."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_roots import METADATA, kaggle_root, message, metadata_row, write
from hypothesis import given
from hypothesis import strategies as st

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import DataError


@pytest.mark.parametrize("column", ["experiment", "plate", "well"])
@pytest.mark.parametrize("value", ["../x", "/etc/passwd", "a/b", "..", ".", "a\\b", "C:x", ""])
def test_values_that_would_leave_the_root(tmp_path, column, value):
    """A value that is not a plain part of a path is refused, with its line."""
    cells = {"experiment": "RPE-01", "plate": "1", "well": "B04"} | {column: value}
    text = message(kaggle_root(tmp_path, f"a,RPE-01,1,B03,1\nb,{','.join(cells.values())},2\n"))
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
        told = str(error)
    else:
        told = None
    if told is not None:
        assert "line" in told or "not a CSV file" in told
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
    """Blank lines are not rows, but they count as lines."""
    root = kaggle_root(tmp_path, "a,RPE-01,1,B03,1\n\n\nb,RPE-01,1,../x,2\n")
    assert "train.csv line 5" in message(root)


def test_duplicate_site_names_both_lines(tmp_path):
    """A site given twice is refused with both places."""
    rows = metadata_row() + metadata_row(site=2) + metadata_row()
    text = message(write(tmp_path, {"metadata.csv": METADATA + rows}))
    assert "metadata.csv line 4: site HEPG2-01_1_B03_1 is already at" in text
    assert "metadata.csv line 2" in text


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
