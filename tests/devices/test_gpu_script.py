"""benchmarks/gpu.sh, which `make gpu-test` and `make gpu-bench` call: on pretended machines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from loading import SUPPORT

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.sh"


def tool(folder, name, text):
    path = folder / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


@pytest.fixture
def run(tmp_path):
    """Run the script with pretended programs before the real ones on the path."""

    def call(what, gpu=True, python="exit 0", **variables):
        tool(tmp_path, "nvidia-smi", 'echo "GPU 0: Pretended"' if gpu else "exit 9")
        # Installing is not for a test.
        tool(tmp_path, "make", 'echo "make $*"; exit 1')
        tool(tmp_path, "some-python", python)
        path, python_path = f"{tmp_path}:{os.environ['PATH']}", str(tmp_path / "some-python")
        environment = {**os.environ, "PATH": path, "PYTHON": python_path,
                       "VENV": str(tmp_path / "venv"), "OUT": str(tmp_path / "out"), **variables}  # fmt: skip
        return subprocess.run([SCRIPT, what], env=environment, capture_output=True, text=True, timeout=60, check=False)

    return call


@pytest.mark.parametrize("what", ["test", "bench", "sanitize"])
def test_without_a_gpu(run, what):
    """One line, and no failure."""
    done = run(what, gpu=False)
    assert done.returncode == 0
    assert done.stdout == f"gpu-{what}: no GPU, or no NVIDIA driver, on this machine: nothing was run\n"


def test_a_gpu_that_no_python_can_use(run):
    """After an attempt to install: a failure that names what is missing and what to do."""
    done = run("test", python='[ "$1" = - ] && echo "torch (No module named torch)"')
    assert done.returncode == 1
    assert "make -s gpu-install" in done.stdout
    assert "torch (No module named torch)" in done.stdout
    assert "SITE=/tmp/site" in done.stdout


def test_all_there(run):
    """The whole suite of the marker, by the Python that has everything, with both packages in reach."""
    done = run("test", python='[ "$1" = - ] && exit 0; echo "$PYTHONPATH" "$@"; ls "${PYTHONPATH%%:*}"', SITE="/a/site")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "-m pytest -m gpu -p no:cacheprovider --durations=15 tests\n" in done.stdout
    assert ":/a/site" in done.stdout
    assert "rxrx_fast\nrxrx_kernels\nsitecustomize.py\n" in done.stdout


def test_without_dali_the_kernels_are_tested(run):
    """What is left out is said, with the reason."""
    done = run("test", python='[ "$1" = - ] && echo "nvidia.dali (No module)"; echo "$@"')
    assert done.returncode == 0
    assert "skipped: everything but the kernels' own tests, because of: nvidia.dali (No module)" in done.stdout
    assert "no:cacheprovider --durations=15 tests/kernels" in done.stdout
    done = run("bench", python='[ "$1" = - ] && echo "nvidia.dali (No module)"; echo "$@"')
    assert "gpu-bench: nothing was run" in done.stdout
    assert "gpu_kernels.py" not in done.stdout


def test_packages_of_a_folder_are_as_if_installed(run, tmp_path):
    """Also those that work by a .pth file, as numba-cuda does."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "replaces.pth").write_text("import sys; sys.replaced = True\n")
    python = f'[ "$1" = - ] && exit 0; exec "{sys.executable}" -c "import sys; print(sys.replaced)"'
    done = run("test", python=python, SITE=str(site))
    assert done.stdout.splitlines()[-1] == "True", done.stdout + done.stderr


def test_what_the_sanitizer_has_no_time_for_is_said(run, tmp_path):
    """Every kernel's cases under the first tool; later ones are left out, in words, when the time is over."""
    tool(tmp_path, "compute-sanitizer", 'echo "checked $2 $6 $7"')
    done = run("sanitize", python="exit 0")
    lines = [line for line in done.stdout.splitlines() if line.startswith("checked")]
    assert done.returncode == 0
    assert len(lines) == 32
    assert lines[0] == "checked memcheck cuda_png_cases.py damage"
    cases = SUPPORT
    for line in lines[:8]:
        _, _, script, case = line.split()
        assert f"def {case}(" in (cases / script).read_text()
    done = run("sanitize", python="exit 0", LIMIT="5")
    assert done.stdout.count("skipped: ") == 32
    assert "checked" not in done.stdout


def test_every_benchmark_has_its_share_of_the_time(run):
    """All three run, also after one that failed, which fails the whole; limits stay below the time for all."""
    done = run("bench", python='[ "$1" = - ] && exit 0; echo "$@"; case "$1" in *gpu_loader*) exit 3;; esac')
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("benchmarks/")]
    assert [line[0] for line in lines] == [f"benchmarks/gpu_{name}.py" for name in ("kernels", "loader", "training")]
    assert all(line[1] == "--out" and 100 <= int(line[4]) <= 580 for line in lines)
    assert done.returncode == 1


def test_this_python_runs_the_check():
    """The check of a Python is itself valid Python: it names what this one lacks, or nothing."""
    text = SCRIPT.read_text()
    check = text[text.index("<<'EOF'") :].split("\n", 1)[1].split("\nEOF", 1)[0]
    done = subprocess.run([sys.executable, "-"], input=check, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert all(" (" in line or "sees no GPU" in line for line in done.stdout.splitlines())
