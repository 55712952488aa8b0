"""The races with every peer installed: nobody is missing, and everyone does the work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rxrx_fast.bench import peers

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
#: A round of a tenth of a second, of few sites.
SMALLEST = ("-q", "--sites", 16, "--batch-size", 4, "--rounds", 1, "--seconds", 0.1, "--threads", 1)
pytestmark = pytest.mark.integration


def run(folder, *command):
    """Run a command of this Python in a folder; the end of its output where it fails."""
    done = subprocess.run([sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow(30)
def test_every_peer_races(rxrx_root, tmp_path):
    """``rxrx-fast bench --peers`` at its smallest size has a row with a rate for each peer."""
    run(tmp_path, "-m", "rxrx_fast.cli", "bench", rxrx_root, "--peers", "--json", "race.json", *SMALLEST)
    result = json.loads((tmp_path / "race.json").read_text())
    assert result["not_run"] == []
    found = {row["name"]: row["sites_per_s"] for row in result["results"]}
    assert {name for name, _ in peers.PEERS.values()} < set(found)


@pytest.mark.slow(15)
def test_every_augmenter_races(tmp_path):
    """``benchmarks/augmenting.py --smallest`` leaves no library out."""
    command = [BENCHMARKS / "augmenting.py", "--smallest", "--data", tmp_path / "data", "--out", tmp_path / "out"]
    run(tmp_path, *command)
    result = json.loads((tmp_path / "out" / "augmenting.json").read_text())
    assert result["not_run"] == []
    assert {row["name"] for case in result["cases"] for row in case["rows"]} > {"rxrx_fast"}
