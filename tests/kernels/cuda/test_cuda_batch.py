"""The batch kernels of CUDA against the CPU's: the same cases on the simulator and, where there is one, on a GPU."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed (extra ptx, cuda12 or cuda13)"
)
CASES = ["histograms", "fused", "augmented_8", "augmented_16"]


def run_case(case, **environment):
    """In a process of its own: the simulator is chosen before numba is imported, and a fault would end a context."""
    run = subprocess.run(
        [sys.executable, "cuda_batch_cases.py", case], cwd=Path(__file__).parents[2] / "support", env={**os.environ, **environment},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == f"{case}: done"


@needs_numba_cuda
@pytest.mark.parametrize("case", [pytest.param(name, marks=pytest.mark.slow(7)) for name in CASES[1:]] + CASES[:1])
def test_on_the_simulator(case):
    """Bit-equal to the CPU, in whole or in part of other memory, with the channels first and last."""
    run_case(case, NUMBA_ENABLE_CUDASIM="1")


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu(case):
    """As on the simulator, on larger images and more mixtures of operations."""
    run_case(case)
