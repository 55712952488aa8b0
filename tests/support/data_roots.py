"""Roots of data sets without pixels, for tests of the catalog: CSV files, and empty files in place of images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import DataError

#: Header of ``metadata.csv``.
METADATA = "site_id,well_id,cell_type,dataset,experiment,plate,well,site,well_type,sirna,sirna_id\n"


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below a folder, and make the folders they need."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def touch(root: Path, names: list[str]) -> None:
    """Make empty files, and the folders they need."""
    write(root, dict.fromkeys(names, ""))


def images(folder: str, well: str, site: int, channels: str = "123456") -> list[str]:
    """Names of a site's images."""
    return [f"{folder}/{well}_s{site}_w{channel}.png" for channel in channels]


def metadata_row(dataset: str = "train", site: int = 1, well: str = "B03", experiment: str = "HEPG2-01") -> str:
    """One row of ``metadata.csv``: treatment 7 on plate 1."""
    well_id = f"{experiment}_1_{well}"
    return f"{well_id}_{site},{well_id},HEPG2,{dataset},{experiment},1,{well},{site},treatment,s7,7\n"


def kaggle_root(root: Path, train: str, test: str = "HEPG2-08_1_B03,HEPG2-08,1,B03\n", controls: str = "") -> Path:
    """A Kaggle root: rows of ``train.csv`` and ``test.csv``, and of ``train_controls.csv`` where given."""
    files: dict[str, str | bytes] = {
        "train.csv": "id_code,experiment,plate,well,sirna\n" + train,
        "test.csv": "id_code,experiment,plate,well\n" + test,
    }
    if controls:
        files["train_controls.csv"] = "id_code,experiment,plate,well,sirna,well_type\n" + controls
    return write(root, files)


def screen(**columns: object) -> pd.DataFrame:
    """Two sites of one well of another screen; columns may be replaced, added, or left out with None."""
    given = {"experiment": ["A-1", "A-1"], "plate": [1, 1], "well": ["A01", "A01"], "site": [1, 2]} | columns
    return pd.DataFrame({name: values for name, values in given.items() if values is not None})


def message(root: Path, error: type[Exception] = DataError) -> str:
    """The one line with which reading a root fails."""
    with pytest.raises(error) as caught:
        Catalog.read(root)
    text = str(caught.value)
    assert "\n" not in text
    return text
