"""The tables of the documentation: each row names a test, and the test is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLES = sorted((ROOT / "docs").glob("*.md"))


def names(path):
    """Top-level functions of a test file."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", TABLES, ids=lambda page: page.name)
def test_the_tests_that_a_page_names_are_there(page):
    """A row without its test is a promise without proof."""
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
        assert name in names(ROOT / file), f"{page.name} names {file}::{name}"


@pytest.mark.parametrize("page", ["determinism.md", "faults.md"])
def test_every_row_names_a_test(page):
    """The last cell of each row of these tables is a test."""
    rows = [line for line in (ROOT / "docs" / page).read_text().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.endswith("| tested by |")]
    assert len(rows) > 20
    for row in rows:
        assert re.fullmatch(r"\| .* \| `tests/[\w/]+\.py::\w+` \|", row), row
