"""The README's diff, run: a script for torch's DataLoader before and after."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def versions():
    """The script before and after the diff in the README."""
    (block,) = re.findall(r"```diff\n(.*?)```", README.read_text(), flags=re.DOTALL)
    lines = block.splitlines()
    return ["\n".join(line[1:] for line in lines if line[:1] in (" ", sign, "")) for sign in "-+"]


@pytest.fixture
def namespaces(rxrx_root, monkeypatch):
    """What each version leaves behind, run on generated data with a fixed torch seed."""
    import torch

    found = []
    for script in versions():
        assert '"data/rxrx1"' in script
        torch.manual_seed(0)
        namespace = {"__name__": "__main__"}
        exec(compile(script.replace('"data/rxrx1"', repr(str(rxrx_root))), "README.md", "exec"), namespace)
        found.append(namespace)
    return found


def test_only_the_import_changes():
    """The diff is one line out, one line in, and both are imports."""
    before, after = (set(script.splitlines()) for script in versions())
    (out,), (into,) = before - after, after - before
    assert out == "from torch.utils.data import DataLoader"
    assert into == "from rxrx_fast import DataLoader"


def test_both_versions_train(namespaces):
    """Before and after, the script runs to its end and sees every training site in every epoch."""
    before, after = namespaces
    assert before["seen"] == after["seen"] > 0
    assert before["loader"].__class__.__module__.startswith("torch.")
    assert after["loader"].__class__.__module__ == "rxrx_fast.loader"
    assert before["loss"].isfinite()
    assert after["loss"].isfinite()
