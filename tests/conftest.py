"""Shared fixtures: a small generated data set, the real sample where it is present, and who needs a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items):
    """Skip, with the reason, what this machine can't run."""
    no_gpu = None if torch.cuda.is_available() else "no CUDA device on this machine"
    no_data = None if (REAL / "rxrx1-kaggle-2023" / "train").is_dir() else f"no real RxRx1 files in {REAL}"
    for item in items:
        if "gpu" in item.keywords and no_gpu:
            item.add_marker(pytest.mark.skip(reason=no_gpu))
        if "real" in item.keywords and no_data:
            item.add_marker(pytest.mark.skip(reason=no_data))


@pytest.fixture(scope="session")
def rxrx_root(tmp_path_factory) -> Path:
    """A generated data set in the rxrx.ai layout: 2 experiments x 2 plates x 6 wells x 2 sites at 64 px.

    Shared by the whole run: a test that changes files copies it first.
    """
    from rxrx_fast import synthetic

    root = tmp_path_factory.mktemp("rxrx") / "data"
    synthetic.generate(root, layout="rxrx", experiments=2, plates=2, wells=6, sites=2, size=64, workers=1, quiet=True)
    return root


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The real Kaggle 2023 sample."""
    return REAL / "rxrx1-kaggle-2023"
