"""The layout of both packages: small files, few of them at the top, and imports that lean on nothing.

Which room may import which is written down once, in pyproject.toml, and checked by import-linter (``make lint``).
"""

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import rxrx_kernels

import rxrx_fast

PACKAGES = [Path(package.__file__).parent for package in (rxrx_fast, rxrx_kernels)]
FILES = [path for package in PACKAGES for path in package.rglob("*.py")]


def test_files_can_be_read_in_a_sitting():
    """No file is longer than 400 lines, and the median is below 150."""
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    assert len(lines) > 100
    assert not {path.name: count for path, count in lines.items() if count > 400}
    assert statistics.median(lines.values()) < 150


@pytest.mark.parametrize(("package", "most"), [(PACKAGES[0], 10), (PACKAGES[1], 8)], ids=["rxrx_fast", "kernels"])
def test_few_modules_lie_at_the_top(package, most):
    """A newcomer sees rooms, not modules."""
    assert 1 <= len(list(package.glob("*.py"))) <= most


def test_versions_of_the_hooks_are_the_pinned_ones():
    """A commit's hook and ``make lint`` run the same release of ruff."""
    root = Path(__file__).resolve().parents[1]
    hooks = re.findall(r"ruff==([\d.]+)", (root / ".pre-commit-config.yaml").read_text())
    pinned = re.findall(r"^ruff==([\d.]+)", (root / "constraints.txt").read_text(), re.MULTILINE)
    assert len(pinned) == 1
    assert hooks == pinned * 2


def unannotated(path: Path) -> list[str]:
    """Public functions and methods of a file with an argument that has no annotation, as "file:line name(argument)"."""
    found = []

    def visit(body: list[ast.stmt], public: bool) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                visit(node.body, public and not node.name.startswith("_"))
            elif isinstance(node, ast.FunctionDef) and public and (node.name == "__init__" or node.name[0] != "_"):
                args = node.args
                every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
                bare = [a.arg for a in every if a and a.annotation is None and a.arg not in ("self", "cls")]
                found.extend(f"{path.name}:{node.lineno} {node.name}({name})" for name in bare)

    visit(ast.parse(path.read_text()).body, True)
    return found


def test_public_arguments_are_annotated():
    """Every argument of a public function or method has a type."""
    assert unannotated(FILES[0]) == []
    assert not [line for path in FILES for line in unannotated(path)]


def test_both_packages_import_from_any_directory(tmp_path):
    """Imports do not lean on the current directory, and the face is the documented names."""
    code = (
        "import rxrx_fast, rxrx_kernels.orient.site\n"
        "print(' '.join(name for name in rxrx_fast.__all__ if hasattr(rxrx_fast, name)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert {"Catalog", "DataLoader", "Dataset", "Normalize", "PlateStats", "Policy"} <= set(run.stdout.split())


def test_the_face_is_light():
    """Import rxrx_fast alone loads neither torch nor DALI nor pandas."""
    code = "import sys, rxrx_fast; print([m for m in ('torch', 'nvidia.dali', 'pandas', 'numba') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "[]", run.stderr
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = rxrx_fast.Nothing
