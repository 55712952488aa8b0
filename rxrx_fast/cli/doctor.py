"""What this machine has, which path each stage of loading will take on it, and why."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import numpy as np
import pandas as pd
from PIL import Image

from rxrx_fast.bench import machine

__all__ = ["as_json", "as_text", "examine"]

_OK, _NOTE, _FAULT = "ok", "note", "fault"


def examine() -> dict:
    """Look at the machine.

    Returns
    -------
    dict
        ``machine``; ``parts``, a list of {part, state ("ok", "note", "fault"), found}; ``stages``, a list of {stage,
        path, why}; ``ready``, whether the main path can run.
    """
    parts = [*_system(), *_torch(), *_dali(), *_kernels(), *_gpu_extras()]
    if not any(part["state"] == _FAULT for part in parts):
        parts.append(_trial())
    return {
        "ready": not any(part["state"] == _FAULT for part in parts),
        "machine": machine.describe(),
        "parts": parts,
        "stages": _stages(),
    }


def as_json(findings: dict) -> str:
    """The findings for a program."""
    return json.dumps(findings, indent=2)


def as_text(findings: dict) -> str:
    """The findings for a terminal: parts, stages, and the verdict."""
    width = max(len(row.get("part", "")) for row in findings["parts"])
    marks = {_OK: " ", _NOTE: "-", _FAULT: "!"}
    lines = [f"{marks[part['state']]} {part['part']:{width}}  {part['found']}" for part in findings["parts"]]
    lines += ["", "what each stage will do:"]
    wide = max(len(stage["stage"]) for stage in findings["stages"])
    lines += [f"  {row['stage']:{wide}}  {row['path']}: {row['why']}" for row in findings["stages"]]
    faults = sum(part["state"] == _FAULT for part in findings["parts"])
    ready, not_ready = "ready: `rxrx-fast demo` runs here", f"not ready: mend what is marked with ! ({faults})"
    return "\n".join([*lines, "", ready if findings["ready"] else not_ready])


def _part(part: str, found: str, state: str = _OK) -> dict[str, str]:
    return {"part": part, "state": state, "found": found}


def _system() -> list[dict]:
    cores = machine.usable_cores()
    return [
        _part("Python", f"{sys.version.split()[0]} at {sys.executable}"),
        _part("processor", f"{machine.cpu()}; this process may use {cores} cores"),
        _part("memory", f"{machine.memory_gib():.0f} GiB"),
    ]


def _torch() -> list[dict]:
    try:
        torch = import_module("torch")
    except Exception as error:
        return [_part("torch", f"can't be imported ({error}); pip install torch", _FAULT)]
    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    parts = [_part("torch", f"{torch.__version__}, {build}")]
    driver = machine.gpus()
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            size, kind = properties.total_memory / 2**30, f"sm_{properties.major}{properties.minor}"
            near = f", {_cores_near(i)}" if _cores_near(i) else ""
            parts.append(_part(f"GPU {i}", f"{properties.name}, {size:.0f} GiB, {kind}{near}"))
    elif driver:
        names = ", ".join(gpu["name"] for gpu in driver)
        found = f"the driver shows {names}, but torch can't use it: install a CUDA build of torch"
        parts.append(_part("GPU", found, _NOTE))
    else:
        parts.append(_part("GPU", "none: nvidia-smi and torch see no device", _NOTE))
    return parts


def _cores_near(gpu: int) -> str:
    """Which NUMA node a GPU hangs on, where the system tells."""
    topology = import_module("rxrx_fast.runtime.topology")
    addresses = topology.pci_addresses()
    node = topology.numa_node(addresses[gpu]) if gpu < len(addresses) else None
    return "" if node is None else f"NUMA node {node}"


def _dali() -> list[dict]:
    builds = [f"{name} {version}" for name, version in machine.packages().items() if name.startswith("nvidia-dali-")]
    if len(builds) > 1:
        names = " ".join(build.split()[0] for build in builds)
        return [_part("DALI", f"{' and '.join(builds)} are both installed and overwrite each other's files: "
                      f"pip uninstall -y {names}, then install the one for your driver", _FAULT)]  # fmt: skip
    try:
        dali = import_module("nvidia.dali")
    except Exception as error:
        found = (
            f"DALI is not installed: a plain queue carries batches on the CPU; a GPU needs it ({error}); "
            "pip install 'rxrx-fast[cpu]', or [cuda13] or [cuda12] for a GPU"
        )
        return [_part("DALI", found, _NOTE)]
    return [_part("DALI", builds[0] if builds else f"{dali.__version__}, of an unknown build")]


def _kernels() -> list[dict]:
    try:
        numba = import_module("numba")
        import_module("rxrx_kernels.orient.site")
    except Exception as error:
        return [_part("numba", f"the CPU kernels can't be loaded ({error}); pip install numba", _FAULT)]
    return [_part("numba", f"{numba.__version__}, compiles the CPU kernels")]


def _gpu_extras() -> list[dict]:
    found = machine.packages()
    rows = (
        ("numba-cuda", ("numba-cuda",), "the GPU kernels"),
        (
            "nvCOMP",
            ("nvidia-libnvcomp-cu13", "nvidia-libnvcomp-cu12"),
            "a part of DALI, and another inflate on the GPU",
        ),
    )
    parts = []
    for title, names, use in rows:
        here = [f"{name} {found[name]}" for name in names if name in found]
        if here:
            parts.append(_part(title, f"{', '.join(here)}: {use}"))
        else:
            parts.append(_part(title, f"not installed; only a GPU needs it ({use})", _NOTE))
    return parts


def _trial() -> dict[str, str]:
    """Send one small image down the main path: what can be imported does not always run."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
            Image.fromarray(pixels).save(os.path.join(folder, "trial.png"))
            frame = pd.DataFrame({"experiment": ["trial"], "well": ["A01"]})
            catalog = import_module("rxrx_fast.catalog").Catalog.from_frame(frame, "{experiment}.png", 1, root=folder)
            dataset = import_module("rxrx_fast.dataset").Dataset(catalog, normalize="site")
            loader = import_module("rxrx_fast.loader").DataLoader(dataset, batch_size=1)
            images, _, _ = next(iter(loader))
            wanted = (pixels - pixels.mean()) / pixels.std()
            if not np.allclose(images[0, 0].cpu().numpy(), wanted, atol=1e-4):
                found = "an image came out wrong; please report this, with the output of `rxrx-fast doctor --json`"
                return _part("trial", found, _FAULT)
            return _part("trial", f"read, decoded, normalised and delivered an image on {images.device}")
    except Exception as error:
        return _part("trial", f"an image could not be loaded ({type(error).__name__}: {error})", _FAULT)


# The batch that the doctor measures decoders with.
_BATCH = 64


def _decoding(threads: str, on_gpu: bool) -> tuple[str, str]:
    """Which decoder RxRx1's files get: the pipeline's own rules are Store.decoders and decode.choice."""
    try:
        own = import_module("rxrx_kernels.deflate.libdeflate").available()
    except Exception:
        own = False
    if own and on_gpu:
        try:
            choice = _measured()
        except Exception as error:
            return f"rxrx_kernels on the {threads}", f"the GPU could not be measured ({type(error).__name__}: {error})"
        return f"rxrx_kernels on the {'GPU' if choice.path == 'gpu' else threads}", choice.why
    if own:
        carrier = (
            "DALI carries the pixels on, and decodes other files"
            if not any(part["state"] == _NOTE for part in _dali())
            else "a plain queue carries the pixels on, and the host decodes other files too"
        )
        why = f"its kernels take 8-bit gray PNG, as RxRx1 is; {carrier}"
        return f"rxrx_kernels on the {threads}", why
    if any(part["state"] == _NOTE for part in _dali()):
        return f"Pillow on the {threads}", "libdeflate is missing (pip install deflate), and so is DALI"
    why = "libdeflate is missing (pip install deflate), and DALI decodes PNG on the CPU, also with a GPU"
    return f"DALI on the {threads}", why


def _measured():
    """Who is to decode here, found as a loader finds it, on channels of RxRx1's size and noise."""
    decode_choice = import_module("rxrx_fast.decode.choice")
    asked = decode_choice.wanted()
    if asked != "auto":
        return decode_choice.Choice(asked, f"RXRX_FAST_DECODE={asked}")
    rng, files = np.random.default_rng(0), []
    for _ in range(6):
        encoded = io.BytesIO()
        pixels = rng.gamma(6, 5, (512, 512)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(encoded, "PNG", compress_level=9)
        files.append(np.frombuffer(encoded.getvalue(), np.uint8))
    cores = machine.usable_cores()
    device = import_module("rxrx_fast.devices.device").resolve("cuda")
    with ThreadPoolExecutor(cores) as pool:
        return decode_choice.measure([files], (512, 512), batch=_BATCH, pool=pool, threads=cores, device=device)


def _stages() -> list[dict[str, str]]:
    try:
        from rxrx_fast.devices.device import missing_for_cuda

        missing = missing_for_cuda()
    except Exception as error:
        missing = [f"torch or numba can't be imported ({error})"]
    cores = machine.usable_cores()
    threads = f"CPU, {cores} thread{'s' if cores > 1 else ''}"
    if missing:
        why = f"no GPU path, because {'; '.join(missing)}"
        finish = (threads, why)
        deliver = ("CPU tensors", 'device="auto" means the CPU here; .to(device) in the loop if the model is elsewhere')
    else:
        finish = ("GPU", 'torch and numba-cuda are complete; device="cpu" turns it off')
        deliver = ("GPU tensors", "made there, so nothing is copied to the GPU after decoding")
    rows = (
        ("read", threads, "a thread pool reads and checks files two batches ahead; a core gets one thread"),
        ("decode", *_decoding(threads, on_gpu=not missing)),
        ("normalise, augment", *finish),
        ("deliver", *deliver),
    )
    return [dict(zip(("stage", "path", "why"), row)) for row in rows]
