"""The examples in docstrings run, and everything that users type has one."""

import doctest
import inspect
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import rxrx_fast as rx

#: What users type; a name with a dot is a member.
TYPED = [
    "Catalog",
    "Catalog.read",
    "Catalog.from_frame",
    "Catalog.split",
    "Catalog.where",
    "Catalog.summary",
    "Catalog.available",
    "Catalog.group_keys",
    "Catalog.files",
    "PlateStats.fit",
    "PlateStats.load",
    "PlateStats.save",
    "PlateStats.frame",
    "Dataset",
    "Dataset.set_epoch",
    "DataLoader",
    "DataLoader.set_epoch",
    "DataLoader.state_dict",
    "DataLoader.load_state_dict",
    "DataLoader.report",
    "DataLoader.scalars",
    "DataLoader.progress",
    "Normalize",
    "Policy",
]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def members() -> dict[str, object]:
    """Every public class and function of ``rx``, and the public members of the classes, by name."""
    found = {}
    for name in sorted(set(rx.__all__) - {"__version__"}):
        value = getattr(rx, name)
        found[name] = value
        if inspect.isclass(value) and not issubclass(value, BaseException):
            for member, attribute in inspect.getmembers(value):
                defined = getattr(attribute, "__module__", None) or ""
                if not member.startswith("_") and callable(attribute) and defined.startswith("rxrx_fast"):
                    found[f"{name}.{member}"] = attribute
    return found


MEMBERS = members()


def examples(name: str) -> list[doctest.Example]:
    """The ``>>>`` lines in the docstring of a public name."""
    return doctest.DocTestParser().get_examples(inspect.getdoc(MEMBERS[name]) or "")


@pytest.mark.parametrize("name", TYPED)
def test_what_users_type_has_an_example(name):
    """A name that users type shows at least one line that can be pasted, and one that shows a result."""
    assert any(example.want for example in examples(name)), f"rx.{name} has no example with a result in its docstring"


@pytest.mark.parametrize("name", [name for name in MEMBERS if examples(name)])
def test_examples_give_what_they_show(name, rxrx_root, tmp_path, monkeypatch):
    """Every example prints what its docstring says, in an empty folder, with ``root`` a small generated data set."""
    # What an example writes beside the data must not be seen by other tests.
    root = tmp_path / "data"
    shutil.copytree(rxrx_root, root)
    monkeypatch.chdir(tmp_path)
    names = {"rx": rx, "root": root, "pd": pd, "np": np, "torch": torch}
    test = doctest.DocTest(examples(name), names, f"rx.{name}", None, None, None)
    told: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=told.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(told)
