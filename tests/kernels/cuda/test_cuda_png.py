"""PNG on a GPU: inflate, Adler-32 and filters on the simulator, compiled to PTX, and on a GPU.

The same cases run on the simulator, at sizes that it can do in seconds, and on a GPU, at the size of real channels.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed (extra ptx, cuda12 or cuda13)"
)
HERE = Path(__file__).parents[2] / "support"


def simulate(case):
    """Run a case of cuda_png_cases.py on the simulator, which is chosen before numba is imported."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    run = subprocess.run(
        [sys.executable, "cuda_png_cases.py", case], cwd=HERE, env=environment, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == f"{case}: done"


@needs_numba_cuda
@pytest.mark.parametrize(
    "case",
    ["adler", "whole", *(pytest.param(name, marks=pytest.mark.slow(12)) for name in ("blocks", "damage"))]
    + [pytest.param(name, marks=pytest.mark.slow(6)) for name in ("filters_8", "filters_16")],
)
def test_on_the_simulator(case):
    """Bit-equal to zlib and to the filters' formulas; damaged streams end with a status and change nothing else."""
    simulate(case)


@needs_numba_cuda
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_kernels_compile_to_ptx(capability):
    """The kernels compile for both architectures, without local memory, calls or floating point."""
    from rxrx_kernels.cuda import deflate, png

    compiled = {**png.ptx(capability), **deflate.ptx(capability)}
    assert set(compiled) == {"unfilter_8", "unfilter_16", "adler", "inflate"}
    for name, text in compiled.items():
        assert f".target sm_{capability[0]}{capability[1]}" in text
        for absent in (".f64", ".f32", "ld.local", "st.local", "call.uni"):
            assert absent not in text, (name, absent)
        assert ("shfl.sync.up" in text) == name.startswith("unfilter")


@pytest.mark.gpu
@pytest.mark.parametrize("case", ["blocks", "damage", "adler", "filters_8", "filters_16", "whole", "large"])
def test_on_a_gpu(case):
    """As on the simulator, and whole batches of 512 x 512. In its own process: a fault would end the CUDA context."""
    run = subprocess.run(
        [sys.executable, "cuda_png_cases.py", case], cwd=HERE, capture_output=True, text=True, timeout=280, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == f"{case}: done"
