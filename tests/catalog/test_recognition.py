"""Roots that are not recognised: the message says why and what was probably meant."""

from __future__ import annotations

import pytest
from data_roots import METADATA, kaggle_root, message, metadata_row, write

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import UsageError


def test_root_is_missing(tmp_path):
    """The message about a missing folder names it."""
    assert message(tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'}: no such folder")


def test_root_is_a_file(tmp_path):
    """A file in place of a folder is refused, with the folder that was meant."""
    root = write(tmp_path, {"metadata.csv": METADATA + metadata_row()})
    text = message(root / "metadata.csv")
    assert "a file, not a folder" in text
    assert text.endswith(f"did you mean {root}?")


def test_root_is_empty(tmp_path):
    """The message about an empty folder says that it is empty."""
    assert "the folder is empty" in message(tmp_path)


def test_root_is_something_else(tmp_path):
    """The message says what was looked for, what was found, and what else there is."""
    text = message(write(tmp_path, {"cat.jpg": "", "dog.jpg": ""}))
    for part in ("metadata.csv", "train.csv or test.csv", "found cat.jpg, dog.jpg", "Catalog.from_frame"):
        assert part in text


@pytest.mark.parametrize("below", ["train", "train/RPE-01", ".."])
def test_near_misses_get_a_hint(tmp_path, below):
    """A folder in the data set, or the one above it, is refused with the right one."""
    root = kaggle_root(tmp_path / "data" / "rxrx1", "a,RPE-01,1,B03,1\n")
    write(root, {"train/RPE-01/Plate1/B03_s1_w1.png": ""})
    assert message((root / below).resolve()).endswith(f"did you mean {root}?")


@pytest.mark.parametrize("root", ["s3://bucket/rxrx1", "gs://bucket", "", "a\0b"])
def test_roots_that_are_no_local_path(root):
    """A URL or an impossible path raises UsageError, in one line."""
    with pytest.raises(UsageError, match=r"local folder|path of a folder"):
        Catalog.read(root)
