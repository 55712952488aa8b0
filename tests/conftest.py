"""Shared fixtures: a small generated data set, the real sample where it is present, and who needs a GPU."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from loading import REAL

# Their assertions are explained as those of test files are.
pytest.register_assert_rewrite("conformance")

# A busy machine is no fault of a test: only wrong answers fail.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

pytest_plugins = ["long_tests"]


def pytest_collection_modifyitems(items):
    """Skip, with the reason, what this machine can't run."""
    no_gpu = None if torch.cuda.is_available() else "no CUDA device on this machine"
    no_data = None if (REAL / "rxrx1-kaggle-2023" / "train").is_dir() else f"no real RxRx1 files in {REAL}"
    for item in items:
        # Not `in item.keywords`: those hold the names of the folders above as well.
        if item.get_closest_marker("gpu") and no_gpu:
            item.add_marker(pytest.mark.skip(reason=no_gpu))
        if item.get_closest_marker("real") and no_data:
            item.add_marker(pytest.mark.skip(reason=no_data))


_START = time.monotonic()


def pytest_runtest_setup(item):
    """Begin no test once RXRX_FAST_TEST_SECONDS have passed, where that is set: for machines lent for a time."""
    limit = float(os.environ.get("RXRX_FAST_TEST_SECONDS", "inf"))
    if time.monotonic() - _START > limit:
        pytest.skip(f"the time for all tests, {limit:g} s, was over")


@pytest.fixture(scope="session")
def rxrx_root(tmp_path_factory) -> Path:
    """A generated data set in the rxrx.ai layout: 2 experiments x 2 plates x 6 wells x 2 sites at 64 px.

    Shared by the whole run: a test that changes files copies it first.
    """
    from rxrx_fast.synth import writer as synthetic

    root = tmp_path_factory.mktemp("rxrx") / "data"
    synthetic.generate(root, layout="rxrx", experiments=2, plates=2, wells=6, sites=2, size=64, workers=1, quiet=True)
    return root


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The real Kaggle 2023 sample."""
    return REAL / "rxrx1-kaggle-2023"


@pytest.fixture(scope="session")
def stats(rxrx_root):
    """Statistics of the generated data set."""
    import rxrx_fast as rx

    return rx.PlateStats.fit(rx.Catalog.read(rxrx_root), quiet=True)


@pytest.fixture
def dataset(rxrx_root, stats):
    """The generated data set, normalised by plate and augmented in every way."""
    from loading import POLICY

    import rxrx_fast as rx

    return rx.Dataset(rxrx_root, stats=stats, augment=POLICY)


@pytest.fixture
def copy(rxrx_root, tmp_path):
    """The generated data set's root, to be damaged."""
    root = tmp_path / "copy"
    shutil.copytree(rxrx_root, root)
    return root


@pytest.fixture(params=["rxrx_kernels", "DALI"])
def decoder(request, monkeypatch):
    """Who decodes PNG: this project's kernels, or DALI, as for every other format."""
    from rxrx_fast.stores.files import FileStore

    if request.param == "DALI":
        monkeypatch.setattr(FileStore, "decoders", ("dali", "host"))
    return request.param
