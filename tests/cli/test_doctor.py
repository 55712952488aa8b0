"""The doctor: what it finds, what it concludes, and what it says when something is wrong."""

import json
from importlib import import_module

import pytest
import torch

from rxrx_fast.bench import machine
from rxrx_fast.cli import doctor

# The package's attribute of this name is the function.
cli = import_module("rxrx_fast.cli.main")


@pytest.fixture(scope="module")
def findings():
    return doctor.examine()


def state(found, part):
    """The state and text of a part."""
    return next((row["state"], row["found"]) for row in found["parts"] if row["part"] == part)


def test_this_machine_is_ready(findings):
    """Where the tests run, an image has gone down the main path."""
    assert findings["ready"]
    assert state(findings, "trial")[0] == "ok"
    assert "delivered an image" in state(findings, "trial")[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_and_why(findings):
    """Each stage is on the CPU; the reason names torch's build or the missing driver."""
    stages = {stage["stage"]: stage for stage in findings["stages"]}
    assert list(stages) == ["read", "decode", "normalise, augment", "deliver"]
    assert stages["normalise, augment"]["path"].startswith(f"CPU, {machine.usable_cores()} thread")
    assert "torch" in stages["normalise, augment"]["why"]
    assert stages["deliver"]["path"] == "CPU tensors"


@pytest.mark.parametrize("own", [True, False])
def test_decoding_is_told_as_the_pipeline_does_it(monkeypatch, rxrx_root, own):
    """With libdeflate our kernels decode RxRx1's files, without it DALI does; the pipeline's own rule agrees."""
    from rxrx_kernels.deflate import libdeflate as inflate

    from rxrx_fast.catalog import Catalog
    from rxrx_fast.stores import open_store

    monkeypatch.setattr(inflate, "available", lambda: own)
    decode = next(stage for stage in doctor._stages() if stage["stage"] == "decode")
    assert decode["path"].startswith("rxrx_kernels on the CPU" if own else "DALI on the CPU")
    assert own or "pip install deflate" in decode["why"]
    assert (open_store(Catalog.read(rxrx_root).available()).decoders[0] == "host") == own


@pytest.mark.parametrize(
    ("measured", "path", "why"),
    [
        ((700.0, 21000.0), "rxrx_kernels on the GPU", "21,000 sites/s on the GPU in batches of 64, 700 on the host"),
        ((9000.0, 4000.0), "rxrx_kernels on the CPU", "4,000 sites/s on the GPU"),
        (RuntimeError("no kernel image"), "rxrx_kernels on the CPU", "could not be measured (RuntimeError: no kernel"),
    ],
)
def test_with_a_gpu_the_decoder_is_measured(monkeypatch, measured, path, why):
    """The faster of host and GPU is named with both rates; a GPU that fails is no fault of the machine's."""
    from rxrx_fast.decode import choice as decode_choice
    from rxrx_fast.devices import device

    def measure(sites, image_size, *, batch, threads, **_):
        if isinstance(measured, Exception):
            raise measured
        assert image_size == (512, 512)
        assert [len(files) for files in sites] == [6]
        return decode_choice.compare(*measured, threads, batch)

    monkeypatch.delenv("RXRX_FAST_DECODE", raising=False)
    monkeypatch.setattr(decode_choice, "measure", measure)
    monkeypatch.setattr(device, "missing_for_cuda", list)
    monkeypatch.setattr(device, "resolve", lambda _: 0)
    decode = next(stage for stage in doctor._stages() if stage["stage"] == "decode")
    assert decode["path"].startswith(path)
    assert why in decode["why"]
    monkeypatch.setenv("RXRX_FAST_DECODE", "host")
    decode = next(stage for stage in doctor._stages() if stage["stage"] == "decode")
    assert decode["path"].startswith("rxrx_kernels on the CPU")
    assert decode["why"] == "RXRX_FAST_DECODE=host"


def test_both_builds_of_dali_are_a_fault(monkeypatch):
    """The CUDA 12 and 13 builds overwrite each other: not ready, with the command that mends it."""
    both = {"nvidia-dali-cuda120": "2.4.0", "nvidia-dali-cuda130": "2.4.0"}
    monkeypatch.setattr(machine, "packages", lambda: both)
    found = doctor.examine()
    assert not found["ready"]
    assert "pip uninstall -y nvidia-dali-cuda120 nvidia-dali-cuda130" in state(found, "DALI")[1]
    assert "! DALI" in doctor.as_text(found)
    assert "not ready" in doctor.as_text(found)


@pytest.mark.parametrize(("module", "part"), [("torch", "torch"), ("numba", "numba")])
def test_what_cannot_be_imported_is_a_fault(monkeypatch, module, part):
    """A missing package is a fault with its reason, not an exception."""
    real = doctor.import_module

    def missing(name):
        if name == module:
            raise ImportError(f"No module named {name!r}")
        return real(name)

    monkeypatch.setattr(doctor, "import_module", missing)
    found = doctor.examine()
    assert not found["ready"]
    kind, text = state(found, part)
    assert kind == "fault"
    assert module in text
    assert "pip install" in text


def test_without_dali_a_queue_is_named(monkeypatch):
    """No DALI is no fault on the CPU: the doctor says what carries batches, and how to install it."""
    real = doctor.import_module

    def missing(name):
        if name == "nvidia.dali":
            raise ImportError(f"No module named {name!r}")
        return real(name)

    monkeypatch.setattr(doctor, "import_module", missing)
    monkeypatch.setattr(machine, "packages", dict)
    kind, text = state({"parts": doctor._dali()}, "DALI")
    assert kind == "note"
    assert text.startswith("DALI is not installed: a plain queue carries batches on the CPU")
    assert "pip install" in text
    decode = next(stage for stage in doctor._stages() if stage["stage"] == "decode")
    assert "a plain queue carries" in decode["why"] or torch.cuda.is_available()


def test_a_trial_that_fails_is_a_fault(monkeypatch):
    """What is installed and does not work is found by the trial."""
    from rxrx_fast import loader

    def broken(*_, **__):
        raise OSError("libcuda is of another world")

    monkeypatch.setattr(loader, "DataLoader", broken)
    found = doctor.examine()
    assert not found["ready"]
    assert "another world" in state(found, "trial")[1]


def test_command(capsys, monkeypatch, findings):
    """`doctor` prints a table and ends with 0; --json is the same for programs; a fault ends with 1."""
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "what each stage will do" in text
    assert "ready: " in text
    assert cli.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == findings
    monkeypatch.setattr(doctor, "examine", lambda: {**findings, "ready": False})
    assert cli.main(["doctor"]) == 1


def test_the_machine_is_described(findings):
    """The description has what a rate depends on."""
    found = findings["machine"]
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0.1
    assert {"numpy", "torch", "numba", "pillow"} <= set(found["packages"])
    json.dumps(found)
