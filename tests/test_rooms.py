"""The house rules of the code: which room may know which, and that both packages import from anywhere."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rxrx_fast

PACKAGE = Path(rxrx_fast.__file__).parent
# From the bottom up. A module may import modules of lower numbers, and its neighbours of the same room.
FLOORS = {
    "errors": 0,
    "keyed": 0,
    "progress": 0,
    "meter": 0,
    "threads": 0,
    "randomness": 0,
    "buffers": 0,
    "topology": 1,
    "ahead": 1,
    "catalog": 4,
    "order": 5,
    "samplers": 6,
    "faults": 6,
    "resume": 6,
    "plan": 7,
    "draws": 4,
    "policy": 5,
    "normalize": 5,
    "geometry": 4,
    "illumination": 4,
    "mixing": 6,
    "views": 6,
    "stores": 5,
    "gpu_memory": 1,
    "gpu_decode": 4,
    "decode_choice": 5,
    "pipeline": 6,
    "stats": 7,
    "device": 7,
    "dataset": 8,
    "producer": 9,
    "epoch": 10,
    "loader": 11,
    "phenotypes": 1,
    "batch_effects": 1,
    "phantom_kernels": 1,
    "phantom_cells": 2,
    "phantom": 3,
    "synthetic_plan": 2,
    "synthetic": 4,
    "sheet": 1,
    "show": 12,
    "bench": 13,
    "doctor": 14,
    "demo": 15,
    "recipes": 15,
    "train_cli": 16,
    "cli": 17,
}


def imported(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_kernels_know_nothing_of_the_loader():
    """rxrx_kernels imports nothing of rxrx_fast."""
    import rxrx_kernels

    files = list(Path(rxrx_kernels.__file__).parent.glob("*.py"))
    assert len(files) >= 4
    for path in files:
        assert not {name for name in imported(path) if name.startswith("rxrx_fast")}, path.name


def test_every_room_has_a_floor():
    """A new module takes its place in the order here."""
    rooms = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__"}
    assert rooms == set(FLOORS)


@pytest.mark.parametrize("room", FLOORS)
def test_imports_run_one_way(room):
    """A room imports only rooms below it."""
    files = (PACKAGE / room).rglob("*.py") if (PACKAGE / room).is_dir() else [PACKAGE / f"{room}.py"]
    for path in files:
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != "rxrx_fast" or len(parts) == 1 or parts[1] == room:
                continue
            assert parts[1] in FLOORS, f"{path.name} imports {name}, which stands above every room"
            assert FLOORS[parts[1]] < FLOORS[room], f"{path.name} imports {name}"


def test_both_packages_import_from_any_directory(tmp_path):
    """Imports do not lean on the current directory, and the face is the documented names."""
    code = (
        "import rxrx_fast, rxrx_kernels.fused; print(' '.join(n for n in rxrx_fast.__all__ if hasattr(rxrx_fast, n)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert {"Catalog", "DataLoader", "Dataset", "Normalize", "PlateStats", "Policy"} <= set(run.stdout.split())


def test_the_face_is_light():
    """import rxrx_fast alone loads neither torch nor DALI nor pandas."""
    code = "import sys, rxrx_fast; print([m for m in ('torch', 'nvidia.dali', 'pandas', 'numba') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "[]", run.stderr
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        rxrx_fast.Nothing
