"""benchmarks/gpu_kernels.py without a GPU: every line of it, on tiny images and kernels on Numba's simulator.

Run by test_benchmarks.py in a process of its own, with the folder for its results; the times mean nothing.
"""

import os
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch
from gpu_simulated import Stream, on_the_cpu, pretend
from gpu_simulated_device import of_tensors, on_device
from numba import cuda

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import _gpu
import gpu_kernels
from rxrx_kernels.cuda import augment as cuda_augment
from rxrx_kernels.cuda import histogram16 as cuda_moments16
from rxrx_kernels.cuda import orient as kernels


class Event:
    """One that keeps the time of day."""

    def __init__(self, enable_timing=False):
        self.at = 0.0

    def record(self, stream=None):
        self.at = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return max((end.at - self.at) * 1e3, 1e-6)


def main(folder: str):
    pretend()
    warnings.simplefilter("ignore")
    torch.cuda.Event = Event
    torch.cuda.synchronize = lambda: None
    torch.cuda.current_stream = Stream
    torch.cuda.get_device_properties = lambda _: SimpleNamespace(
        name="Simulated", major=9, minor=0, multi_processor_count=1, total_memory=2**30
    )
    torch.Tensor.cuda = torch.Tensor.clone
    torch.Tensor.pin_memory = torch.Tensor.clone
    for name in ("zeros", "full", "tensor", "empty_like"):
        setattr(torch, name, on_the_cpu(getattr(torch, name)))
    randint = on_the_cpu(torch.randint)
    torch.randint = lambda low, high, shape, **others: randint(low, high, (1 << 10,), **others)
    cuda.as_cuda_array = on_device
    for module, names in (
        (kernels, ("orient_batch", "histogram_batch")), (cuda_augment, ("augment_batch",)),
        (cuda_moments16, ("histogram16_batch",)),
    ):  # fmt: skip
        for name in names:
            setattr(module, name, of_tensors(getattr(module, name)))
    _gpu.no_gpu = lambda: None
    # A turn of the simulator takes long, and its time is of no interest.
    seconds = _gpu.seconds
    _gpu.seconds = lambda work, rounds=1, warm=0: seconds(work, 1, 0)
    gpu_kernels.SMALLEST = (16, (6,), 1)
    gpu_kernels.main(["--smallest", "--data", os.path.join(folder, "data"), "--out", os.path.join(folder, "out")])


if __name__ == "__main__":
    main(sys.argv[1])
