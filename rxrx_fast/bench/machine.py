"""What a measurement was made on: processor, memory, system, versions, GPU."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["commit", "cpu", "describe", "gpus", "memory_gib", "packages", "usable_cores"]

_PACKAGES = (
    "rxrx-fast", "numpy", "torch", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "numba", "numba-cuda",
    "cupy-cuda13x", "cupy-cuda12x", "nvidia-libnvcomp-cu13", "nvidia-libnvcomp-cu12", "deflate",
    "opencv-python-headless", "opencv-python", "pillow",
)  # fmt: skip


def describe() -> dict:
    """Everything about this machine that a rate depends on."""
    return {
        "cpu": cpu(),
        "cores": usable_cores(),
        "memory_gib": round(memory_gib(), 1),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": packages(),
        "gpus": gpus(),
    }


def usable_cores() -> int:
    """Cores that this process may use, which containers and schedulers restrict."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """Physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def packages(names: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """Versions of those of the packages that are installed, without importing them; by default of all that matter."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def gpus() -> list[dict[str, str]]:
    """Name, driver and memory of each GPU that the driver shows."""
    lines = _output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader").splitlines()
    found = (line.split(", ") for line in lines)
    return [dict(zip(("name", "driver", "memory"), parts)) for parts in found if len(parts) == 3]


def commit() -> str | None:
    """The git commit of this package's own checkout, with ``+changes`` if files differ; None outside of one."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    head = _output("git", "-C", str(folder), "rev-parse", "HEAD").strip()
    changed = _output("git", "-C", str(folder), "status", "--porcelain").strip()
    return f"{head}+changes" if head and changed else head or None


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _output(*command: str) -> str:
    """What a program prints, or nothing if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
