"""The paths of files."""

from __future__ import annotations

import numpy as np
import pytest

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import UsageError


def test_files_are_absolute_and_in_order(kaggle, monkeypatch):
    """Paths start at the absolute root, also if the root was given relative, and follow rows and channels."""
    monkeypatch.chdir(kaggle.parent)
    catalog = Catalog.read(kaggle.name)
    assert catalog.root == str(kaggle)
    plate = kaggle / "train" / "RPE-01" / "Plate1"
    assert catalog.files([2, 0], channels=(6, 1)) == [
        (str(plate / "B03_s1_w6.png"), str(plate / "B03_s1_w1.png")),
        (str(plate / "B02_s1_w6.png"), str(plate / "B02_s1_w1.png")),
    ]
    assert [len(files) for files in catalog.files(np.array([0, 11]))] == [6, 6]
    assert catalog.split("test").files([1])[0][0] == str(kaggle / "test/RPE-08/Plate1/B03_s2_w1.png")


def test_files_of_every_site_differ(kaggle):
    """No file belongs to two sites, and each is what the template says."""
    catalog = Catalog.read(kaggle)
    files = [file for files in catalog.files(range(len(catalog))) for file in files]
    assert len(set(files)) == 12 * 6
    rows = catalog.table.to_dict("records")
    assert files == [str(kaggle / catalog.layout.path.format(**row, channel=c)) for row in rows for c in range(1, 7)]


@pytest.mark.parametrize("channels", [(), (0,), (7,), (1.5,), (True,), ("1",)])
def test_channels_out_of_range(kaggle, channels):
    """A channel that does not exist raises UsageError."""
    with pytest.raises(UsageError, match="choose from 1 to 6"):
        Catalog.read(kaggle).files([0], channels=channels)
