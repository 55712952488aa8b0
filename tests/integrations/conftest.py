"""Other people's packages, as they are installed from PyPI beside a CPU build of torch."""

import importlib.util

import pytest


@pytest.fixture(autouse=True, scope="session")
def torchvision_imports():
    """Lightning and Accelerate import torchvision by themselves: let its import succeed first, as the recipes do."""
    if importlib.util.find_spec("torchvision"):
        from rxrx_fast.recipes import backbones

        backbones.library("torchvision")
