"""No benchmark rots: every file of benchmarks/ runs here at its smallest size, and a new one must be listed."""

import ast
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from loading import SUPPORT
from PIL import Image

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
STATISTICS = {"median", "min", "max", "runs"}


def run(folder, *command):
    """Run a command of this Python in a folder; returns what it printed."""
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_rate(rate):
    """Median, least and greatest of rounds that are positive numbers."""
    assert set(rate) == STATISTICS
    assert rate["runs"]
    assert all(math.isfinite(value) and value > 0 for value in rate["runs"])
    assert rate["min"] == min(rate["runs"]) <= rate["median"] <= max(rate["runs"]) == rate["max"]


def check_picture(path):
    """A PNG that has more on it than its background."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        pixels = np.asarray(image.convert("L"))
    assert 0.005 < (pixels < 250).mean() < 0.9, f"{path.name} is empty or full"


def check_throughput(folder, printed):
    """Four sweeps, each with positive rates and shares of the threads' time that add up to 1."""
    command = [BENCHMARKS / "throughput.py", "--smallest", "--data", folder / "data", "--out", folder / "out"]
    printed = printed(*command)
    result = json.loads((folder / "out" / "throughput.json").read_text())
    assert [sweep["name"] for sweep in result["sweeps"]] == ["threads", "batch_size", "image_size", "dtype"]
    assert all(data["sites"] > 0 and data["bytes_a_site"] > 0 for data in result["data"])
    for sweep in result["sweeps"]:
        assert sweep["name"] not in sweep["fixed"]
        assert sweep["unit"] in printed
        for point in sweep["values"]:
            check_rate(point["sites_per_s"])
            shares = point["shares"]
            beside = {name: shares.pop(name) for name in ("no core", "delivering")}
            # The system's clocks advance in ticks, and so short a run is a few of them.
            assert all(-0.3 <= share <= 1.3 for share in (*beside.values(), shares["waiting"]))
            stages = list(shares)[:-2]
            assert list(shares)[-2:] == ["waiting", "other"]
            assert {"reading", "fusing"} < set(stages)
            assert all(0 < shares[name] < 1 for name in stages)
            assert sum(shares.values()) == pytest.approx(1)
    return result, [sweep["name"] for sweep in result["sweeps"]]


def check_reading(folder, printed):
    """Every way to read, warm and cold, with positive rates, known parts and a bound; and nothing left on the disk."""
    disk = folder / "disk"
    disk.mkdir()
    printed = printed(BENCHMARKS / "reading.py", "--smallest", "--folder", disk, "--out", folder / "out")
    assert not list(disk.iterdir())
    result = json.loads((folder / "out" / "reading.json").read_text())
    assert set(result["floors"]) == {"copy_bytes_per_s", "open_fstat_close_s", "disk_bytes_per_s", "disk_request_s"}
    assert all(value > 0 for value in result["floors"].values())
    methods = {row["method"] for row in result["rows"]}
    assert len(methods) == 6
    assert len(result["rows"]) == 12
    assert {(row["method"], row["cache"]) for row in result["rows"]} == {
        (m, c) for m in methods for c in ("warm", "cold")
    }
    for row in result["rows"]:
        check_rate(row["sites_per_s"])
        assert set(row["parts"]) == {"user", "copy", "kernel", "asleep", "no_core"}
        assert all(part >= 0 for part in row["parts"].values())
        assert sum(row["parts"].values()) > 0
        # Six files between RxRx1's smallest and largest.
        assert 6 * 37_000 <= row["bytes_a_site"] <= 6 * 177_000
        assert row["bound"]
        assert row["bound"] in printed
    cases = [(row["loader"], row["cache"]) for row in result["epochs"]]
    assert sorted(cases) == sorted((n, c) for n in ("readahead", "no readahead") for c in ("warm", "cold"))
    for row in result["epochs"]:
        check_rate(row["sites_per_s"])
        assert row["resident_before"] == 1 or row["cache"] == "cold"
        assert f"the loader, {row['loader']}" in printed
    for row in result["folders"]:
        check_rate(row["open_s"])
        check_rate(row["list_s_a_name"])
    return result, ["reading"]


def check_augmenting(folder, printed):
    """Every case has positive rates and plausible pictures of all who run, ours first; others have a reason."""
    printed = printed(BENCHMARKS / "augmenting.py", "--smallest", "--data", folder / "data", "--out", folder / "out")
    result = json.loads((folder / "out" / "augmenting.json").read_text())
    assert set(result["floors_s"]) == {"fill", "standardise"}
    assert min(result["floors_s"].values()) > 0
    names = [case["name"] for case in result["cases"]]
    assert names == ["deepnoise-easy", "deepnoise-normal", "deepnoise-hard", "three views"]
    for case in result["cases"]:
        entered = [row["name"] for row in case["rows"]]
        # A peer may be missing here; one that is installed and fails the check of its work is a fault.
        for row in result["not_run"]:
            assert "is not installed" in row["reason"]
            assert row["reason"] in printed
        assert entered[0] == "rxrx_fast"
        assert len(entered) + len(result["not_run"]) == 6
        for row in case["rows"]:
            check_rate(row["sites_per_s"])
            assert math.isfinite(row["mean"])
            assert 0.5 < row["std"] < 1.5
        assert min(case["parts_s"].values()) > 0
        assert case["rows"][0]["ours_is"] == 1
    return result, ["augmenting"]


def check_training(folder, printed):
    """A row with steps on a resident batch and fed ones, ours first, and shares of waiting."""
    command = [BENCHMARKS / "training.py", "--smallest", "--device", "cpu", "--data", folder / "data"]
    printed = printed(*command, "--out", folder / "out")
    result = json.loads((folder / "out" / "training.json").read_text())
    (row,) = result["rows"]
    assert (row["model"], row["size"], row["batch"], row["source"]) == ("small", 64, 2, "rxrx_fast.recipes")
    assert row["parameters"] > 1e6
    assert row["precision"] in ("bfloat16", "float32")
    assert not result["skipped"]
    assert [feed["name"] for feed in row["feeds"]] == ["rxrx_fast", "torch DataLoader + cv2, pinned copies"]
    for feed in row["feeds"]:
        for name in ("step_s", "sites_per_s", "against_resident"):
            check_rate(feed[name])
        assert feed["sites_per_s"]["median"] == pytest.approx(row["batch"] / feed["step_s"]["median"])
        assert 0 <= feed["waiting"]["median"] < 1
    assert 0 <= row["feeds"][0]["waiting_by_meter"]["median"] < 1
    assert "| small | 64 | 2 |" in printed
    return result, ["training"]


SCRIPTS = {
    "throughput.py": check_throughput,
    "reading.py": check_reading,
    "augmenting.py": check_augmenting,
    "training.py": check_training,
}


@pytest.mark.parametrize(
    "script", ["augmenting.py", *(pytest.param(name, marks=pytest.mark.slow(7)) for name in SCRIPTS if name[0] != "a")]
)
def test_scripts(script, tmp_path):
    """At its smallest size a script writes complete results and charts with something on them."""
    result, figures = SCRIPTS[script](tmp_path, lambda *command: run(tmp_path, *command))
    assert result["benchmark"] == Path(script).stem
    assert {"benchmark", "date", "commit", "machine", "load_average", "parameters"} <= set(result)
    assert result["machine"]["cpu"]
    assert result["machine"]["packages"]["numpy"]
    for name in figures:
        check_picture(tmp_path / "out" / f"{name}.png")


def check_gpu_kernels(result):
    """Both inflates by number of streams, and every other kernel against the card's copy."""
    assert {row["inflate"] for row in result["inflate"]} >= {"own"}
    assert all(row["gb_per_s"] > 0 and row["bytes_out"] > row["bytes_in"] > 0 for row in result["inflate"])
    names = [row["kernel"] for row in result["kernels"]]
    ours = [name for name in names if not name.startswith(("torch", "CuPy"))]
    assert len(ours) == 17
    assert "torch, eager, mirrored, float16" in names
    assert result["copy_bytes_per_s"] > 0
    assert len(names) - len(ours) + sum(row["what"] in ("torch.compile", "CuPy ElementwiseKernel") for row in
                                        result["skipped"]) == 3  # fmt: skip
    assert all(row["share_of_copy"] > 0 for row in result["kernels"])


def check_gpu_loader(result):
    """Everyone who can feed the device, with positive rates; who can't is listed with the reason."""
    for row in result["rows"]:
        check_rate(row["sites_per_s"])
    assert {"rxrx_fast, decoded by the host", "DALI, mixed decoder"} <= {row["name"] for row in result["rows"]}
    assert len(result["rows"]) + len(result["skipped"]) == 5


def check_gpu_training(result):
    """A resident batch's step, and everyone's fed ones."""
    for row in result["rows"]:
        assert row["resident_step_s"] > 0
        assert row["feeds"]
        for feed in row["feeds"]:
            assert feed["step_s"] > 0
            assert feed["waiting"] < 1
            assert feed["steps"] > 0
    assert result["rows"]


GPU_SCRIPTS = {
    "gpu_kernels.py": check_gpu_kernels,
    "gpu_loader.py": check_gpu_loader,
    "gpu_training.py": check_gpu_training,
}


def check_gpu_script(script, folder, *options):
    """At its smallest size: a complete result and charts."""
    run(folder, BENCHMARKS / script, "--smallest", "--data", folder / "data", "--out", folder / "out", *options)
    result = json.loads((folder / "out" / Path(script).with_suffix(".json")).read_text())
    assert {"benchmark", "date", "commit", "machine", "parameters", "card", "skipped"} <= set(result)
    GPU_SCRIPTS[script](result)
    check_picture(folder / "out" / Path(script).with_suffix(".png"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("script", GPU_SCRIPTS)
def test_without_a_gpu_it_is_said_in_one_line(script, tmp_path):
    """Nothing is measured, nothing written, and it is no failure."""
    printed = run(tmp_path, BENCHMARKS / script, "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert len(printed.splitlines()) == 1
    assert "nothing measured: torch" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.slow(8)
@pytest.mark.parametrize("script", ["gpu_loader.py", "gpu_training.py"])
def test_gpu_scripts_on_the_cpu(script, tmp_path):
    """What feeds a GPU runs without one too, as far as it can."""
    check_gpu_script(script, tmp_path, "--device", "cpu")


@pytest.mark.slow(105)
@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed (extra ptx)")
def test_gpu_kernels_on_the_simulator(tmp_path):
    """Every line of it, in a process of its own: results are checked against the CPU's, and the charts are drawn."""
    script = SUPPORT / "gpu_simulated_kernels.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path], env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, cwd=tmp_path,
        capture_output=True, text=True, timeout=290, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    check_gpu_kernels(json.loads((tmp_path / "out" / "gpu_kernels.json").read_text()))
    check_picture(tmp_path / "out" / "gpu_kernels.png")


def test_gpu_peers_make_the_same_batch():
    """Each peer of the fused kernel that runs here mirrors, normalises and rounds as it should."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from _gpu_peers import PEERS
    finally:
        sys.path.remove(str(BENCHMARKS))
    assert list(PEERS) == ["torch, eager", "torch.compile", "CuPy ElementwiseKernel"]
    stack = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    center, scale = torch.rand(2, 3, 1, 1) * 50, torch.rand(2, 3, 1, 1) + 0.1
    wanted = ((stack.flip(3) - center) * scale).half()
    assert PEERS["torch, eager"]()(stack, center, scale).equal(wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("script", GPU_SCRIPTS)
def test_gpu_scripts(script, tmp_path):
    """On a GPU, each at its smallest size."""
    check_gpu_script(script, tmp_path)


@pytest.mark.slow(12)
def test_kernel_benchmarks(tmp_path):
    """The benchmarks under pytest-benchmark pass, each once and untimed, and every file has some."""
    pytest.importorskip("pytest_benchmark")
    files = sorted(BENCHMARKS.glob("test_*.py"))
    assert files
    printed = run(BENCHMARKS.parent, "-m", "pytest", "-p", "no:cacheprovider", "--benchmark-disable", "-v", *files)
    for path in files:
        lines = [line for line in printed.splitlines() if path.name in line and "::" in line]
        assert any("PASSED" in line for line in lines), f"{path.name} ran nothing"


def test_every_benchmark_is_covered():
    """A new file in benchmarks/ is listed above, is a pytest file, or is imported by one that is."""
    files = {path.name: path for path in BENCHMARKS.glob("*.py")}
    covered = {*SCRIPTS, *GPU_SCRIPTS} | {name for name in files if name.startswith("test_")}
    assert {*SCRIPTS, *GPU_SCRIPTS} <= set(files)
    waiting = list(covered)
    while waiting:
        for node in ast.walk(ast.parse(files[waiting.pop()].read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            new = {f"{name}.py" for name in names} & set(files) - covered
            covered |= new
            waiting += new
    assert covered == set(files), f"not run by any test: {sorted(set(files) - covered)}"
