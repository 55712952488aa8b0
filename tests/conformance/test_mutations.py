"""Tests that stream notice a loader that delivers nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
#: Files that make a loader.
FILES = sorted(path for path in TESTS.rglob("test_*.py") if "DataLoader(" in path.read_text() and path.parent != HERE)


@pytest.mark.slow(60)
@pytest.mark.timeout(900)
def test_every_test_that_streams_fails_when_epochs_end_at_once():
    """With an iterator that ends before its first batch, each test that asks for a batch fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "ends_at_once", "-p", "no:cacheprovider", "--no-cov", "-rf"]
    command += ["-m", "not slow and not integration and not gpu", "--timeout", "120", *map(str, FILES)]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        command, cwd=TESTS.parent, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, "\n".join(re.findall(r"^(?:FAILED|ERROR) .*", run.stdout, re.M)) or run.stdout[-3000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed, run.stdout[-3000:]
    assert int(passed[1]) > 100, run.stdout[-3000:]
