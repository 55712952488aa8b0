"""A small Kaggle root."""

from pathlib import Path

import pytest
from data_roots import kaggle_root


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """A Kaggle root without images: two train plates and one test plate, with 3, 2 and 1 wells."""
    return kaggle_root(
        tmp_path,
        "RPE-01_1_B03,RPE-01,1,B03,5\nRPE-01_1_B04,RPE-01,1,B04,6\nU2OS-01_2_B03,U2OS-01,2,B03,9\n",
        "RPE-08_1_B03,RPE-08,1,B03\n",
        "RPE-01_1_B02,RPE-01,1,B02,1138,negative_control\nU2OS-01_2_C03,U2OS-01,2,C03,1110,positive_control\n",
    )
