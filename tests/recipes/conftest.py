"""What the tests of the recipes share: the generated data set, and one thread."""

import pytest
import torch

from rxrx_fast.recipes.classify import Settings


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of several test processes that wait for one another cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def settings(rxrx_root, stats, tmp_path):
    """A run of seconds: half a resolution, two epochs, no test-time augmentation."""
    return Settings(str(rxrx_root), str(tmp_path / "run"), size=32, epochs=2, batch_size=8, tta=1, quiet=True)
