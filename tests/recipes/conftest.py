"""What the tests of the recipes share: the generated data set, and one thread."""

import pytest
import torch

from rxrx_fast.recipes.classify import Settings
from rxrx_fast.synth import writer as synthetic


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of several test processes that wait for one another cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def screen(tmp_path_factory):
    """A generated screen of one cell type: 5 experiments, of which 2 are test ones, x 1 plate x 16 wells x 2 sites."""
    names = ["HUVEC-01", "HUVEC-02", "HUVEC-03", "HUVEC-17", "HUVEC-18"]
    root = tmp_path_factory.mktemp("screen") / "data"
    return synthetic.generate(root, experiments=names, plates=1, wells=16, size=32, workers=1, quiet=True)


@pytest.fixture
def settings(rxrx_root, stats, tmp_path):
    """A run of seconds: half a resolution, two epochs, no test-time augmentation."""
    return Settings(str(rxrx_root), str(tmp_path / "run"), size=32, epochs=2, batch_size=8, tta=1, quiet=True)
